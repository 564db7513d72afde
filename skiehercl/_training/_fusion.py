"""Attention over views and modalities, (4)-(6), and the image's encoder.

The image's latent is the prediction of the genes' latent from the image: by ridge regression of
the features at the start, and of the trained latent at the end. Attention mixes it with the
measured one.
"""

import numpy as np
import torch
from torch import nn

from .._features._image import regress
from ._batches import cut_chunks

__all__ = ["ModalityAttention", "ViewAttention", "refit_image", "weigh_genes_alone"]

# An image component in its own latent unit, before the attention: with the largest default prior,
# 0.3, a quarter of the mean unit of the genes (benchmarks/decisions.md).
_OWN_UNIT = 0.25 / 0.3


class ViewAttention(nn.Module):
    """Attention over the views of a spot, (4)-(6): softmax of q^T tanh(W z + b) + prior.

    ``query`` starts at zero, so training starts at the weights of ``prior`` for every spot.
    With ``learned=False`` those weights stay (the ablation without attention).
    """

    def __init__(self, latent_size, prior, learned=True):
        super().__init__()
        self.register_buffer("log_prior", torch.log(torch.tensor(prior, dtype=torch.float32)))
        self.learned = learned
        if learned:
            self.project = nn.Linear(latent_size, latent_size)
            self.query = nn.Linear(latent_size, 1, bias=False)
            nn.init.zeros_(self.query.weight)

    def forward(self, views):
        """Return the fused latents (B, k) and the weights (B, V) of a list of views (B, k)."""
        stacked = torch.stack(views, dim=1)  # (B, V, k)
        scores = self.log_prior.expand(stacked.shape[:2])
        if self.learned:
            scores = scores + self.query(torch.tanh(self.project(stacked))).squeeze(-1)
        weights = torch.softmax(scores, dim=1)
        return (weights.unsqueeze(-1) * stacked).sum(dim=1), weights


class ModalityAttention(ViewAttention):
    """Attention (6) over genes and image, and the start of the image's encoder.

    Parameters
    ----------
    modalities : dict of str to (int, int)
        As of the network.
    latent_size : int
    image_prior : float
        Initial attention on the image, in (0, 1); ignored without an image.
    learned : bool

    Attributes
    ----------
    n_own_units : int
        Number of last latent units reserved for leading image components, at most a quarter.
    """

    def __init__(self, modalities, latent_size, image_prior, learned):
        has_image = "image" in modalities
        super().__init__(
            latent_size, (1.0 - image_prior, image_prior) if has_image else (1.0,), learned
        )
        self.n_own_units = min(modalities["image"][0], latent_size // 4) if has_image else 0

    def start_image(self, encoder, loadings, bias=0.0):
        """Start the image's encoder as the prediction of the genes' latent.

        Leading components also get latent units of their own, beyond the genes.

        Parameters
        ----------
        encoder : ModalityEncoder
        loadings : Tensor (k, k_image)
            Latent of the genes that the image predicts.
        bias : Tensor (k,) or 0.0
        """
        loadings, columns = loadings.clone(), torch.arange(self.n_own_units)
        loadings[len(loadings) - self.n_own_units + columns, columns] += _OWN_UNIT
        encoder.start_at(loadings, bias)


def refit_image(network, section):
    """Refit the image's encoder to the trained latent of the genes, by ridge regression.

    The training has changed the genes' latent, and the closed form fits it best.
    """
    if "image" not in section.inputs or network.arguments["init"] != "pca":
        return
    genes = section.inputs["gene"]
    with torch.inference_mode():
        latents = [
            network.encoders["gene"](*(torch.tensor(part[spots]) for part in genes))[0]
            for spots in cut_chunks(len(section))
        ]
    found = regress(torch.cat(latents).numpy(), section.inputs["image"][1])
    network.attention.start_image(network.encoders["image"], *map(torch.from_numpy, found))


def weigh_genes_alone(n_spots):
    """Return the attention (n, 2) on genes and image where the image is left out."""
    return np.tile(np.float32([1.0, 0.0]), (n_spots, 1))
