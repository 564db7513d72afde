import enum
import hashlib
import inspect
import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError

import skiehercl.graph
from skiehercl import IEHERCLClusterer, SmoothedMixture, SpatialKNNGraph, SpatialRadiusGraph
from skiehercl import graph as graph_face
from skiehercl._storage import _files
from skiehercl._storage._registry import find_stored
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor

N = 160
QUICK = {"n_clusters": 3, "n_init": 1, "max_iter": 2, "random_state": 0}


def make_section(seed):
    tissue = make_tissue(N, n_domains=3, n_genes=40, return_arrays=True, random_state=seed)
    image = np.random.RandomState(seed).normal(size=(N, 7))
    image[:, :3] += np.eye(3)[tissue.domain]
    return tissue.X.toarray(), tissue.coords, image


SECTION, OTHER = make_section(0), make_section(1)


def features(X):
    return np.log1p(X.astype(float))[:, :15]


def halves(coords):
    return np.where(coords[:, 0] > np.median(coords[:, 0]), "right", "left")


def frame(X):
    return pd.DataFrame(X, columns=[f"gène {i}" for i in range(X.shape[1])])


def case(name):
    """Return parameters of the estimator and a function section -> arguments of fit."""
    return {
        "all": (
            {"features__image_prior": 0.2},
            lambda X, c, i: {"X": X, "coords": c, "image_features": i},
        ),
        "image without evidence": (
            {"features__image_prior": 0.0},
            lambda X, c, i: {"X": X, "coords": c, "image_features": i},
        ),
        "no coords": ({}, lambda X, c, i: {"X": X}),
        "sparse": ({}, lambda X, c, i: {"X": sp.csr_matrix(X), "coords": c}),
        "features": (
            {"features__input": "features"},
            lambda X, c, i: {"X": features(X), "coords": c},
        ),
        "features as they are": (
            {
                "features__n_components": None,
                "features__pooling": "plain",
                "network__views": "sage",
                "network__init": "random",
            },
            lambda X, c, i: {"X": features(X), "coords": c},
        ),
        "named columns": ({}, lambda X, c, i: {"X": frame(X), "coords": c}),
        "packed": (
            {"layout__coords_columns": slice(-2, None), "layout__image_columns": [0, 1]},
            lambda X, c, i: {"X": np.hstack([i[:, :2], X, c])},
        ),
        "sections": (
            {"head__covariance_type": "full", "head__dimensions": [3, 5], "lambda_ot": 0.1},
            lambda X, c, i: {"X": X, "coords": c, "sections": halves(c)},
        ),
        "graphs and preprocessor": (
            {
                "graph": [SpatialKNNGraph(4), SpatialRadiusGraph(n_jobs=1)],
                "preprocessor": ExpressionPreprocessor(n_top_genes=30, n_components=8),
                "head__refine_neighbors": np.int64(5),
                "trainer__tol": np.float32(1e-3),
            },
            lambda X, c, i: {"X": X, "coords": c},
        ),
    }[name]


CASES = (
    "all",
    "image without evidence",
    "no coords",
    "sparse",
    "features",
    "features as they are",
    "named columns",
    "packed",
    "sections",
    "graphs and preprocessor",
)


def fit(name):
    parameters, arguments = case(name)
    return IEHERCLClusterer().set_params(**{**QUICK, **parameters}).fit(
        **arguments(*SECTION)
    ), arguments


@pytest.fixture(scope="module")
def fitted():
    return fit("all")[0]


@pytest.fixture
def stored(fitted, tmp_path):
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    return path


def rewrite(path, change=lambda estimator: None, **metadata):
    """Write the file again with another header, as somebody with bad intentions could."""
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    estimator = json.loads(header["content"])
    change(estimator)
    header = {**header, "content": json.dumps(estimator), **metadata}
    seal(tensors, path, {key: value for key, value in header.items() if value is not None})


def seal(tensors, path, header):
    """Write a file with the digest that it ought to have."""
    content = save(tensors, {**header, "sha256": "0" * 64})
    digest = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest, 1))


