"""Cohorts: learned once from a sample of all sections, then labelled one by one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import clone

from ._features._neighborhoods import choose_graphs
from ._features._tiling import LEARNED_SPOTS, draw_rows
from ._spots._rows import RowBlocks, is_large
from ._utils._memory import digest_files
from ._utils._version import __version__
from .io import annotate, check_writable, read_section, write_labelled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._estimator._base import SpatialClusterer
    from ._typing import PathLike

__all__ = ["fit_sections"]

# Columns of obs: of a joint AnnData, and only while sections are fitted or predicted.
_JOINT, _COLUMN, _DRAWN = "section", "skiehercl_section", "skiehercl_drawn"


def fit_sections(
    estimator: SpatialClusterer,
    paths: Sequence[PathLike],
    out_dir: PathLike,
    *,
    key: str = "domain_pred",
    n_learned: int = LEARNED_SPOTS,
    client: Any = None,
) -> SpatialClusterer:
    """Fit one model to many sections and write each of them with its domains.

    The model is learned from tiles of all sections, in equal shares; then each section is read,
    labelled and written by itself, so that memory holds the sample and one section. A run that is
    repeated goes on: the model and the sections that are written already are kept.

    Parameters
    ----------
    estimator : IEHERCLClusterer or SmoothedMixture
        Unfitted; its ``random_state`` should be an int. Image features have to be in ``obsm``.
    paths : sequence of str or path-like
        What :func:`skiehercl.io.read_section` reads. Genes are matched by name: those that all
        sections have.
    out_dir : str or path-like
        Folder, made if it isn't there, for the model and an ``.h5ad`` of each section.
    key : str, default="domain_pred"
        As in :func:`skiehercl.io.annotate`.
    n_learned : int, default=30000
        Spots that the model is learned from, about; all of them where there are fewer.
    client : dask.distributed.Client, default=None
        Its workers draw the samples and label the sections, each of which is a task that is
        repeated where a worker dies; they need this version of the package and see ``paths`` and
        ``out_dir``. Memory of a worker holds a section for each of its threads. Labels don't depend
        on the workers. None: one after the other in this process.

    Returns
    -------
    SpatialClusterer
        Fitted to the sample, also in ``out_dir``.

    Raises
    ------
    ValueError
        If two sections have one name, no gene is in all, or a section would be overwritten.
    FileNotFoundError
        If a worker doesn't see a section or the folder.
    ImportError
        If a worker has another version of this package, or none.
    ChildProcessError
        If worker after worker died of one section.

    See Also
    --------
    skiehercl.IEHERCLClusterer.predict : Domains of one more section by the fitted model.
    """
    # Workers have working directories of their own.
    paths = [os.path.abspath(os.fspath(path)) for path in paths]
    out_dir = os.path.abspath(os.fspath(out_dir))
    outs = name_outputs(out_dir, paths)
    if taken := sorted({*map(os.path.realpath, outs)} & {*map(os.path.realpath, paths)}):
        raise ValueError(
            f"{taken[0]!r} is a section, which is never overwritten: name another out_dir"
        )
    os.makedirs(out_dir, exist_ok=True)
    for out in outs:
        check_writable(out)
    if client is not None:
        _check_workers(client, [*paths, out_dir])
    run = _make_runner(client)
    digests = run(digest_files, paths)
    parts = [repr(estimator.get_params()), digests, n_learned, __version__]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    model_path = os.path.join(out_dir, f"model-{digest[:12]}.safetensors")
    share = max(1, n_learned // len(paths))
    if os.path.exists(model_path):
        model = type(estimator).load(model_path)
    else:
        same = ([value] * len(paths) for value in (estimator.layout, estimator.graph, share))
        drawn = run(_draw, paths, *same)
        model = _learn(clone(estimator), drawn, paths)
        model.save(model_path)
    # Read by each task: in the tasks a copy for each section would pass through the scheduler.
    common = (type(estimator), model_path, estimator.layout, key, digest)
    run(_label, paths, outs, *([value] * len(paths) for value in common))
    return model


def _check_workers(client, paths):
    """Raise an error if a worker has another version of this package or doesn't see all paths."""

    # Inside, so that it is sent as code, whichever version a worker has.
    def look():
        import os
        from importlib.util import find_spec

        version = None
        if find_spec("skiehercl") is not None:
            from skiehercl import __version__ as version
        return version, [path for path in paths if not os.path.exists(path)]

    for worker, (version, unseen) in client.run(look).items():
        if version != __version__:
            has = "no skiehercl" if version is None else f"skiehercl {version}"
            raise ImportError(
                f"the worker {worker} has {has} and this process {__version__}: install the same "
                "version in both"
            )
        if unseen:
            raise FileNotFoundError(
                f"the worker {worker} doesn't see {unseen[0]!r}: put sections and results on a "
                "disk that all workers mount at the same path"
            )


