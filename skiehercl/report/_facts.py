"""Numbers of a report: sizes, borders, marker genes, what to beware of."""

import hashlib
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .._spots._rows import RowBlocks
from .._spots._sections import warn_of_space
from ..plotting._colours import count_contacts

_FEW_COUNTS = 500  # in the median spot
_SMALL = 10  # spots in a domain
_TARGET = 1e4


def measure_borders(coords, codes, n_domains, sections=None):
    """Return contacts of each two domains over what chance gives (K, K), NaN on the diagonal.

    Contacts are those of the six nearest spots. Chance deals all contacts between different domains
    out by their sizes, so that 1 is the mean.
    """
    counts = count_contacts(coords, codes, n_domains, sections)
    sizes = np.bincount(codes[codes >= 0], minlength=n_domains).astype(float)
    chance, counts = np.outer(sizes, sizes), counts + counts.T
    for table in (chance, counts):
        np.fill_diagonal(table, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (counts / counts.sum()) / (chance / chance.sum())
    return ratio  # 0 / 0 on the diagonal


def take_logs(adata, layer, kind):
    """Return the logarithms of normalised counts (n, genes), RowBlocks, or None without genes."""
    X = adata.X if layer is None else adata.layers[layer]
    if kind == "features" or X is None:
        return None

    def take_log(block, _):
        block = sp.csr_matrix(block, dtype=np.float32)
        if kind == "log1p":
            return block
        totals = np.asarray(block.sum(axis=1)).ravel()
        block = sp.diags(_TARGET / np.maximum(totals, 1)).astype(np.float32) @ block
        block.data = np.log1p(block.data)
        return sp.csr_matrix(block)

    return RowBlocks(X).apply(take_log, dtype=np.float32)


def rank_genes(logs, codes, n_domains):
    """Return Welch's t (K, genes), log2 fold changes and shares of spots that express each.

    The numbers of ``scanpy.tl.rank_genes_groups(method="t-test")``.
    """
    sizes = np.bincount(codes[codes >= 0], minlength=n_domains)[:, None]
    sums = np.zeros((3, n_domains, logs.shape[1]))
    for start, stop, block in logs.blocks():
        own, squares, present = codes[start:stop], block.copy(), block.copy()
        known = np.flatnonzero(own >= 0)
        member = (np.ones(len(known)), (own[known], known))
        member = sp.csr_matrix(member, shape=(n_domains, len(own)))
        squares.data, present.data = np.square(block.data), (block.data > 0).astype(np.float32)
        sums += [(member @ part).toarray() for part in (block, squares, present)]
    here = _average(sums, sizes)
    rest = _average([part.sum(axis=0) - part for part in sums], sizes.sum() - sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(here[1] / sizes + rest[1] / (sizes.sum() - sizes))
        score = np.nan_to_num((here[0] - rest[0]) / spread)
        fold = np.log2((np.expm1(here[0]) + 1e-9) / (np.expm1(rest[0]) + 1e-9))
    return score, fold, here[2], here[0]


def _average(sums, sizes):
    """Return means, variances and shares of groups (K, genes)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square, share = (part / sizes for part in sums)
        variance = np.maximum(square - mean**2, 0) * (sizes / np.maximum(sizes - 1, 1))
    return np.nan_to_num(mean), np.nan_to_num(variance), np.nan_to_num(share)


def find_symbols(adata):
    """Return the genes' names for people: a column of symbols, else the index of var."""
    for column in (
        "symbol",
        "gene_symbol",
        "gene_symbols",
        "gene_name",
        "gene_names",
        "feature_name",
    ):
        if column in adata.var:
            names = adata.var[column].astype(object).where(adata.var[column].notna(), None)
            return [str(a) if a else str(b) for a, b in zip(names, adata.var_names, strict=True)]
    return list(map(str, adata.var_names))


def digest_data(adata, layer):
    """Return the first digits of the SHA-256 of names, coordinates and counts."""
    X = adata.X if layer is None else adata.layers[layer]
    digest = hashlib.sha256("\n".join(map(str, [*adata.obs_names, *adata.var_names])).encode())
    digest.update(np.ascontiguousarray(adata.obsm["spatial"], dtype=np.float64).tobytes())
    if X is not None:
        X = RowBlocks(X).apply(lambda block, _: sp.csr_matrix(block).sorted_indices())
        digest.update(np.int64(0).tobytes())
        end = 0
        for *_, block in X.blocks():
            digest.update((block.indptr[1:] + np.int64(end)).tobytes())
            end += block.nnz
        for name, dtype in (("indices", np.int32), ("data", np.float32)):
            for *_, block in X.blocks():
                digest.update(getattr(block, name).astype(dtype).tobytes())
    return digest.hexdigest()[:16]


def list_alerts(adata, sizes, record, sections, totals, verdict):
    """Return what the reader must know before the figures, one sentence each."""
    params, alerts = record.get("params", {}), []
    asked = params.get("n_clusters")
    asked = int(asked) if isinstance(asked, int | float | np.number) else len(sizes)
    filled = sum(size > 0 for size in sizes.values())
    if filled < asked:
        alerts.append(f"{asked - filled} of {asked} domains are empty: ask for fewer domains.")
    small = [name for name, size in sizes.items() if 0 < size < _SMALL]
    if small:
        alerts.append(
            f"Fewer than {_SMALL} spots in the domains {', '.join(small)}: check them on the "
            "tissue before you name them."
        )
    if verdict.sentence.startswith("The image was not used"):
        alerts.append(verdict.sentence)
    if totals is not None and np.median(totals) < _FEW_COUNTS:
        alerts.append(
            f"Few counts: {np.median(totals):.0f} in the median spot. Domains rest on the mean of "
            "neighbours, and thin ones may be lost."
        )
    curve = record.get("n_clusters_curve")
    if curve is not None:
        numbers = np.asarray(curve["n_clusters"])
        if len(numbers) > 1 and asked in (numbers.min(), numbers.max()):
            side = "largest" if asked == numbers.max() else "smallest"
            alerts.append(
                f"K = {asked} is the {side} number of domains compared, {numbers.min()} to "
                f"{numbers.max()}: compare a wider range."
            )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cure = "name the column of obs {column!r} as the sections' key of the fit"
        warn_of_space(np.asarray(adata.obsm["spatial"])[:, :2], sections, cure, adata)
    return alerts + [
        f"{str(warning.message)[0].upper()}{str(warning.message)[1:]}." for warning in told
    ]


def tabulate_markers(ranked, symbols, names, n_genes):
    """Return for each domain a DataFrame of its genes of largest t that are more expressed."""
    score, fold, share, mean = ranked
    tables = {}
    for k, name in enumerate(names):
        best = np.argsort(-score[k], kind="stable")[:n_genes]
        best = best[score[k][best] > 0]
        tables[name] = pd.DataFrame(
            {
                "index": best,
                "gene": [symbols[i] for i in best],
                "t": score[k][best],
                "fold": fold[k][best],
                "share": share[k][best],
                "mean": mean[k][best],
            }
        )
    return tables
