import numpy as np
import pytest
import torch
from torch_geometric.nn import SAGEConv

from skiehercl._training._fusion import ViewAttention
from skiehercl._training._network import AutoEncoder, IEHERCLNetwork, MeanSAGE

OPTIONS = {
    "views": "both",
    "ae_prior": 0.1,
    "image_prior": 0.5,
    "attention": True,
    "hidden_size": 16,
    "latent_size": 8,
    "activation": "linear",
    "init": "pca",
    "normalize_views": False,
}
N, D, D_IMAGE, N_SCALES = 30, 6, 3, 2


def make_network(image=False, **changes):
    sizes = {"gene": (D, N_SCALES * D)}
    if image:
        sizes["image"] = (D_IMAGE, D_IMAGE)
    torch.manual_seed(0)
    return IEHERCLNetwork(sizes, **{**OPTIONS, **changes})


def make_inputs(image=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = {"gene": (D, N_SCALES * D), "image": (D_IMAGE, D_IMAGE)}
    return {
        name: tuple(torch.randn(N, d, generator=generator) for d in sizes)
        for name, sizes in draw.items()
        if image or name == "gene"
    }


def encode(network, inputs):
    with torch.no_grad():
        return network(inputs)


def draw_edges(n=N, seed=0):
    """Edges j -> i as torch_geometric has them, and the neighbour mean that they mean."""
    rng = np.random.RandomState(seed)
    adjacency = rng.rand(n, n) < 0.2
    np.fill_diagonal(adjacency, False)
    adjacency[3] = False  # an isolated spot
    target, source = np.nonzero(adjacency)
    mean = adjacency / np.maximum(adjacency.sum(axis=1, keepdims=True), 1)
    edges = torch.from_numpy(np.stack([source, target]))
    return edges, torch.from_numpy(mean.astype(np.float32))


@pytest.mark.parametrize("width", [1, 5])
def test_mean_sage_is_torch_geometrics_sageconv(width):
    edges, mean = draw_edges()
    x = torch.randn(N, width, generator=torch.Generator().manual_seed(1))
    reference = SAGEConv((width, width), 4, aggr="mean")
    ours = MeanSAGE((width, width), 4)
    ours.load_state_dict(reference.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(x, mean @ x), reference((x, x), edges))


def test_decoder_is_a_sageconv_of_the_latents():
    edges, mean = draw_edges()
    network = make_network()
    reference = SAGEConv((8, 8), D, aggr="mean")
    reference.load_state_dict(network.decoder.state_dict())
    z = torch.randn(N, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(network.reconstruct(z, mean @ z), reference((z, z), edges))


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("changes", [{}, {"init": "random"}, {"normalize_views": True}])
def test_attention_rows_sum_to_one(image, changes):
    network = make_network(image, **changes)
    for parameter in network.parameters():  # anywhere, not only at the start
        torch.nn.init.normal_(parameter)
    z, fused, views, attention = encode(network, make_inputs(image))
    modalities = {"gene", "image"} if image else {"gene"}
    assert set(attention) == modalities | {"modality"}
    assert set(fused) == modalities
    assert set(views) == {(name, view) for name in modalities for view in ("ae", "sage")}
    assert z.shape == (N, 8)
    for name, weights in attention.items():
        assert weights.shape == (N, 2 if name != "modality" else len(modalities))
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(N))
    assert attention["gene"].std(dim=0).min() > 0.01  # per spot, not one for all


def test_attention_starts_at_its_prior_and_fuses_by_it():
    attention = ViewAttention(4, (0.2, 0.3, 0.5))
    views = list(torch.randn(3, N, 4, generator=torch.Generator().manual_seed(0)))
    fused, weights = attention(views)
    torch.testing.assert_close(weights, torch.tensor([0.2, 0.3, 0.5]).expand(N, 3))
    torch.testing.assert_close(fused, 0.2 * views[0] + 0.3 * views[1] + 0.5 * views[2])


def test_attention_can_leave_its_prior():
    attention = ViewAttention(4, (0.5, 0.5))
    views = list(torch.randn(2, N, 4, generator=torch.Generator().manual_seed(0)))
    attention(views)[0].square().sum().backward()
    assert attention.query.weight.grad.abs().max() > 0


def test_attention_switched_off_has_no_parameters_and_keeps_the_prior():
    attention = ViewAttention(4, (0.1, 0.9), learned=False)
    assert not list(attention.parameters())
    views = list(torch.randn(2, N, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(attention(views)[1], torch.tensor([0.1, 0.9]).expand(N, 2))


def test_network_without_attention_has_no_attention_parameters():
    names = [name for name, _ in make_network(True, attention=False).named_parameters()]
    assert names
    assert not [name for name in names if "attention" in name]


def test_autoencoder_starts_as_a_projection_on_orthonormal_directions():
    directions = torch.linalg.qr(torch.randn(5, 5))[0][:3]
    model = AutoEncoder(5, 16, 3, shortcut=True)
    model.start_at(directions)
    x = torch.randn(N, 5)
    with torch.no_grad():
        z = model.encode(x)
        torch.testing.assert_close(z, x @ directions.T)
        inside = z @ directions
        torch.testing.assert_close(model.decode(model.encode(inside)), inside)


def test_pca_start_is_the_mix_of_own_and_pooled_components():
    network = make_network()
    inputs = make_inputs()
    x, pooled = inputs["gene"]
    scales = pooled.view(N, N_SCALES, D).mean(dim=1)
    z, _, views, _ = encode(network, inputs)
    torch.testing.assert_close(views["gene", "ae"][:, :D], x)
    torch.testing.assert_close(views["gene", "sage"][:, :D], scales)
    torch.testing.assert_close(z[:, :D], 0.1 * x + 0.9 * scales)
    assert not z[:, D:].any()  # units that the genes leave unused


def test_pca_start_decodes_what_it_encodes():
    # Where all spots are alike, neighbours tell nothing new: the decoder must be the inverse.
    network = make_network()
    x = torch.randn(1, D, generator=torch.Generator().manual_seed(4)).expand(N, D)
    z, *_ = encode(network, {"gene": (x, x.repeat(1, N_SCALES))})
    with torch.no_grad():
        torch.testing.assert_close(network.reconstruct(z, z), x)


def test_pca_start_keeps_the_leading_components_where_the_latent_is_narrow():
    network = make_network(latent_size=4)
    inputs = make_inputs()
    x, pooled = inputs["gene"]
    z, *_ = encode(network, inputs)
    expected = 0.1 * x + 0.9 * pooled.view(N, N_SCALES, D).mean(dim=1)
    torch.testing.assert_close(z, expected[:, :4])


@pytest.mark.parametrize("image", [False, True])
def test_start_at_directions_is_the_start_at_columns_of_turned_inputs(image):
    turn = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5))).Q
    inputs = make_inputs(image)
    expected, *_ = encode(make_network(image), inputs)
    x, pooled = inputs["gene"]
    turned = x @ turn, (pooled.view(N, N_SCALES, D) @ turn).view(N, -1)
    network = make_network(image)
    network.start_at(turn)
    z, *_ = encode(network, {**inputs, "gene": turned})
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        decoded = [m.reconstruct(z, z) for m in (network, make_network(image))]
    torch.testing.assert_close(decoded[0], decoded[1] @ turn, atol=1e-5, rtol=1e-4)


