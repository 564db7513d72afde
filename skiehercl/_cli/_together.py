"""Several sections in one fit: joined, and their results parted again."""

import contextlib
import os

import numpy as np

__all__ = ["is_written", "join_sections", "name_outputs", "part_results"]

_COLUMN = "section"  # of the joint AnnData


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
                "rename one, or fit them by two commands"
            )
    return [os.path.join(folder, name) for name in names]


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
        adatas, label=_COLUMN, keys=names, index_unique="-", uns_merge="same", join="inner"
    )
    if column is not None:
        own = np.concatenate([part.astype(str).to_numpy() for part in sections])
        joint.obs[_COLUMN] = joint.obs[_COLUMN].astype(str) + "/" + own
    return joint, _COLUMN


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
