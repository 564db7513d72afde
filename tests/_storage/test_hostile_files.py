"""Damaged files and files made by hand: told in one line, and never read as something else."""

import hashlib
import json
import os
import random
import re
import socket
import tracemalloc
import warnings

import numpy as np
import pytest
from safetensors.numpy import load, save

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpotFeatures
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor

N = 60
GENES = {"n_genes": 12, "n_domain_genes": 3}
TISSUE = make_tissue(N, n_domains=2, **GENES, return_arrays=True, random_state=0)
X, COORDS, NAMES = TISSUE.X.toarray(), TISSUE.coords, np.array(list("abcdefghijkl"), dtype=object)
IMAGE = np.random.RandomState(0).normal(size=(N, 3)) + TISSUE.domain[:, None]


class Opened:
    """The parts of a file, to be changed and written again with the digest that they ought to have.

    Attributes
    ----------
    tensors : dict of str to ndarray
    header : dict
    estimator : dict
        The JSON of the estimator.
    """

    def __init__(self, content):
        self.tensors = load(content)
        end = 8 + int.from_bytes(content[:8], "little")
        self.header = json.loads(content[8:end])["__metadata__"]
        self.estimator = json.loads(self.header["content"])

    def seal(self):
        header = {**self.header, "content": json.dumps(self.estimator), "sha256": "0" * 64}
        content = save(self.tensors, header)
        digest = hashlib.sha256(content).hexdigest().encode()
        return content.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest, 1)

    def walk(self, node=None):
        """Yield (container, key) of every value of the estimator, depth first."""
        node = self.estimator if node is None else node
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            yield node, key
            if isinstance(value, (dict, list)):
                yield from self.walk(value)

    def find(self, cls, attribute=None):
        """Return the attributes, [name, value] each, of the first such object."""
        for node, key in self.walk():
            if isinstance(node[key], dict) and node[key].get("class") == cls:
                items = node[key]["state"]["items"]
                if attribute is None or any(name == attribute for name, _ in items):
                    return items
        raise LookupError(cls)

    def attribute(self, cls, name):
        """Return [name, value] of an attribute."""
        return next(pair for pair in self.find(cls, name) if pair[0] == name)

    def tensor(self, cls, name):
        """Return the name of an attribute's tensor."""
        return self.attribute(cls, name)[1]["tensor"]


def fit():
    generator = np.random.RandomState(0)
    model = IEHERCLClusterer(
        2,
        features=SpotFeatures(image_prior=0.2),
        preprocessor=ExpressionPreprocessor(n_components=4, random_state=generator),
        n_init=1,
        max_iter=1,
        random_state=0,
    )
    model.fit(X, coords=COORDS, image_features=IMAGE)
    model.feature_names_in_ = NAMES
    model.names_ = NAMES.astype(str)
    return model


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    fit().save(path)
    return path.read_bytes()


@pytest.fixture
def opened(content):
    return Opened(content)


def refused(content, path, match="damaged or not by", cls=IEHERCLClusterer):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        cls.load(path)
    told = str(caught.value)
    assert "\n" not in told and str(path) in told and len(told) < 500
    return told