def test_pca_start_with_an_image_mixes_measured_and_predicted_genes():
    inputs = make_inputs(True)
    alone, *_ = encode(make_network(), {"gene": inputs["gene"]})
    network = make_network(True, image_prior=0.3)
    without, *_ = encode(network, inputs)  # without loadings the image predicts nothing
    torch.testing.assert_close(without[:, :D], 0.7 * alone[:, :D])
    loadings = torch.randn(D, D_IMAGE, generator=torch.Generator().manual_seed(6))
    network.start_at(image_loadings=loadings)
    z, fused, _, _ = encode(network, inputs)
    x, pooled = inputs["image"]
    predicted = (0.1 * x + 0.9 * pooled) @ loadings.T
    torch.testing.assert_close(fused["image"][:, :D], predicted)
    torch.testing.assert_close(z[:, :D], 0.7 * alone[:, :D] + 0.3 * predicted)
    # The leading image components have units of their own, a quarter of all at most.
    own = (0.1 * x + 0.9 * pooled)[:, : 8 - D]
    torch.testing.assert_close(z[:, D:], 0.25 * own)


def test_autoencoder_starts_as_a_map_with_bias_and_its_inverse():
    generator = torch.Generator().manual_seed(7)
    directions, bias = torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator)
    model = AutoEncoder(3, 16, 5, shortcut=True)
    model.start_at(directions, bias)
    x = torch.randn(N, 3, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(x), x @ directions.T + bias)
        torch.testing.assert_close(model.decode(model.encode(x)), x, atol=1e-4, rtol=1e-4)


