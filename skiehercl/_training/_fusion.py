"""Attention over views and modalities, (4)-(6), and all that is the image's alone in the network.

The image's latent is the genes' latent that the image predicts: so its encoder starts, by the
ridge regression of the features, and so it ends, by one on the trained latent. Attention mixes it
with the measured one.
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
    """Attention (6) over genes and image, and where the image's encoder is let start.

    Parameters
    ----------
    modalities : dict of str to (int, int)
        As of the network.
    latent_size : int
    image_prior : float
        Attention that the image starts with, in (0, 1); not read without an image.
    learned : bool

    Attributes
    ----------
    n_own_units : int
        Latent units, the last ones, that leading image components have for themselves: a quarter
        of all at most.
    """

    def __init__(self, modalities, latent_size, image_prior, learned):
        has_image = "image" in modalities
        super().__init__(
            latent_size, (1.0 - image_prior, image_prior) if has_image else (1.0,), learned
        )
        self.n_own_units = min(modalities["image"][0], latent_size // 4) if has_image else 0

    def start_image(self, encoder, loadings, bias=0.0):
        """Start the image's encoder where it predicts the genes' latent.

        Leading components also keep units of their own, for what they know beyond the genes.

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
    """Let the image's encoder predict the trained latent of the genes, by ridge regression.

    The training turned and stretched the genes' latent since the encoder started as such a
    prediction; of a few components and in closed form, this is the better one at its end.
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