def assert_same(a, b, where="estimator"):
    """Compare two graphs of objects down to the last bit, with types and layouts."""
    assert type(a) is type(b), where
    if isinstance(a, np.ndarray):
        assert a.dtype.kind == b.dtype.kind and a.dtype.itemsize == b.dtype.itemsize, where
        np.testing.assert_array_equal(a, b, err_msg=where)
        if not a.size:
            return  # strides of nothing mean nothing
        assert [np.sign(s) for s in a.strides] == [np.sign(s) for s in b.strides], where
        order_a, order_b = (np.argsort(np.abs(x.strides), kind="stable") for x in (a, b))
        assert (order_a == order_b).all(), where
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.device == b.device and torch.equal(a, b), where
    elif isinstance(a, torch.nn.Module):
        assert a.training == b.training and repr(a) == repr(b), where
        assert_same(dict(a.state_dict()), dict(b.state_dict()), f"{where}.state_dict")
        trained_a, trained_b = ([p.requires_grad for p in x.parameters()] for x in (a, b))
        assert trained_a == trained_b, where
    elif sp.issparse(a):
        assert a.shape == b.shape, where
        for part in ("data", "indices", "indptr"):
            assert_same(getattr(a, part), getattr(b, part), f"{where}.{part}")
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    elif hasattr(a, "__dict__"):
        assert_same(vars(a), vars(b), where)
    else:
        assert a == b or (a != a and b != b), where


@pytest.mark.parametrize("name", CASES)
def test_loaded_is_the_same_and_predicts_the_same(name, tmp_path):
    model, arguments = fit(name)
    assert model.save(tmp_path / "model.safetensors") is None
    loaded = IEHERCLClusterer.load(str(tmp_path / "model.safetensors"))
    assert_same(model, loaded)
    assert loaded.get_params().keys() == model.get_params().keys()
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded.predict(**arguments(*SECTION)), model.labels_)
    np.testing.assert_array_equal(loaded.reconstruction_, model.reconstruction_)
    for section in (SECTION, OTHER):
        for method in ("predict_proba", "transform"):
            np.testing.assert_array_equal(
                getattr(loaded, method)(**arguments(*section)),
                getattr(model, method)(**arguments(*section)),
            )
    # And on: a loaded estimator is fitted and stored like any other.
    assert os.listdir(tmp_path) == ["model.safetensors"]
    loaded.save(tmp_path / "again.safetensors")
    assert_same(model, IEHERCLClusterer.load(tmp_path / "again.safetensors"))


def test_loaded_can_be_fitted_again(fitted, stored):
    _, arguments = case("all")
    again = IEHERCLClusterer.load(stored).fit(**arguments(*SECTION))
    np.testing.assert_array_equal(again.labels_, fitted.labels_)


def test_another_process_predicts_the_same(fitted, stored, tmp_path):
    X, coords, image = SECTION
    np.savez(tmp_path / "section.npz", X=X, coords=coords, image=image)
    script = (
        "import sys, numpy as np, torch\n"
        "torch.set_num_threads(1)\n"
        "from skiehercl import IEHERCLClusterer\n"
        "s = np.load(sys.argv[1] + '/section.npz')\n"
        "model = IEHERCLClusterer.load(sys.argv[1] + '/model.safetensors')\n"
        "p = model.predict_proba(s['X'], s['coords'], s['image'])\n"
        "np.save(sys.argv[1] + '/p.npy', p)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_array_equal(
        np.load(tmp_path / "p.npy"), fitted.predict_proba(X, coords, image)
    )