def test_autoencoder_starts_at_a_map_that_loses_all():
    model = AutoEncoder(3, 16, 5, shortcut=True)
    model.start_at(torch.zeros(5, 3))
    with torch.no_grad():
        assert not model.decode(model.encode(torch.ones(2, 3))).any()


@pytest.mark.parametrize("latent_size", [1, 2, 3])
def test_narrowest_latents_start_with_the_first_components(latent_size):
    z, *_ = encode(make_network(True, latent_size=latent_size), make_inputs(True))
    assert z.shape == (N, latent_size)
    assert (z.std(dim=0) > 0).all()


@pytest.mark.parametrize("view", ["ae", "sage"])
@pytest.mark.parametrize("init", ["pca", "random"])
def test_one_view_is_the_fused_latent(view, init):
    network = make_network(views=view, init=init)
    z, fused, views, attention = encode(network, make_inputs())
    assert set(views) == {("gene", view)}
    torch.testing.assert_close(fused["gene"], views["gene", view])
    torch.testing.assert_close(z, fused["gene"])
    torch.testing.assert_close(attention["gene"], torch.ones(N, 1))


def test_ae_view_ignores_the_neighbours_and_sage_view_uses_both():
    inputs = make_inputs()
    x, pooled = inputs["gene"]
    moved = {"gene": (x, pooled + 1.0)}
    network = make_network(init="random")
    before, after = encode(network, inputs)[2], encode(network, moved)[2]
    torch.testing.assert_close(before["gene", "ae"], after["gene", "ae"])
    assert (before["gene", "sage"] - after["gene", "sage"]).abs().max() > 1e-3


def test_random_start_is_random_and_reproducible():
    torch.manual_seed(3)
    first = IEHERCLNetwork({"gene": (D, D)}, **{**OPTIONS, "init": "random"})
    second = IEHERCLNetwork({"gene": (D, D)}, **{**OPTIONS, "init": "random"})
    torch.manual_seed(3)
    again = IEHERCLNetwork({"gene": (D, D)}, **{**OPTIONS, "init": "random"})
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    weights = [m.encoders["gene"].sage.lin_l.weight for m in (first, second)]
    assert not torch.equal(*weights)
    assert first.encoders["gene"].autoencoder.encoder_shortcut is None


def test_normalised_views_have_unit_length_before_the_attention():
    network = make_network(normalize_views=True, views="sage")
    z, *_ = encode(network, make_inputs())
    torch.testing.assert_close(z.norm(dim=1), torch.ones(N))


def test_activation_applies_to_the_graphsage_view():
    inputs = make_inputs()
    linear = encode(make_network(), inputs)[2]["gene", "sage"]
    relu = encode(make_network(activation="relu"), inputs)[2]["gene", "sage"]
    torch.testing.assert_close(relu, linear.clamp(min=0))


@pytest.mark.parametrize("image", [False, True])
def test_network_is_equivariant_to_the_order_of_the_spots(image):
    network = make_network(image, init="random", activation="elu")
    inputs = make_inputs(image)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    shuffled = {name: tuple(part[order] for part in parts) for name, parts in inputs.items()}
    torch.testing.assert_close(encode(network, inputs)[0][order], encode(network, shuffled)[0])


def test_all_parameters_learn():
    network = make_network(True, init="random", activation="elu")
    inputs = make_inputs(True)
    _, mean = draw_edges()
    z, _, views, _ = network(inputs)
    loss = network.reconstruct(z, mean @ z).square().mean()
    for name, encoder in network.encoders.items():
        loss = loss + encoder.autoencoder.decode(views[name, "ae"]).square().mean()
    loss.backward()
    # The projections of the attention wait for the query, which starts at zero.
    silent = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name for name in silent if "attention.project" not in name} == set()
