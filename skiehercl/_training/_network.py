"""The network of IE-HERCL: autoencoders, GraphSAGE, attention and the gene decoder, (1)-(8).

Layers and ``forward`` only: no loss, no seed, no device. The neighbour mean of fixed inputs is
fixed too, so the GraphSAGE encoders take it ready-made and are then exact dense layers; only the
decoder, whose input is learned, multiplies by a graph.
"""

import torch
from torch import nn
from torch_geometric.nn import SAGEConv

from .._storage._foreign import check_count
from .._storage._registry import stored
from ._fusion import ModalityAttention, ViewAttention

__all__ = ["AutoEncoder", "IEHERCLNetwork", "MeanSAGE"]

_ACTIVATIONS = {"linear": nn.Identity, "relu": nn.ReLU, "elu": nn.ELU}


class AutoEncoder(nn.Module):
    """Autoencoder d -> hidden -> latent with a mirrored decoder: the non-spatial view, (1), (2).

    With ``shortcut``, a linear map beside each half lets the network start as a projection on
    given directions and learn only what that projection misses.
    """

    def __init__(self, n_features, hidden_size, latent_size, activation="relu", shortcut=False):
        super().__init__()
        act = _ACTIVATIONS[activation]
        self.encoder = nn.Sequential(
            nn.Linear(n_features, hidden_size), act(), nn.Linear(hidden_size, latent_size)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_size, hidden_size), act(), nn.Linear(hidden_size, n_features)
        )
        self.encoder_shortcut = self.decoder_shortcut = None
        if shortcut:
            self.encoder_shortcut = nn.Linear(n_features, latent_size, bias=False)
            self.decoder_shortcut = nn.Linear(latent_size, n_features, bias=False)

    def encode(self, x):
        """Return the latent Z_v (B, k) of x (B, d)."""
        z = self.encoder(x)
        return z if self.encoder_shortcut is None else z + self.encoder_shortcut(x)

    def decode(self, z):
        """Return the reconstruction (B, d) of z (B, k)."""
        x = self.decoder(z)
        return x if self.decoder_shortcut is None else x + self.decoder_shortcut(z)

    def start_at(self, directions, bias=0.0):
        """Start as the map ``directions`` (k, d), plus a bias (k,), and its inverse, if any."""
        inverse = _invert(directions)
        with torch.no_grad():
            self.encoder_shortcut.weight.copy_(directions)
            self.decoder_shortcut.weight.copy_(inverse)
            for half in (self.encoder, self.decoder):
                half[-1].weight.zero_()
            self.encoder[-1].bias.zero_().add_(bias)
            self.decoder[-1].bias.copy_(-inverse @ self.encoder[-1].bias)


def _invert(directions):
    """Return the pseudo-inverse (d, k) of a map (k, d); the transpose of orthonormal rows.

    Directions that the map all but loses stay lost: they would be blown up.
    """
    return torch.linalg.pinv(directions, rtol=0.1)


class MeanSAGE(SAGEConv):
    """GraphSAGE layer whose neighbour mean is given: W_l mean_j x_j + W_r x_i, (3) and (7).

    The parameters, and the result, are those of torch_geometric's ``SAGEConv(aggr="mean")``.
    """

    def forward(self, x, neighbor_mean):
        """Return (B, out) for x (B, d) and the mean over its neighbours (B, d_neighbor)."""
        return self.lin_l(neighbor_mean) + self.lin_r(x)

    def start_at(self, neighbor_weight, own_weight, bias=0.0):
        """Start as the given linear map, plus a bias (out,)."""
        with torch.no_grad():
            self.lin_l.weight.copy_(neighbor_weight)
            self.lin_r.weight.copy_(own_weight)
            self.lin_l.bias.zero_().add_(bias)


class ModalityEncoder(nn.Module):
    """One modality's autoencoder and GraphSAGE views and the attention between them, (1)-(5)."""

    def __init__(self, n_features, n_pooled, options):
        super().__init__()
        views, latent, prior = options["views"], options["latent_size"], options["ae_prior"]
        self.autoencoder = self.sage = None
        if views in ("both", "ae"):
            self.autoencoder = AutoEncoder(
                n_features, options["hidden_size"], latent, shortcut=options["init"] == "pca"
            )
        if views in ("both", "sage"):
            self.sage = MeanSAGE((n_pooled, n_features), latent)
        self.activation = _ACTIVATIONS[options["activation"]]()
        self.normalize = options["normalize_views"]
        priors = (prior, 1.0 - prior) if views == "both" else (1.0,)
        self.attention = ViewAttention(latent, priors, options["attention"])

    def forward(self, x, pooled):
        """Return fused latent, views {"ae", "sage"} and attention (B, V)."""
        views = {}
        if self.autoencoder is not None:
            views["ae"] = self.autoencoder.encode(x)
        if self.sage is not None:
            views["sage"] = self.activation(self.sage(x, pooled))
        ready = [nn.functional.normalize(z) if self.normalize else z for z in views.values()]
        fused, weights = self.attention(ready)
        return fused, views, weights

    def start_at(self, directions, bias=0.0):
        """Start both views as projections on ``directions`` (k, d) of the features, plus a bias."""
        if self.autoencoder is not None:
            self.autoencoder.start_at(directions, bias)
        if self.sage is not None:
            # The pooled input holds one block of d columns per scale: start at their mean.
            n_scales = self.sage.lin_l.in_channels // directions.shape[1]
            self.sage.start_at(directions.repeat(1, n_scales) / n_scales, 0.0 * directions, bias)