def test_loading_leaves_the_global_random_state(stored):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    IEHERCLClusterer.load(stored)
    drawn = torch.rand(1).item(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    assert drawn == (torch.rand(1).item(), np.random.rand())  # noqa: NPY002


def test_shared_arrays_are_stored_once(stored, fitted):
    mixtures = [one for some in fitted.model_.head.mixtures_ for one in some]
    distinct = {id(one.axes) for one in mixtures}
    assert len(distinct) < len(mixtures)
    assert sum(name.endswith(".axes") for name in load_file(stored)) == len(distinct)


def test_random_state_objects_go_on_where_they_were(fitted, tmp_path):
    path = tmp_path / "model.safetensors"
    model = IEHERCLClusterer.load(_saved(fitted, path))
    model.random_state = np.random.RandomState(5)
    model.random_state.normal(size=3)  # leaves a normal number in store
    model.save(path)
    loaded = IEHERCLClusterer.load(path)
    np.testing.assert_array_equal(
        loaded.random_state.normal(size=9), model.random_state.normal(size=9)
    )


def _saved(model, path):
    model.save(path)
    return path


@pytest.mark.parametrize(
    "value",
    [
        *(np.arange(6).reshape(2, 3).astype(t) for t in "?bBhHiIlLqQefd"),
        np.array(3.5),
        np.array(True),
        np.zeros((0, 4), np.float32),
        np.zeros((3, 0), order="F"),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[:, ::-1],
        np.asfortranarray(np.arange(12.0).reshape(3, 4))[:, ::-1][:, :2],
        np.arange(10)[::2],
        np.array([np.nan, np.inf, -np.inf, -0.0]),
        np.array([["a", "ß\U0001f600"], ["", "\ud800"]]),
        np.array(["a", None, 3, 2.5], dtype=object),
        np.array([], dtype=object),
        np.array([], dtype="U1"),
        np.float32(0.1),
        np.int64(2**62),
        np.bool_(True),
        sp.csr_matrix(np.eye(3)),
        sp.csr_array(np.eye(3, 5, dtype=np.float32)),
        *(cls() for cls in vars(skiehercl.graph).values() if isinstance(cls, type)),
        {1: "a", -2: {"b": (1, [2.0])}, "": float("inf")},
        [2**80, -0.0, float("nan"), True, None, "\x00"],
    ],
    ids=repr,
)
def test_every_value_survives(value, fitted, tmp_path):
    model = IEHERCLClusterer.load(_saved(fitted, tmp_path / "m"))
    model.extra_ = value
    model.save(tmp_path / "m")
    loaded = IEHERCLClusterer.load(tmp_path / "m").extra_
    assert_same(value, loaded)
    if isinstance(value, np.ndarray):
        assert loaded.flags.writeable


def test_big_endian_arrays_get_the_machine_s_order(fitted, tmp_path):
    model = IEHERCLClusterer.load(_saved(fitted, tmp_path / "m"))
    model.extra_ = np.arange(4, dtype=">i4")
    loaded = IEHERCLClusterer.load(_saved(model, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.extra_, model.extra_)
    assert loaded.extra_.dtype.isnative or sys.byteorder == "big"


def test_routing_requests_survive(fitted, tmp_path):
    model = IEHERCLClusterer.load(_saved(fitted, tmp_path / "m"))
    with sklearn.config_context(enable_metadata_routing=True):
        model.set_fit_request(coords=False, sections="slide")
        loaded = IEHERCLClusterer.load(_saved(model, tmp_path / "m"))
        assert str(loaded.get_metadata_routing()) == str(model.get_metadata_routing())
        assert str(loaded.get_metadata_routing()) != str(fitted.get_metadata_routing())


def name_alike(value):
    """Name a case without addresses: pytest-xdist wants the same names in every process."""
    return re.sub(r" at 0x\w+", "", str(value))


class Label(str, enum.Enum):
    CPU = "cpu"


@pytest.mark.parametrize(
    "parameters",
    [
        *({"graph": kind} for kind in ("coo", "csc", "lil", "dok", "bsr", "csr")),
        {"graph": ["coo", SpatialKNNGraph(4)]},
        {"n_clusters": range(2, 4)},
        {"n_clusters": np.arange(2, 4)},
        {"n_clusters": pd.Index([2, 3])},
        {"n_clusters": pd.Series([2, 3])},
        {"n_clusters": np.int32(3), "max_iter": np.uint8(2), "lambda_rec": np.float16(0.5)},
        {"preprocessor": ExpressionPreprocessor(pool=6)},
        {"random_state": np.random.RandomState(0)},
        {"device": Label.CPU},
        {"device": np.str_("cpu")},
    ],
    ids=name_alike,
)
def test_what_can_be_fitted_can_be_saved(parameters, tmp_path):
    X, coords, _ = SECTION
    near = SpatialKNNGraph(5).fit_transform(coords)

    def find(graph):
        return near.asformat(graph) if isinstance(graph, str) else graph

    graph = parameters.get("graph")
    graph = list(map(find, graph)) if isinstance(graph, list) else find(graph)
    model = IEHERCLClusterer(**{**QUICK, **parameters, "graph": graph}).fit(X, coords)
    loaded = IEHERCLClusterer.load(_saved(model, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.predict(X, coords), model.labels_)
    np.testing.assert_array_equal(
        np.asarray(loaded.n_clusters), np.asarray(model.n_clusters), strict=False
    )
    if "graph" in parameters:
        first = loaded.graph[0] if isinstance(graph, list) else loaded.graph
        assert (first != near).nnz == 0


def test_every_graph_of_the_face_can_be_stored():
    faces = [getattr(graph_face, name) for name in graph_face.__all__]
    found = [face for face in faces if inspect.isclass(face)]
    assert len(found) >= 3 and all(map(find_stored, found))


class Mine(TransformerMixin, BaseEstimator):
    def fit_transform(self, coords, sections=None):
        return SpatialKNNGraph(4).fit_transform(coords, sections=sections)


class SpatialKNNGraphImpostor(SpatialKNNGraph):
    pass


SpatialKNNGraphImpostor.__name__ = "SpatialKNNGraph"


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (Mine(), "Mine"),
        (SpatialKNNGraphImpostor(), "Impostor"),
        (print, "builtin_function"),
        (np.array([object()]), "dtype object"),
        (np.array([1 + 2j]), "complex"),
        (np.datetime64("2025-01-01"), "datetime64"),
        (lambda X: [0, 1], "function"),
        (sp.coo_matrix(np.eye(3) * 1j), "complex"),
        (nested(50), "deeper"),
        ({"a": [{1, 2}]}, "set"),
        (np.random.RandomState(np.random.PCG64(0)), "RandomState"),
    ],
    ids=name_alike,
)
def test_unknown_objects_are_named_and_nothing_is_written(value, what, fitted, tmp_path):
    model = IEHERCLClusterer.load(_saved(fitted, tmp_path / "m"))
    before = (tmp_path / "m").read_bytes()
    model.graph = value
    with pytest.raises(TypeError, match=rf"(?s)^graph.*{what}.*joblib\.dump"):
        model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]
    assert (tmp_path / "m").read_bytes() == before