def use(model):
    """Call what a file can bring to fail, and return the domains' probabilities."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _ = model.reconstruction_
        model.transform(X + 1, COORDS, IMAGE)
        model.predict(X)
        return model.predict_proba(X + 1, COORDS, IMAGE)


# -- damage ------------------------------------------------------------------------------------


def damage(content, rng):
    """Yield copies of a file with some bytes not as they were."""
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(60):
        for first, last in ((0, 8), (8, end), (end, len(content))):
            broken = bytearray(content)
            broken[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
            yield bytes(broken)
    for _ in range(30):
        yield content[: rng.randrange(len(content))]
        yield content + rng.randbytes(rng.randrange(1, 100))
        size = rng.randrange(1, 2000)
        one, other = sorted(rng.sample(range(0, len(content) - size, size), 2))
        blocks = content[one : one + size], content[other : other + size]
        swapped = content[:one] + blocks[1] + content[one + size : other] + blocks[0]
        yield swapped + content[other + size :]
        zeros = bytearray(content)
        zeros[one : one + size] = bytes(size)
        yield bytes(zeros)


def test_no_damage_is_overlooked(content, tmp_path):
    for broken in damage(content, random.Random(0)):
        if broken != content:
            refused(broken, tmp_path / "m", "damaged|no file of|format version|holds a")


# -- files made by hand, with the digest that they ought to have -------------------------------


def test_what_is_opened_and_sealed_again_is_the_same(opened, content, tmp_path):
    for name, sealed in (("a", content), ("b", opened.seal())):
        (tmp_path / name).write_bytes(sealed)
    one, other = (IEHERCLClusterer.load(tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(use(one), use(other))


def test_a_digest_is_needed(opened, tmp_path):
    header = {**opened.header, "content": json.dumps(opened.estimator)}
    del header["sha256"]
    refused(save(opened.tensors, header), tmp_path / "m", "no digest")
    header["sha256"] = "0" * 64
    refused(save(opened.tensors, header), tmp_path / "m", "digest")


def test_every_attribute_is_there_or_not_needed(content, tmp_path):
    """Without one, a file is refused or predicts the same."""
    parts, seen = Opened(content), set()
    (tmp_path / "m").write_bytes(content)
    before = use(IEHERCLClusterer.load(tmp_path / "m"))
    for node, key in list(parts.walk()):
        if not isinstance(node[key], dict) or node[key].get("type") != "object":
            continue
        items = node[key]["state"].get("items", [])
        for i, (name, _) in enumerate(items):
            if not isinstance(name, str) or (node[key]["class"], name) in seen:
                continue
            seen.add((node[key]["class"], name))
            pair = items.pop(i)
            (tmp_path / "m").write_bytes(parts.seal())
            items.insert(i, pair)
            try:
                model = IEHERCLClusterer.load(tmp_path / "m")
            except ValueError as error:
                assert "damaged" in str(error)
                continue
            np.testing.assert_array_equal(
                use(model), before, err_msg=f"{node[key]['class']}.{name}"
            )
    assert len(seen) > 100


HIDING = (
    *("_doc_link_template", "_doc_link_module", "_doc_link_url_param_generator", "_repr_html_"),
    *("_repr_html_inner", "_html_repr", "_parameter_constraints", "_parts", "_estimator_type"),
    *("__class__", "__dict__", "__setstate__", "predict", "fit", "_validate_params", "other"),
    *("n_genes_", "_sklearn_auto_wrap_output_keys", "_build_request_for_signature"),
)


@pytest.mark.parametrize("name", HIDING)
def test_only_parameters_and_fitted_attributes_are_set(name, content, tmp_path):
    script = "https://a.example/<script>alert(1)</script>"
    classes = {
        node[key]["class"]
        for parts in [Opened(content)]
        for node, key in parts.walk()
        if isinstance(node[key], dict) and node[key].get("type") == "object"
    }
    for cls in classes - {"csr_matrix", "csr_array", "RandomState", "IEHERCLNetwork"}:
        opened = Opened(content)
        opened.find(cls).append([name, script])
        told = refused(opened.seal(), tmp_path / "m")
        assert f"{name!r} is neither a parameter nor a fitted attribute of {cls}" in told
    opened = Opened(content)
    opened.estimator["state"][name] = script
    refused(opened.seal(), tmp_path / "m", "neither a parameter nor a fitted attribute of IEHERCL")
    assert len(classes) > 12


def test_what_a_file_may_not_hold_is_left_out_with_a_warning(content, tmp_path):
    (tmp_path / "m").write_bytes(content)
    model = IEHERCLClusterer.load(tmp_path / "m")
    model._doc_link_template, model.note = "https://a.example", "mine"
    with pytest.warns(UserWarning, match=r"leaves out _doc_link_template, note: neither"):
        model.save(tmp_path / "n")
    loaded = IEHERCLClusterer.load(tmp_path / "n")
    assert not {"_doc_link_template", "note"} & vars(loaded).keys()
    assert "a.example" not in loaded._repr_html_()


def test_output_is_configured_by_name(opened, tmp_path):
    opened.estimator["state"]["_sklearn_output_config"] = {
        "type": "dict",
        "items": [["transform", "pandas"]],
    }
    (tmp_path / "m").write_bytes(opened.seal())
    assert hasattr(IEHERCLClusterer.load(tmp_path / "m").transform(X), "columns")
    opened.estimator["state"]["_sklearn_output_config"]["items"][0][1] = "<script>"
    refused(opened.seal(), tmp_path / "m", "is none of")


@pytest.mark.parametrize(
    "keys",
    [
        [i * (2**61 - 1) for i in range(60_000)],
        [float(2**61 - 1) * 2**i for i in range(900)],
        [None, True],
        [{"type": "tuple", "items": [1, 2]}],
        [{"type": "scalar", "dtype": "int64", "value": 3}],
    ],
    ids=["numbers", "floats", "others", "tuples", "numpy's"],
)
def test_keys_that_could_collide_are_refused(keys, opened, tmp_path):
    value = {"type": "dict", "items": [[key, 0] for key in keys]}
    opened.estimator["state"]["extra_"] = value
    refused(opened.seal(), tmp_path / "m", "no key|unhashable")


def test_names_of_columns_are_texts(opened, tmp_path):
    values = [2**61 - 1] * 12
    value = {"type": "objects", "shape": [12], "values": values}
    opened.estimator["state"]["feature_names_in_"] = value
    assert "feature_names_in_" in refused(opened.seal(), tmp_path / "m", "more than texts")


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        ("ExpressionPreprocessor", "components_"),
        ("ExpressionPreprocessor", "mean_"),
        ("PCA", "components_"),
        ("ImageComponents", "inverse_deviation_"),
        ("ImageComponents", "loadings_"),
        ("DomainMixture", "center"),
        ("DomainMixture", "axes"),
        ("TiedMixture", "means_"),
        ("TiedMixture", "weights_"),
        ("TiedMixture", "covariances_"),
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_are_finite(cls, name, bad, opened, tmp_path):
    opened.tensors[opened.tensor(cls, name)].flat[-1] = bad
    assert name in refused(opened.seal(), tmp_path / "m", "NaN")


def test_weights_and_results_are_finite(content, tmp_path):
    for name in Opened(content).tensors:
        if "network.weights" in name or name.endswith(
            ("probabilities_", "embedding_", "_spot_keys")
        ):
            opened = Opened(content)
            opened.tensors[name].flat[0] = np.nan
            refused(opened.seal(), tmp_path / "m", "NaN")


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        ("DomainMixture", "n_clusters_", 10**9),
        ("DomainMixture", "n_components_", 10**9),
        ("DomainConsensus", "n_clusters", 10**9),
        ("DomainConsensus", "n_clusters", True),
        ("ExpressionPreprocessor", "n_components_", 10**9),
        ("SpatialKNNGraph", "n_jobs", 10**9),
        ("SpatialKNNGraph", "n_neighbors", -1),
        ("SpatialKNNGraph", "fit_transform", "hidden"),
        ("NeighborhoodFeatures", "scale_", float("nan")),
        ("NeighborhoodFeatures", "genes", None),
        ("CountFeatures", "pooling", "unit"),
        ("CountFeatures", "target_sums_", [1.0]),
        ("NeighborhoodFeatures", "graphs_", []),
        ("ImageComponents", "prior_", 7.0),
        ("Trained", "network", None),
        ("Trained", "other", 1),
        ("DomainMixture", "covariance_type", "full"),
        ("PCA", "whiten", True),
    ],
)
def test_attributes_fit_each_other(cls, name, value, opened, tmp_path):
    items = opened.find(cls, None if name in ("other", "fit_transform") else name)
    items[:] = [pair for pair in items if pair[0] != name] + [[name, value]]
    refused(opened.seal(), tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (r".*\.mixture_\.weights_", lambda a: a.__imul__(-1)),
        (r".*\.covariances_", lambda a: a.__imul__(-1)),
        (r"\d+\.labels_", lambda a: a.__isub__(1)),
        (r"\d+\.probabilities_", lambda a: a.__imul__(2)),
    ],
)
def test_numbers_mean_what_they_should(name, change, opened, tmp_path):
    change(opened.tensors[next(one for one in opened.tensors if re.fullmatch(name, one))])
    assert name.split(".")[-1] in refused(opened.seal(), tmp_path / "m")


@pytest.mark.parametrize("size", [10**9, 2**70, 0, -1, 1.5, "64", None])
@pytest.mark.parametrize("name", ["hidden_size", "latent_size"])
def test_networks_are_as_large_as_their_weights(name, size, opened, tmp_path):
    arguments = opened.attribute("IEHERCLNetwork", "arguments")[1]["items"]
    next(pair for pair in arguments if pair[0] == name)[1] = size
    refused(opened.seal(), tmp_path / "m")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("state", "pos"), 100_000_000),
        (("state", "pos"), -1),
        (("state", "pos"), 3.0),
        (("state", "key"), np.ones(623, np.uint32)),
        (("state", "key"), np.ones(624, np.int32)),
        (("state", "key"), np.zeros(624, np.uint32)),
        (("has_gauss",), 2),
        (("gauss",), float("nan")),
        (("gauss",), None),
        (("bit_generator",), None),
    ],
)
def test_random_states_stand_within_their_key(path, value, opened, tmp_path):
    pairs = opened.find("RandomState")
    for name in path:
        pair = next(pair for pair in pairs if pair[0] == name)
        pairs = pair[1]["items"] if isinstance(pair[1], dict) and "items" in pair[1] else None
    if isinstance(value, np.ndarray):
        opened.tensors[pair[1]["tensor"]] = value
    else:
        pair[1] = value
    if path == ("bit_generator",):
        # Only one is known, whatever the file names.
        (tmp_path / "m").write_bytes(opened.seal())
        use(IEHERCLClusterer.load(tmp_path / "m"))
    else:
        refused(opened.seal(), tmp_path / "m", "RandomState")


@pytest.mark.parametrize(
    "change",
    [
        lambda data, indices, indptr: indices.__setitem__(0, N),
        lambda data, indices, indptr: indices.__setitem__(0, -1),
        lambda data, indices, indptr: indptr.__setitem__(0, 1),
        lambda data, indices, indptr: indptr.__setitem__(-1, 2**31 - 1),
        lambda data, indices, indptr: indptr.__setitem__(5, -7),
        lambda data, indices, indptr: indptr.__setitem__(5, len(data)),
        lambda data, indices, indptr: data.__setitem__(0, np.inf),
    ],
)
def test_sparse_matrices_lie_in_themselves(change, opened, tmp_path):
    parts = opened.attribute("csr_matrix", "parts")[1]["items"]
    change(*(opened.tensors[part["tensor"]] for part in parts))
    refused(opened.seal(), tmp_path / "m", "csr_matrix")


def test_logical_values_are_0_or_1(opened, tmp_path):
    name = opened.tensor("ExpressionPreprocessor", "highly_variable_")
    opened.tensors[name].view(np.uint8)[:] = 255
    refused(opened.seal(), tmp_path / "m", "bool")


@pytest.mark.parametrize("change", ["beyond", "long", "negative", "shape", "twice", "type"])
def test_texts_are_as_long_as_they_are(change, opened, tmp_path):
    state = opened.estimator["state"]
    texts, characters = state["feature_names_in_"], state["names_"]
    lengths = opened.tensors[texts["lengths"]]
    if change == "beyond":
        opened.tensors[characters["tensor"]].flat[0] = 0x110000
    elif change == "long":
        lengths[0] = 2**62
    elif change == "negative":
        lengths[:2] = -1, 3
    elif change == "shape":
        texts.update(type="objects", shape=[10**9, 10**9], values=["a"])
    elif change == "twice":
        state["more_"] = texts
    else:
        opened.tensors[texts["tensor"]] = opened.tensors[texts["tensor"]].astype(np.int8)
    refused(opened.seal(), tmp_path / "m")


def test_a_tensor_named_often_takes_its_memory_once(opened, tmp_path):
    opened.tensors["large"] = np.zeros(250_000)
    array = {"type": "array", "tensor": "large", "axes": [0], "flipped": []}
    opened.estimator["state"]["extra_"] = [array] * 200
    sealed = opened.seal()
    (tmp_path / "m").write_bytes(sealed)
    tracemalloc.start()
    model = IEHERCLClusterer.load(tmp_path / "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(model.extra_) == 200 and peak < 8 * len(sealed)
    opened.estimator["state"]["extra_"] = [array] * 20_000
    refused(opened.seal(), tmp_path / "m", "too often")


def test_headers_are_no_larger_than_they_need_be(opened, tmp_path):
    opened.estimator["state"]["extra_"] = [[]] * 1_200_000
    refused(opened.seal(), tmp_path / "m", "beyond what files may have")
    for n_bytes in (0, 7, 2**40, 2**63):
        refused(n_bytes.to_bytes(8, "little") + b"{}", tmp_path / "m")


@pytest.mark.parametrize(
    "value",
    [
        {"type": "range", "items": [0, 10**18, 1]},
        {"type": "range", "items": [0, 5, 0]},
        {"type": "slice", "items": ["a", None, None]},
        {"type": "scalar", "dtype": "int8", "value": 300},
        {"type": "scalar", "dtype": "object", "value": 3},
        {"type": "scalar", "dtype": "float64", "value": "3"},
        {"type": "floats", "tensor": "none"},
        {"type": "objects", "shape": [1], "values": [[1]]},
        {"type": "array", "tensor": "x", "axes": [0, 0], "flipped": []},
        {"type": "array", "tensor": "x", "axes": [0], "flipped": [7]},
    ],
    ids=str,
)
def test_values_are_what_they_say(value, opened, tmp_path):
    opened.tensors["x"] = np.arange(3)
    opened.estimator["state"]["extra_"] = value
    refused(opened.seal(), tmp_path / "m")


def test_what_errors_quote_stays_one_line(opened, tmp_path):
    opened.estimator["class"] = "\x1b[2J\n" * 10_000
    refused(opened.seal(), tmp_path / "m", "holds a")
    opened.header["format_version"] = "\x1b\n9" * 10_000
    refused(opened.seal(), tmp_path / "m", "format version")


@pytest.mark.skipif(os.name != "posix", reason="POSIX's kinds of files")
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # sockets have short names
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (tmp_path / "link").symlink_to(tmp_path / "pipe")
        for path in (
            tmp_path,
            *(tmp_path / name for name in ("pipe", "link", "socket")),
            "/dev/zero",
        ):
            with pytest.raises(OSError, match="save wrote") as caught:
                IEHERCLClusterer.load(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# -- anything at all -----------------------------------------------------------------------------

_VALUES = (
    *(None, True, 0, -1, 1, 3, 2**31, 2**63, 10**12, 2**70, 0.5, -0.0, 1e300, float("nan")),
    *(float("inf"), "", "pca", "\x00", [], [[]], [1], {}, {"type": "dict", "items": []}),
    {"type": "tuple", "items": [1, 2]},
    {"type": "scalar", "dtype": "float64", "value": 1e308},
)


def meddle(content, rng):
    """Return a file with a value of its header or a tensor exchanged, and the digest it needs."""
    opened = Opened(content)
    places = list(opened.walk())
    for _ in range(rng.choice((1, 1, 1, 3))):
        choice = rng.randrange(6)
        node, key = rng.choice(places)
        name = rng.choice(sorted(opened.tensors))
        tensor = opened.tensors[name]
        if choice == 0:
            node[key] = rng.choice(_VALUES)
        elif choice == 1:  # another part of the same file
            other, place = rng.choice(places)
            node[key] = json.loads(json.dumps(other[place]))
        elif choice == 2 and isinstance(node, list) and key < len(node):
            del node[key]
        elif choice == 3:  # another tensor
            opened.tensors[name] = opened.tensors[rng.choice(sorted(opened.tensors))]
        elif choice == 4 and tensor.size:  # an extreme number in it
            kind = tensor.dtype.kind
            extreme = (np.nan, np.inf, -1e300) if kind == "f" else (127, 0, -1)
            with np.errstate(over="ignore"):
                tensor.flat[rng.randrange(tensor.size)] = tensor.dtype.type(0) + np.array(
                    rng.choice(extreme)
                ).astype(tensor.dtype)
        else:  # another shape, type or order
            dtype = rng.choice((np.float32, np.float64, np.int64, np.uint8, np.bool_, np.int32))
            with np.errstate(invalid="ignore"):
                opened.tensors[name] = rng.choice(
                    (tensor.T, tensor.ravel(), tensor[:0], tensor[None], tensor.astype(dtype))
                ).copy()
    return opened.seal()


def try_file(content, path, cls=IEHERCLClusterer):
    """Load and use a file; return "refused", "failed" (in use, by a plain error) or "used"."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = cls.load(path)
    except ValueError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return "refused"
    assert type(model) is cls
    try:
        probabilities = use(model)
    except Exception:
        return "failed"
    assert probabilities.shape == (N, 2)
    # Numbers that are finite, but beyond any that fit makes, overflow in use.
    return "used" if np.isfinite(probabilities).all() else "failed"


def test_files_meddled_with_are_refused_or_of_use(content, tmp_path):
    rng = random.Random(0)
    found = [try_file(meddle(content, rng), tmp_path / "m") for _ in range(80)]
    assert found.count("refused") > 20 and found.count("used") > 5
    assert found.count("failed") < 12


def test_a_mixture_s_files_are_checked_too(tmp_path):
    path = tmp_path / "m"
    SmoothedMixture(2, n_components=3, random_state=0).fit(X, COORDS).save(path)
    content = path.read_bytes()
    for name in Opened(content).tensors:
        if name.endswith((".means_", ".components_", ".center_", "probabilities_", "embedding_")):
            opened = Opened(content)
            opened.tensors[name].flat[0] = np.nan
            refused(opened.seal(), path, "NaN", SmoothedMixture)