def _make_runner(client):
    """Return what runs a function for all elements of some sequences, here or by a client."""
    if client is None:
        return lambda function, *sequences: list(map(function, *sequences))
    from distributed import KilledWorker

    def run(function, *sequences):
        futures = client.map(function, *sequences, pure=False, batch_size=1)
        try:
            return client.gather(futures)
        except KilledWorker as error:
            number = [future.key for future in futures].index(error.task)
            raise ChildProcessError(
                f"{sequences[0][number]!r}: every worker that took it died, most likely of too "
                "little memory: give workers more, or fewer threads, and repeat the run, which "
                "goes on"
            ) from error
        except BaseException:
            client.cancel(futures)
            raise

    return run


def _name_sections(adata, path, column):
    """Write the section of each spot, by its path and what that tells apart itself.

    The whole path: Space Ranger calls the folder of every sample outs.
    """
    own = "" if column is None else "/" + adata.obs[column].astype(str)
    adata.obs[_COLUMN] = path + own


def _read(path, layout, backed):
    adata = read_section(
        path, spatial_key="spatial" if layout is None else layout.coords_key, backed=backed
    )
    _name_sections(adata, path, None if layout is None else layout.section_key)
    return adata


def _draw(path, layout, graph, n_drawn):
    """Return tiles of a section with what lies around them, and the size of its sections."""
    adata = _read(path, layout, backed=True)
    codes = np.unique(adata.obs[_COLUMN], return_inverse=True)[1]
    size = int(np.median(np.bincount(codes)))
    key = "spatial" if layout is None else layout.coords_key
    coords = None if key is None else np.asarray(adata.obsm[key])
    graphs = [one for one in choose_graphs(graph, size) if hasattr(one, "fit_transform")]
    rows, drawn = draw_rows(adata.n_obs, coords, codes, graphs, n_drawn, 0)
    sample = _take_rows(adata, rows)
    sample.obs[_DRAWN] = np.isin(rows, drawn)
    return sample, size


def _take_rows(adata, rows):
    """Return spots of an AnnData in memory; of its matrices only their rows are read."""
    from anndata import AnnData

    parts = {name: getattr(adata, name) for name in ("obs", "var", "uns")}
    sample = AnnData(obsm=dict(adata.obsm), **parts)[rows].copy()
    sample.X = None if adata.X is None else RowBlocks(adata.X)[rows]
    for key in (key for key in adata.layers if key is not None):
        sample.layers[key] = RowBlocks(adata.layers[key])[rows]
    if adata.raw is not None:
        raw = RowBlocks(adata.raw.X)[rows]
        sample.raw = AnnData(raw, obs=sample.obs[[]], var=adata.raw.var)
    return sample


def _learn(estimator, drawn, paths):
    samples, sizes = zip(*drawn, strict=True)
    joint, _ = join_sections(samples, paths, None, None)
    estimator.set_params(layout__section_key=_COLUMN)
    # Neighbourhoods are as wide as whole sections have them.
    drawn = np.flatnonzero(joint.obs[_DRAWN])
    estimator._sample = {"section_size": int(np.median(sizes)), "drawn": drawn}
    return estimator.fit(joint)