def test_not_fitted(tmp_path):
    with pytest.raises(NotFittedError):
        IEHERCLClusterer().save(tmp_path / "m")
    assert not os.listdir(tmp_path)


def test_paths_that_cannot_be_written(fitted, tmp_path):
    (tmp_path / "file").write_text("x")
    for path, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "none" / "m", FileNotFoundError),
        (tmp_path / "file" / "m", OSError),
    ):
        with pytest.raises(error, match="cannot write"):
            fitted.save(path)
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_save_leaves_the_file_before(fitted, stored, tmp_path, monkeypatch):
    before = stored.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(stored)
    assert os.listdir(tmp_path) == [stored.name]
    assert stored.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_saving_keeps_mode_and_link_of_the_file_before(fitted, tmp_path):
    target, link = tmp_path / "private", tmp_path / "link"
    target.write_text("before")
    target.chmod(0o600)
    link.symlink_to(target)
    fitted.save(link)
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o600
    assert_same(fitted, IEHERCLClusterer.load(target))


def test_a_saved_file_has_the_usual_permissions(stored, tmp_path):
    (tmp_path / "other").write_text("x")
    assert stored.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_header_names_format_and_versions(stored):
    with safe_open(stored, framework="numpy") as file:
        header = file.metadata()
    assert header["format_version"] == str(_files.FORMAT_VERSION)
    assert {"skiehercl", "sklearn", "torch", "numpy"} <= json.loads(header["versions"]).keys()


