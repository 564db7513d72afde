import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from skiehercl.datasets import make_tissue


def make_small(n_spots=400, n_domains=4, **kwargs):
    kwargs = {"n_genes": 60, "return_arrays": True, "random_state": 0, **kwargs}
    return make_tissue(n_spots, n_domains, **kwargs)


def pool_counts(section, k=18):
    nearest = cKDTree(section.coords).query(section.coords, k=k)[1]
    counts = np.asarray(section.X.todense())[nearest].sum(axis=1)
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * np.median(counts.sum(axis=1)))
    return PCA(10, random_state=0).fit_transform(logs)


def pool_colours(section, k=7):
    half = section.patch_size // 2
    x, y = np.rint(section.coords * section.image_scale).astype(int).T
    step = np.arange(-half, half)
    patch = section.image[y[:, None, None] + step[:, None], x[:, None, None] + step] / 255.0
    colours = np.hstack([patch.mean(axis=(1, 2)), patch.std(axis=(1, 2))])
    colours = (colours - colours.mean(axis=0)) / colours.std(axis=0)
    return colours[cKDTree(section.coords).query(section.coords, k=k)[1]].mean(axis=1)


def score_pair(features, domain, pair):
    both = np.isin(domain, pair)
    found = KMeans(2, n_init=5, random_state=0).fit_predict(features[both])
    return adjusted_rand_score(domain[both], found)


def test_anndata_follows_scanpy_and_squidpy():
    adata = make_tissue(300, 5, n_genes=40, random_state=3)
    assert adata.shape == (300, 40)
    assert sparse.isspmatrix_csr(adata.X) or adata.X.format == "csr"
    assert adata.X.dtype == np.float32
    assert adata.obs["domain"].cat.categories.size == 5
    assert not adata.obs["domain"].isna().any()
    assert adata.obsm["spatial"].shape == (300, 2)
    # Visium: row and column numbers are both even or both odd.
    assert ((adata.obs["array_row"] + adata.obs["array_col"]) % 2 == 0).all()
    library = adata.uns["spatial"]["synthetic"]
    image, scales = library["images"]["hires"], library["scalefactors"]
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    pixel = adata.obsm["spatial"] * scales["tissue_hires_scalef"]
    assert (pixel >= 0).all()
    assert (pixel < [image.shape[1], image.shape[0]]).all()
    nearest = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], k=2)[0][:, 1]
    assert scales["spot_diameter_fullres"] < nearest.min()


def test_spots_lie_on_tissue_and_the_corner_is_slide():
    section = make_small()
    x, y = np.rint(section.coords * section.image_scale).astype(int).T
    on_tissue = section.image[y, x].astype(int)
    slide = section.image[:5, :5].reshape(-1, 3).astype(int)
    saturation = np.ptp(on_tissue, axis=1)
    assert np.median(saturation) > 3 * np.ptp(slide, axis=1).max()
    assert on_tissue.mean() < slide.mean() - 20


def test_anndata_survives_a_file(tmp_path):
    anndata = pytest.importorskip("anndata")
    adata = make_tissue(200, 4, n_genes=30, random_state=0)
    adata.write_h5ad(tmp_path / "section.h5ad")
    back = anndata.read_h5ad(tmp_path / "section.h5ad")
    assert (back.X != adata.X).nnz == 0
    assert (back.obs["domain"] == adata.obs["domain"]).all()
    image = back.uns["spatial"]["synthetic"]["images"]["hires"]
    np.testing.assert_array_equal(image, adata.uns["spatial"]["synthetic"]["images"]["hires"])


def test_arrays_and_anndata_are_the_same_section():
    section, adata = make_small(), make_small(return_arrays=False)
    assert (section.X != adata.X).nnz == 0
    np.testing.assert_array_equal(section.coords, adata.obsm["spatial"])
    np.testing.assert_array_equal(section.domain_names[section.domain], adata.obs["domain"])


