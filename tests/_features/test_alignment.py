import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpotFeatures
from skiehercl._features._alignment import find_shift
from skiehercl.datasets import make_tissue

CENTERS = 6 * np.random.RandomState(0).normal(size=(5, 12))
SHIFT = np.random.RandomState(1).normal(size=12)


def draw(seed, domains=range(5)):
    return make_blobs(600, centers=CENTERS[list(domains)], random_state=seed)[0]


def test_nothing_moves_what_lies_there_already():
    rows = draw(0)
    np.testing.assert_allclose(find_shift(rows, rows), 0.0, atol=1e-9)
    order = np.random.RandomState(0).permutation(600)
    np.testing.assert_allclose(find_shift(rows, rows[order]), 0.0, atol=1e-9)


def test_a_shift_is_found_and_turns_with_the_space():
    found = find_shift(draw(0), draw(1) - SHIFT)
    assert np.linalg.norm(found - SHIFT) < 0.1 * np.linalg.norm(SHIFT)
    rotation = np.linalg.qr(np.random.RandomState(0).normal(size=(12, 12)))[0]
    turned = find_shift(draw(0) @ rotation, (draw(1) - SHIFT) @ rotation)
    np.testing.assert_allclose(turned, found @ rotation, atol=1e-6)


def test_a_missing_domain_does_not_pull_as_it_pulls_the_mean():
    reference, rows = draw(0), draw(1, [0, 1, 2]) - SHIFT
    by_means = reference.mean(axis=0) - rows.mean(axis=0)
    error = np.linalg.norm(find_shift(reference, rows) - SHIFT)
    assert error < 0.2 * np.linalg.norm(by_means - SHIFT)


@pytest.mark.parametrize("rows", [np.zeros((1, 3)), np.ones((30, 3)), np.eye(3)])
def test_degenerate_rows(rows):
    for reference in (np.ones((2, 3)), np.repeat(np.eye(3), 20, axis=0)):
        assert np.isfinite(find_shift(reference, rows)).all()


# -- in the estimators -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """Two sections, the second with genes that are caught more or less often than in the first."""
    options = {"n_genes": 80, "n_gene_twins": 0, "image": False, "return_arrays": True}
    sections = [make_tissue(400, 4, section=i, random_state=2, **options) for i in (0, 1)]
    rng = np.random.RandomState(0)
    rate = rng.choice([0.1, 1.0], size=80)
    thinned = rng.binomial(sections[1].X.toarray().astype(int), rate)
    genes = sp.csr_matrix(np.vstack([sections[0].X.toarray(), thinned]))
    coords = np.vstack([section.coords for section in sections])
    truth = np.concatenate([section.domain for section in sections])
    return genes, coords, np.repeat(["first", "second"], 400), truth


def test_labels_of_sections_fitted_together_are_comparable(pair):
    genes, coords, sections, truth = pair
    scores = {}
    for align in (True, False):
        model = SmoothedMixture(4, features=SpotFeatures(align_sections=align), random_state=0)
        labels = model.fit(genes, coords, sections=sections).labels_
        scores[align] = adjusted_rand_score(truth, labels)
        np.testing.assert_array_equal(model.predict(genes, coords, sections=sections), labels)
    assert scores[True] > scores[False] + 0.1


@pytest.mark.parametrize(
    "model",
    [SmoothedMixture(4, random_state=0), IEHERCLClusterer(4, n_init=1, max_iter=3, random_state=0)],
    ids=["mixture", "iehercl"],
)
def test_predict_after_a_joint_fit(pair, model, tmp_path):
    genes, coords, sections, _ = pair
    labels = model.fit(genes, coords, sections=sections).labels_
    np.testing.assert_array_equal(model.predict(genes, coords, sections=sections), labels)
    # A section of the fit is known by its name, alone and in any company.
    second = sections == "second"
    alone = model.predict(genes[second], coords[second], sections=sections[second])
    np.testing.assert_array_equal(alone, labels[second])
    # Under a new name it is aligned anew, to the same place but for the sample.
    renamed = model.predict(genes[second], coords[second], sections=np.full(400, "new"))
    assert (renamed == alone).mean() > 0.95
    assert (model.predict(genes[second], coords[second]) == renamed).all()
    if hasattr(model, "save"):
        model.save(tmp_path / "joint.safetensors")
        loaded = type(model).load(tmp_path / "joint.safetensors")
        np.testing.assert_array_equal(loaded.predict(genes, coords, sections=sections), labels)


def test_alignment_leaves_a_single_section_alone(pair):
    genes, coords, _, _ = pair
    models = [
        SmoothedMixture(4, features=SpotFeatures(align_sections=align), random_state=0).fit(
            genes[:400], coords[:400], sections=np.zeros(400)
        )
        for align in (True, False)
    ]
    np.testing.assert_array_equal(models[0].embedding_, models[1].embedding_)
    new = [model.transform(genes[400:], coords[400:]) for model in models]
    np.testing.assert_array_equal(*new)


@pytest.mark.data
def test_two_animals_share_their_domains(read_section):
    import anndata

    first, second = (read_section(f"starmap_mpfc_{name}") for name in ("bz5", "bz9"))
    both = anndata.concat([first, second])
    sections = np.repeat([0, 1], [len(first), len(second)])
    labels = SmoothedMixture(4, random_state=0).fit(both, sections=sections).labels_
    joint = adjusted_rand_score(both.obs["domain"], labels)
    alone = [
        adjusted_rand_score(both.obs["domain"][sections == s], labels[sections == s])
        for s in (0, 1)
    ]
    assert joint > np.mean(alone) - 0.05
