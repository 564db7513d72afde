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

__all__ = ["AutoEncoder", "IEHERCLNetwork", "MeanSAGE", "ViewAttention"]

# An image component in its own latent unit, before the attention: with the largest default prior,
# 0.3, a quarter of the mean unit of the genes (benchmarks/decisions.md).
_OWN_UNIT = 0.25 / 0.3
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

    @property
    def read_out_size(self):
        """Columns of the input of the last layer of `decode`."""
        last, shortcut = self.decoder[-1], self.decoder_shortcut
        return last.in_features + (0 if shortcut is None else shortcut.in_features)

    def read_out(self, z):
        """Return input (B, h), weight (d, h) and bias (d,) of the last layer of `decode`."""
        hidden, last = self.decoder[:-1](z), self.decoder[-1]
        if self.decoder_shortcut is None:
            return hidden, last.weight, last.bias
        weight = torch.cat([last.weight, self.decoder_shortcut.weight], dim=1)
        return torch.cat([hidden, z], dim=1), weight, last.bias

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

    @property
    def read_out_size(self):
        """Columns of the input of the layer as one linear map."""
        return self.lin_l.in_channels + self.lin_r.in_channels

    def read_out(self, x, neighbor_mean):
        """Return the layer as one linear map: its input (B, h), weight (out, h), bias (out,)."""
        weight = torch.cat([self.lin_l.weight, self.lin_r.weight], dim=1)
        return torch.cat([neighbor_mean, x], dim=1), weight, self.lin_l.bias

    def start_at(self, neighbor_weight, own_weight, bias=0.0):
        """Start as the given linear map, plus a bias (out,)."""
        with torch.no_grad():
            self.lin_l.weight.copy_(neighbor_weight)
            self.lin_r.weight.copy_(own_weight)
            self.lin_l.bias.zero_().add_(bias)


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


class ModalityEncoder(nn.Module):
    """One modality's autoencoder and GraphSAGE views and the attention between them, (1)-(5)."""

    def __init__(self, n_features, n_pooled, *, views, ae_prior, options):
        super().__init__()
        latent = options["latent_size"]
        from_start = options["init"] == "pca"
        self.autoencoder = self.sage = None
        if "ae" in views:
            self.autoencoder = AutoEncoder(
                n_features, options["hidden_size"], latent, shortcut=from_start
            )
        if "sage" in views:
            self.sage = MeanSAGE((n_pooled, n_features), latent)
        self.activation = _ACTIVATIONS[options["activation"]]()
        self.normalize = options["normalize_views"]
        prior = (ae_prior, 1.0 - ae_prior) if len(views) == 2 else (1.0,)
        self.attention = ViewAttention(latent, prior, options["attention"])

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
    hidden_size, latent_size : int
        Units of the autoencoder's hidden layer and of every latent.
    views : tuple of {"ae", "sage"}
        Views of each modality; one of the two is the paper's ablation.
    attention : bool
        Whether attention weights are learned, or stay at their prior.
    activation : {"linear", "relu", "elu"}
        Activation of the GraphSAGE encoder.
    normalize_views : bool
        Whether latents are scaled to unit length before the attention.
    init : {"pca", "random"}
        Whether the linear parts start as projections on the genes' leading columns; `start_at`
        names other directions, and where the image starts.
    ae_prior : float
        Attention that the autoencoder's view starts with.
    image_prior : float
        Attention that the image starts with, in (0, 1).
    """

    def __init__(self, modalities, *, views, ae_prior, image_prior=0.5, **options):
        super().__init__()
        # What a stored network is rebuilt with.
        self.arguments = {
            "modalities": modalities,
            "views": views,
            "ae_prior": ae_prior,
            "image_prior": image_prior,
            **options,
        }
        latent = options["latent_size"]
        self.encoders = nn.ModuleDict(
            {
                name: ModalityEncoder(d, pooled, views=views, ae_prior=ae_prior, options=options)
                for name, (d, pooled) in modalities.items()
            }
        )
        prior = (1.0 - image_prior, image_prior) if "image" in modalities else (1.0,)
        self.attention = ViewAttention(latent, prior, options["attention"])
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
        kept = gene_directions[: latent - self._count_own_units()]
        directions = torch.zeros(latent, n_genes)
        directions[: len(kept)] = kept
        self.encoders["gene"].start_at(directions)
        self.decoder.start_at(directions.T / 2.0, directions.T / 2.0)
        if "image" in modalities:
            if image_loadings is None:
                image_loadings = torch.zeros(n_genes, modalities["image"][0])
            self.start_image_at(directions @ image_loadings)

    def start_image_at(self, loadings, bias=0.0):
        """Start the image's encoders where they predict the genes' latent.

        The image's leading columns also keep latent units of their own, the last ones, for what
        they know beyond the genes.

        Parameters
        ----------
        loadings : Tensor (k, k_image)
            Latent of the genes that the image predicts.
        bias : Tensor (k,) or 0.0
        """
        loadings, n_own = loadings.clone(), self._count_own_units()
        columns = torch.arange(n_own)
        loadings[len(loadings) - n_own + columns, columns] += _OWN_UNIT
        self.encoders["image"].start_at(loadings, bias)

    def _count_own_units(self):
        n_image = self.arguments["modalities"].get("image", (0,))[0]
        return min(n_image, self.arguments["latent_size"] // 4)

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