def load_fails(path, match):
    with pytest.raises(ValueError, match=match) as caught:
        IEHERCLClusterer.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_files_of_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m"
    for content in (b"", b"x" * 5, os.urandom(500), pickle.dumps(Bomb()), b"\xff" * 100):
        path.write_bytes(content)
        load_fails(path, "damaged or not by IEHERCLClusterer.save")
    save_file({"a": np.zeros(3)}, path)
    load_fails(path, "no file of IEHERCLClusterer.save")
    save_file({"a": np.zeros(3)}, path, {"format": "pt"})
    load_fails(path, "no file of IEHERCLClusterer.save")
    assert os.listdir(tmp_path) == ["m"]
    with pytest.raises(FileNotFoundError):
        IEHERCLClusterer.load(tmp_path / "none")
    with pytest.raises(OSError):
        IEHERCLClusterer.load(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.999])
def test_truncated_files(stored, share):
    content = stored.read_bytes()
    stored.write_bytes(content[: int(share * len(content))])
    load_fails(stored, "damaged")


def test_other_format_version(stored):
    rewrite(stored, format_version="99")
    load_fails(stored, "format version 99, written by skiehercl .* reads version 1")


def test_other_estimator(stored):
    rewrite(stored, lambda e: e.update({"class": "KMeans"}))
    load_fails(stored, "holds a KMeans, not a IEHERCLClusterer")


def test_subclasses_are_stored_as_what_they_are(fitted, stored, tmp_path):
    class Special(IEHERCLClusterer):
        def __init__(self, extra=2, *, random_state=None):
            super().__init__(random_state=random_state)
            self.extra = extra

    with pytest.raises(ValueError, match="not a Special"):
        Special.load(stored)
    model = Special(3)
    vars(model).update({k: v for k, v in vars(fitted).items() if k != "random_state"})
    loaded = Special.load(_saved(model, tmp_path / "m"))
    assert type(loaded) is Special and loaded.extra == 3


def put(name, value):
    return lambda e: e["state"].update({name: value})


def remove(name):
    return lambda e: e["state"].pop(name)


def empty(kind):
    return {"type": "object", "class": kind, "state": {"type": "dict", "items": []}}


def bad_csr(e):
    """Point the graph beyond its columns: read without a check, memory of others."""
    items = dict(e["state"]["graph_"]["state"]["items"])
    items["shape"] = {"type": "tuple", "items": [N, 2]}
    e["state"]["graph_"]["state"]["items"] = list(items.items())


def change_network(change):
    def apply(node):
        if isinstance(node, list):
            for item in node:
                apply(item)
        elif isinstance(node, dict):
            if node.get("class") == "IEHERCLNetwork":
                change(dict(node["state"]["items"]))
            for item in node.values():
                apply(item)

    return apply


def grow(network):
    items = network["arguments"]["items"]
    for item in items:
        if item[0] == "hidden_size":
            item[1] = 10**9


def misname(network):
    network["weights"]["items"][0][0] = "other.weight"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize(
    "change",
    [
        put("graph", empty("system")),
        put("graph", empty("os.system")),
        put("graph", {"type": "object", "class": "__builtins__", "state": {}}),
        put("graph", {"type": "call", "class": "eval", "state": "1"}),
        put("graph", {"type": "reduce"}),
        put("graph", {"no": "type"}),
        put("graph", empty("csr_matrix")),
        put("graph", empty("RandomState")),
        put("graph", empty("IEHERCLNetwork")),
        put("graph", {"type": "array", "tensor": "none", "axes": [0], "flipped": []}),
        put("labels_", {"type": "array", "tensor": 3, "axes": 7, "flipped": []}),
        put("graph", {"type": "texts", "kind": "V", "shape": [1], "values": ["a"]}),
        put("graph", {"type": "texts", "kind": "O", "shape": [10**9], "values": ["a"]}),
        put("graph", {"type": "dict", "items": [[[], 1]]}),
        put("model_", None),
        put("model_", empty("PCA")),
        remove("model_"),
        remove("n_clusters"),
        bad_csr,
        change_network(grow),
        change_network(misname),
    ],
)
def test_hostile_headers_run_nothing(stored, change, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("code of the file was run"))
    before = stored.read_bytes()
    rewrite(stored, change)
    assert stored.read_bytes() != before
    load_fails(stored, "damaged")


@pytest.mark.parametrize("depth", [700, 100_000])
def test_hostile_nesting(depth, stored):
    with safe_open(stored, framework="numpy") as file:
        header = json.loads(file.metadata()["content"])
    header["state"]["model_"] = "here"
    nested = '{"type":"tuple","items":[' * depth + "]}" * depth
    rewrite(stored, content=json.dumps(header).replace('"here"', nested))
    load_fails(stored, "damaged")


