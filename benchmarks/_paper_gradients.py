"""What each term of the objective (18) has of the gradient that shapes the embedding."""

import numpy as np

# Spots that the gradients are taken on.
_N_SPOTS = 1024


def measure_gradients(trainer):
    """Return the gradients of a training where it stands; nothing of it changes.

    Parameters
    ----------
    trainer : Training
        At work, as its callbacks see it.

    Returns
    -------
    dict of str to float
        For each term by name, the Euclidean norm of lambda times its gradient with respect to the
        encoders' and attentions' parameters, on one batch; "total" is the norm of their sum.
    """
    import torch

    from skiehercl._training._batches import draw_tiles
    from skiehercl._training._loop import cut_batches, forward
    from skiehercl._training._terms import weight_of

    section, rng = trainer.section_, np.random.RandomState(0)
    tile = draw_tiles(len(section), section.coords, section.sections, _N_SPOTS, rng)[:1]
    (batch,) = trainer.placed_.place(cut_batches(tile, section.neighbor_mean, rng))
    network, norms, total = trainer.network_, {}, 0.0
    weights = [p for name, p in network.named_parameters() if not name.startswith("decoder.")]
    step = forward(network, batch)
    for term in trainer.terms_:
        if term.name not in trainer._ready:  # it joins later
            continue
        # A term that learns from the batches, as the transport does, must not learn from this one.
        known = dict(vars(term))
        loss = weight_of(term, trainer.plan_) * term.compute(step)
        vars(term).update(known)
        parts = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        pairs = zip(parts, weights, strict=True)
        flat = torch.cat([(torch.zeros_like(w) if g is None else g).ravel() for g, w in pairs])
        norms[term.name] = float(flat.norm())
        total = total + flat
    return {**norms, "total": float(total.norm())}