def test_same_seed_same_section_and_no_global_state():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = make_small(), make_small(), make_small(random_state=1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    for key in ("coords", "domain", "image"):
        np.testing.assert_array_equal(first[key], second[key])
    assert (first.X != second.X).nnz == 0
    assert (first.X != other.X).nnz > 0
    generator = np.random.RandomState(0)
    assert (make_small(random_state=generator).X != make_small(random_state=generator).X).nnz > 0


def test_image_does_not_change_the_rest():
    painted, blank = make_small(), make_small(image=False)
    assert blank.image is None
    assert (painted.X != blank.X).nnz == 0
    np.testing.assert_array_equal(painted.coords, blank.coords)
    assert "spatial" not in make_small(image=False, return_arrays=False).uns


def test_sections_share_profiles_but_not_shapes():
    first, second = (make_small(1500, dropout=0.0, section=number) for number in (0, 1))
    assert not np.array_equal(first.coords, second.coords)

    def mean_profiles(section):
        mean = [section.X[section.domain == d].mean(axis=0).A1 for d in range(4)]
        return np.log(np.asarray(mean) + 0.01)

    distance = np.abs(mean_profiles(first)[:, None] - mean_profiles(second)).mean(axis=-1)
    single = [d for d in range(4) if d not in first.gene_twins[:, 1]]
    assert (distance[np.ix_(single, single)].argmin(axis=1) == np.arange(len(single))).all()
    strangers = np.abs(mean_profiles(first) - mean_profiles(make_small(1500, random_state=5)))
    assert distance.diagonal().max() < 0.5 * strangers.mean()


@pytest.mark.parametrize("pattern", ["mixed", "layers", "blobs"])
@pytest.mark.parametrize("layout", ["hexagonal", "cells"])
@pytest.mark.parametrize(("n_spots", "n_domains"), [(200, 2), (200, 3), (300, 30), (1500, 52)])
def test_every_domain_is_present(pattern, layout, n_spots, n_domains):
    section = make_tissue(
        n_spots,
        n_domains,
        pattern=pattern,
        layout=layout,
        n_genes=20,
        image=False,
        return_arrays=True,
        random_state=n_domains,
    )
    assert section.X.shape == (n_spots, 20)
    assert len(np.unique(section.coords, axis=0)) == n_spots
    np.testing.assert_array_equal(np.unique(section.domain), np.arange(n_domains))
    blobs = {"mixed": n_domains // 3, "layers": 0, "blobs": n_domains - 1}[pattern]
    assert sum(name.startswith("blob") for name in section.domain_names) == blobs


def test_domains_are_compact():
    section = make_small(1000)
    nearest = cKDTree(section.coords).query(section.coords, k=7)[1][:, 1:]
    alike = (section.domain[nearest] == section.domain[:, None]).mean()
    by_chance = ((np.bincount(section.domain) / 1000) ** 2).sum()
    assert alike > 0.8 > 2 * by_chance


def test_counts_are_overdispersed_integers_with_the_asked_mean():
    section = make_small(2000, 2, dropout=0.0, mean_counts=3.0, gene_signal=0.0, image=False)
    counts = np.asarray(section.X.todense())
    assert (counts >= 0).all() and (counts == np.rint(counts)).all()
    assert counts.mean() == pytest.approx(3.0, rel=0.1)
    common = counts.mean(axis=0) > 1
    assert (counts.var(axis=0) > 1.2 * counts.mean(axis=0))[common].all()


def test_dropout_removes_the_asked_share_of_positive_counts():
    full, sparser = (make_small(2000, image=False, dropout=p) for p in (0.0, 0.5))
    assert full.X.nnz == np.count_nonzero(full.X.toarray())  # no stored zeros
    assert sparser.X.nnz / full.X.nnz == pytest.approx(0.5, abs=0.05)


def test_library_sizes_spread_as_asked():
    even, uneven = (make_small(image=False, library_size_sigma=s) for s in (0.0, 1.0))
    spread = [np.log(section.X.sum(axis=1).A1).std() for section in (even, uneven)]
    assert spread[0] < 0.4 and spread[1] == pytest.approx(1.0, abs=0.3)


def test_genes_tell_image_twins_and_image_tells_gene_twins():
    section = make_tissue(n_spots=1500, ambiguous=1.0, return_arrays=True, random_state=0)
    genes, colours = pool_counts(section), pool_colours(section)
    assert len(section.gene_twins) == 1 and len(section.image_twins) == 2
    for pair in section.gene_twins:
        assert score_pair(genes, section.domain, pair) < 0.15
        assert score_pair(colours, section.domain, pair) > 0.6
    for pair in section.image_twins:
        assert score_pair(genes, section.domain, pair) > 0.6
        assert score_pair(colours, section.domain, pair) < 0.15


def test_both_modalities_beat_either():
    section = make_tissue(n_spots=1500, return_arrays=True, random_state=2)
    genes, colours = pool_counts(section), pool_colours(section)
    genes, colours = (f / f.std(axis=0).max() for f in (genes, colours))

    def score(features):
        found = KMeans(6, n_init=5, random_state=0).fit_predict(features)
        return adjusted_rand_score(section.domain, found)

    assert score(np.hstack([genes, colours])) > max(score(genes), score(colours)) + 0.05


def test_signals_can_be_switched_off():
    mute = make_tissue(
        1000, 3, gene_signal=0.0, image_signal=0.0, return_arrays=True, random_state=0
    )
    for features in (pool_counts(mute), pool_colours(mute)):
        found = KMeans(3, n_init=3, random_state=0).fit_predict(features)
        assert adjusted_rand_score(mute.domain, found) < 0.1


def test_twins_are_never_alike_in_both():
    for n_domains in range(2, 15):
        section = make_tissue(
            200,
            n_domains,
            n_genes=20,
            n_gene_twins=n_domains // 2,
            n_image_twins=(n_domains - 1) // 2,
            image=False,
            return_arrays=True,
            random_state=0,
        )
        by_genes = {tuple(pair) for pair in section.gene_twins.tolist()}
        assert not by_genes & {tuple(pair) for pair in section.image_twins.tolist()}
        assert max(section.gene_twins.max(), section.image_twins.max(initial=0)) < n_domains


def test_image_side_is_bounded_and_scale_follows():
    section = make_small(3000, max_image_side=200)
    assert max(section.image.shape) == 200
    pixel = section.coords * section.image_scale
    assert (pixel.max(axis=0) < section.image.shape[1::-1]).all()
    coarse, fine = make_small(pixel_size=1.0), make_small(pixel_size=0.5)
    np.testing.assert_allclose(coarse.coords * 2, fine.coords)
    np.testing.assert_array_equal(coarse.image, fine.image)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_spots": 50, "n_domains": 6}, "n_spots=50 is too few for n_domains=6"),
        ({"n_domain_genes": 61}, "n_domain_genes=61 exceeds n_genes=60"),
        ({"n_gene_twins": 3}, "n_gene_twins=3 is too many for n_domains=4: at most 2"),
        ({"n_image_twins": 2}, "n_image_twins=2 is too many for n_domains=4: at most 1"),
        ({"layout": "square"}, "'layout' parameter"),
        ({"dropout": 1.0}, "'dropout' parameter"),
    ],
)
def test_errors_name_the_parameter(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_small(**kwargs)


def test_memory_is_linear():
    """Twenty thousand spots: an N x N array, even of bytes, would not fit below the bound."""
    import tracemalloc

    tracemalloc.start()
    section = make_small(20_000, n_genes=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert section.X.shape == (20_000, 30)
    assert peak < 20_000**2