@pytest.mark.parametrize("header", ["", "{", "[]", "3", '{"class": "IEHERCLClusterer"}', None])
def test_headers_that_are_none(stored, header):
    rewrite(stored, content=header)
    load_fails(stored, "damaged")


def test_scikit_learn_warns_of_another_version(stored):
    def change(node):
        for item in node.values() if isinstance(node, dict) else node:
            if isinstance(item, list) and item[:1] == ["_sklearn_version"]:
                item[1] = "1.0.0"
            elif isinstance(item, (list, dict)):
                change(item)

    rewrite(stored, change)
    with pytest.warns(InconsistentVersionWarning):
        IEHERCLClusterer.load(stored)


def test_every_engine_class_with_a_state_is_allowed():
    """A class added to the pipeline must be added here too, or fitted models can't be stored."""
    from skiehercl._domains import _mixture as _domains
    from skiehercl._estimator import _model
    from skiehercl._features import _features
    from skiehercl._features import _image as _image_components

    for module in (_domains, _features, _image_components, _model):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                assert find_stored(value)
    assert find_stored(PCA)


# -- SmoothedMixture ---------------------------------------------------------------------------

MIXTURES = {
    "counts": ({}, lambda X, c, i: {"X": X, "coords": c}),
    "sparse": (
        {"covariance_type": "full"},
        lambda X, c, i: {"X": sp.csr_matrix(X), "coords": c},
    ),
    "no coords": ({}, lambda X, c, i: {"X": X}),
    "features": ({"features__input": "features"}, lambda X, c, i: {"X": features(X), "coords": c}),
    "named columns": ({}, lambda X, c, i: {"X": frame(X), "coords": c}),
    "several numbers": ({"n_clusters": range(2, 5)}, lambda X, c, i: {"X": X, "coords": c}),
    "sections": (
        {"preprocessor": ExpressionPreprocessor(n_components=9), "graph": SpatialKNNGraph(5)},
        lambda X, c, i: {"X": X, "coords": c, "sections": halves(c)},
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_loaded_mixture_is_the_same_and_predicts_the_same(name, tmp_path):
    parameters, arguments = MIXTURES[name]
    model = SmoothedMixture(3, random_state=0).set_params(**parameters)
    loaded = SmoothedMixture.load(_saved(model.fit(**arguments(*SECTION)), tmp_path / "m"))
    assert_same(model, loaded)
    np.testing.assert_array_equal(loaded.predict(**arguments(*SECTION)), model.labels_)
    for method in ("predict_proba", "transform"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(**arguments(*OTHER)),
            getattr(model, method)(**arguments(*OTHER)),
        )
    np.testing.assert_array_equal(loaded.fit(**arguments(*SECTION)).labels_, model.labels_)


@pytest.fixture
def stored_mixture(tmp_path):
    X, coords, _ = SECTION
    return _saved(SmoothedMixture(3, random_state=0).fit(X, coords), tmp_path / "mixture")


def test_each_estimator_reads_its_own_files_only(stored, stored_mixture):
    load_fails(stored_mixture, "holds a SmoothedMixture, not a IEHERCLClusterer")
    with pytest.raises(ValueError, match="holds a IEHERCLClusterer, not a SmoothedMixture"):
        SmoothedMixture.load(stored)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize(
    "change",
    [
        put("graph", empty("os.system")),
        put("mixture_", None),
        put("mixture_", empty("PCA")),
        put("features_", empty("DomainMixture")),
        remove("mixture_"),
        remove("features_"),
        remove("n_clusters"),
    ],
)
def test_hostile_headers_of_a_mixture(stored_mixture, change):
    rewrite(stored_mixture, change)
    with pytest.raises(ValueError, match=r"damaged or not by SmoothedMixture\.save"):
        SmoothedMixture.load(stored_mixture)


def test_a_mixture_that_is_not_fitted(tmp_path):
    with pytest.raises(NotFittedError):
        SmoothedMixture().save(tmp_path / "m")
    assert os.listdir(tmp_path) == []
