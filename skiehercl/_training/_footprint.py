"""Bytes that a training and the encoding after it take, from the arrays held at once."""

from .._domains._footprint import count_ward
from .._features._footprint import count_left_over
from ..preprocessing._footprint import LARGEST_SMALL
from ._options import HybridEncoder, Trainer

__all__ = ["count_training"]


def count_training(size, estimator):
    """Return the bytes of the training, of the encoding, and what the domains find held then."""
    from .._objective import _anchors, _walk
    from ._batches import CHUNK
    from ._loop import _PAIR_LIMIT

    n, d, scales = size.n, size.d, size.n_scales
    network, trainer = estimator.network or HybridEncoder(), estimator.trainer or Trainer()
    hidden, latent = network.hidden_size, network.latent_size
    modalities, most = 1 + size.shows_image, 2 * LARGEST_SMALL
    walk, made = 0, 0
    if estimator.max_iter and estimator.lambda_contrast:
        if n <= _walk.EXACT_LIMIT:
            walk, made = 4 * n**2, 12 * n**2
        else:
            near, block = _anchors.N_NEAREST, min(n, _anchors._BLOCK_ENTRIES // _anchors.N_ANCHORS)
            walk = n * (8 * near + 20)
            made = n * (16 * near + 12 * min(d, latent)) + 12 * block * _anchors.N_ANCHORS
        made += 4 * n * d if d > latent else 0
    weights = 4 * (d * (4 * hidden + 2 * latent + (scales + 1) * latent + 2 * latent))
    b = min(trainer.batch_size or n, n)
    batch = 4 * b * (d * (1 + scales) * (b < n) + modalities * (4 * hidden + 30 * latent))
    batch += 24 * b * d + 32 * min(b // 2 if b < n else b, _PAIR_LIMIT) ** 2 + 4 * weights
    batch *= estimator.max_iter > 0
    chunk = d * (1 + scales) + modalities * (hidden + 6 * latent)
    encode = 8 * min(n, CHUNK) * chunk + 2 * weights
    transform, _ = count_left_over(size)
    again = estimator.n_init > 1
    # What a training is done with, the next one can't take: the training is there until then.
    kept = max(transform, min(batch, most)) + min(batch, most) * again
    held = n * size.section + walk
    training = held + walk * again + transform + max(made, batch)
    if estimator.max_iter and estimator.lambda_ot:
        training = max(training, held + kept + encode + count_ward(n))
    voters = estimator.n_init + again
    held += kept + 8 * latent * n * (voters + 1) + weights * estimator.n_init
    return training, held + encode, held + min(encode, most)