def _label(path, out, model_class, model_path, layout, key, digest):
    """Write a section with its domains, unless an earlier run, or a lost worker, has."""
    if is_written(out, key, digest):
        return
    adata = _read(path, layout, backed="auto")
    annotate(adata, model_class.load(model_path), key)
    del adata.obs[_COLUMN]
    adata.uns[key]["digest"] = digest
    write_labelled(adata, out)


def name_outputs(folder, paths):
    """Return a file in `folder` for each section, by the last part of its path.

    Raises
    ------
    ValueError
        If two sections would get one name.
    """
    names = []
    for path in paths:
        whole = os.path.abspath(path)
        if os.path.basename(whole) == "outs":  # Space Ranger's, in the folder of the sample
            whole = os.path.dirname(whole)
        stem, ending = os.path.splitext(os.path.basename(whole))
        known = ending.lower() in (".h5ad", ".zarr", ".zip")
        names.append((stem if known else os.path.basename(whole)) + ".h5ad")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(
                f"{paths[names.index(name)]!r} and {paths[i]!r} would both be written to {name!r}: "
                "rename one, or fit them in two runs"
            )
    return [os.path.join(os.fspath(folder), name) for name in names]


def is_written(path, key, digest):
    """Whether `path` is an output of the same inputs and options."""
    import h5py

    with contextlib.suppress(OSError, KeyError, ValueError), h5py.File(path, "r") as file:
        return file[f"uns/{key}/digest"].asstr()[()] == digest
    return False


def join_sections(adatas, paths, sections, column):
    """Return one AnnData of all sections, and the column of obs that tells them apart, or None.

    Raises
    ------
    ValueError
        If the sections have no gene in common, or one has a name of a gene twice.
    """
    if len(adatas) == 1:
        return adatas[0], column
    import anndata

    for path, adata in zip(paths, adatas, strict=True):
        if any(map(is_large, [adata.X, *adata.layers.values()])):
            raise ValueError(
                f"{path!r} is too large to be joined with other sections in memory: fit them one "
                "by one, fit_sections(...) or --one-by-one --out-dir FOLDER"
            )
    common = set(adatas[0].var_names)
    for path, adata in zip(paths, adatas, strict=True):
        if not adata.var_names.is_unique:
            raise ValueError(
                f"{path!r} has names of genes more than once, which can't be matched with the "
                "other sections': call adata.var_names_make_unique() and write it again"
            )
        common &= set(adata.var_names)
    if not common:
        raise ValueError(
            f"the {len(paths)} sections have no gene in common (the first of {paths[0]!r} is "
            f"{adatas[0].var_names[0]!r}, of {paths[-1]!r} {adatas[-1].var_names[0]!r}): give all "
            "names of one kind, such as adata.var_names = adata.var['gene_ids']"
        )
    names = [f"{number}: {path}" for number, path in enumerate(paths, 1)]
    joint = anndata.concat(
        adatas, label=_JOINT, keys=names, index_unique="-", uns_merge="same", join="inner"
    )
    if column is not None:
        own = np.concatenate([part.astype(str).to_numpy() for part in sections])
        joint.obs[_JOINT] = joint.obs[_JOINT].astype(str) + "/" + own
    return joint, _JOINT


def part_results(joint, adatas, key, digest):
    """Give each section its rows of the domains in `joint`; return the rows of each."""
    ends = np.cumsum([adata.n_obs for adata in adatas])
    rows = [slice(end - adata.n_obs, end) for end, adata in zip(ends, adatas, strict=True)]
    prefix = joint.uns[key].get("embedding", "")
    if digest is not None:
        joint.uns[key]["digest"] = digest
    for adata, own in zip(adatas, rows, strict=True):
        if adata is joint:
            break
        for column in (key, f"{key}_confidence"):
            if column in joint.obs:
                adata.obs[column] = joint.obs[column].iloc[own].to_numpy()
        adata.obs[key] = joint.obs[key].iloc[own].set_axis(adata.obs_names)
        for name in (name for name in joint.obsm if prefix and name.startswith(prefix)):
            adata.obsm[name] = joint.obsm[name][own]
        adata.uns.update({name: joint.uns[name] for name in (key, f"{key}_colors")})
    return rows