def _take_network(value):
    return {"arguments": value.arguments, "weights": dict(value.state_dict())}


def _build_network(cls, state):
    """Return the network with these weights, which must be all that its arguments ask for."""
    arguments, weights = state["arguments"], state["weights"]
    for name, weight in weights.items():
        if not isinstance(weight, torch.Tensor) or weight.dtype != torch.float32:
            raise TypeError(f"{cls.__name__}: {name} isn't in float32")
        if not weight.isfinite().all():
            raise ValueError(f"{cls.__name__}: {name} holds NaN or infinite values")
    modalities = arguments["modalities"]
    if list(modalities) not in (["gene"], ["gene", "image"]):
        raise ValueError(f"{cls.__name__}: modalities must be gene and maybe image")
    if any(type(columns) is not tuple or len(columns) != 2 for columns in modalities.values()):
        raise TypeError(f"{cls.__name__}: modalities have two sizes each")
    sizes = [arguments["hidden_size"], arguments["latent_size"], *sum(modalities.values(), ())]
    n_weights = sum(weight.numel() for weight in weights.values())
    if any(check_count(one) < 1 or one > n_weights for one in sizes):
        raise ValueError(f"{cls.__name__}: sizes {sizes} don't fit {n_weights} weights")
    # Without storage: no random start to draw, and no memory for sizes that the file made up.
    with torch.device("meta"):
        value = cls(**arguments).eval()
    value.load_state_dict(weights, assign=True)
    return value


@stored(take=_take_network, build=_build_network)
class IEHERCLNetwork(nn.Module):
    """The whole network: one encoder per modality, attention across them, GraphSAGE decoder.

    Parameters
    ----------
    modalities : dict of str to (int, int)
        Columns of the features and of their neighbour means, for "gene" and maybe "image".
    image_prior : float
        Initial attention on the image, in (0, 1); ignored without an image.
    **options
        The parameters of HybridEncoder.
    """

    def __init__(self, modalities, *, image_prior=0.0, **options):
        super().__init__()
        # What a stored network is rebuilt with.
        self.arguments = {"modalities": modalities, "image_prior": image_prior, **options}
        latent = options["latent_size"]
        self.encoders = nn.ModuleDict(
            {name: ModalityEncoder(*sizes, options) for name, sizes in modalities.items()}
        )
        self.attention = ModalityAttention(modalities, latent, image_prior, options["attention"])
        self.decoder = MeanSAGE((latent, latent), modalities["gene"][0])
        if options["init"] == "pca":
            self.start_at()

    def start_at(self, gene_directions=None, image_loadings=None):
        """Start the linear maps where the principal components are.

        Parameters
        ----------
        gene_directions : Tensor (k, d) or None
            Unit vectors of the genes to project on, best first; the last ones are left out where
            latent units are short: the image has at most a quarter of them for itself. None: the
            leading columns, as of principal components.
        image_loadings : Tensor (d, k_image) or None
            Genes that the image predicts: the image's latent starts as those, in the units of the
            genes', so that attention mixes measured and predicted expression. None: nothing.
        """
        modalities, latent = self.arguments["modalities"], self.arguments["latent_size"]
        n_genes = modalities["gene"][0]
        if gene_directions is None:
            gene_directions = torch.eye(min(latent, n_genes), n_genes)
        kept = gene_directions[: latent - self.attention.n_own_units]
        directions = torch.zeros(latent, n_genes)
        directions[: len(kept)] = kept
        self.encoders["gene"].start_at(directions)
        self.decoder.start_at(directions.T / 2.0, directions.T / 2.0)
        if "image" in modalities:
            if image_loadings is None:
                image_loadings = torch.zeros(n_genes, modalities["image"][0])
            self.attention.start_image(self.encoders["image"], directions @ image_loadings)

    def forward(self, inputs):
        """Encode spots.

        Parameters
        ----------
        inputs : dict of str to (x (B, d), pooled (B, d_pooled))

        Returns
        -------
        z : Tensor (B, k)
        fused : dict of modality to Tensor (B, k)
        views : dict of (modality, view) to Tensor (B, k)
        attention : dict of str to Tensor (B, V)
            "gene" and "image": over (ae, sage); "modality": over (gene, image).
        """
        fused, views, attention = {}, {}, {}
        for name, encoder in self.encoders.items():
            fused[name], latents, attention[name] = encoder(*inputs[name])
            views.update({(name, view): latent for view, latent in latents.items()})
        z, attention["modality"] = self.attention(list(fused.values()))
        return z, fused, views, attention

    def reconstruct(self, z, neighbor_mean):
        """Return the genes (B, d) decoded from z and its neighbour mean (B, k), (7)."""
        return self.decoder(z, neighbor_mean)
