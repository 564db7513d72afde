"""Warnings about coordinates: several sections or slices in one frame, background spots."""

import re
from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from .._utils._warnings import warn_user

__all__ = ["find_places", "warn_of_space"]

# What columns of obs that name the section of each spot are called, as parts of their names or,
# where these are short, as words in them.
_NAMES = (
    *("section", "slice", "slide", "sample", "library", "batch", "dataset", "replicate"),
    *("specimen", "subject", "donor", "patient", "individual", "animal", "mouse", "mice", "embryo"),
    *("bregma", "puck", "capture", "orig.ident", "orig_ident", "fov", "roi", "tma", "timepoint"),
    *("biopsy", "organoid", "cohort", "field_of_view", "filename", "accession"),
    *("schnitt", "objektträger", "échantillon", "echantillon", "muestra", "sección", "seccion"),
    *("campione", "vetrino", "amostra", "образец", "срез", "切片", "样本", "標本", "サンプル"),
)
_WORDS = {"core", "run", "well", "chip", "lib", "case", "rep", "experiment", "z", "plane", "tile"}
_WORDS |= {"field", "file", "gsm", "srr", "coupe", "lame", "probe"}
# The same, but names of anatomy or states too.
_VAGUE = {"region", "tissue", "block", "stage", "level", "condition", "treatment", "genotype"}
_VAGUE |= {"disease", "diagnosis", "day", "age"}
# Kinds of cells, and domains, whatever else their names say.
_KINDS = {"cell", "celltype", "cluster", "clusters", "leiden", "louvain", "kmeans", "annotation"}
_KINDS |= {"domain", "doublet", "subclass"}
# What names no sections whatever else it holds.
_PLACES = {"x", "y", "row", "col", "column", "imagerow", "imagecol"}
_BACKGROUND = "in_tissue"
_AXES = [("x", "y"), ("col", "row"), ("column", "row"), ("imagecol", "imagerow"), ("lon", "lat")]
_NUMBERED = {"spatial", "coord", "coords", "position", "pos", "location"}
# A column with fewer spots for each of its values names no sections: barcodes, replicates of spots.
_SPOTS_PER_SECTION = 10
# Spots looked at, and neighbours of each.
_SAMPLE, _NEIGHBORS = 5000, 30
# Share of edges to others, of what chance would give, from which groups lie upon one another.
_MIXED, _PARTLY_MIXED = 0.5, 0.3
# Groups narrower than this, of their length, are the rows and columns of an array.
_NARROWEST = 0.03
# Slices nearer than this, of the distance of neighbours in them, are no distance.
_FLATTEST, _FLAT = 0.05, 0.2


def warn_of_space(coords, sections, cure, adata=None):
    """Warn of spots that are close in the coordinates but not neighbours in a tissue.

    Background spots of an AnnData and, without ``sections``, z values that number slices, and
    columns of obs or libraries in uns that look like several sections.

    Parameters
    ----------
    coords : array-like of shape (n, 2 or 3), or None
    sections : array-like of shape (n,), or None
    cure : str
        How to name the sections, with {column} for the name of the column.
    adata : AnnData, default=None
    """
    if adata is not None:
        _warn_of_background(adata)
    if coords is None or sections is not None:
        return
    asked = adata is not None or _count_heights(coords) > 1
    near = _Neighbors(coords) if asked and _are_coordinates(coords) else None
    if near is not None and near.warn_of_slices():
        return
    if adata is not None:
        _warn_of_sections(adata, near, cure)


def _are_coordinates(coords):
    coords = np.asarray(coords)
    fits = coords.ndim == 2 and coords.shape[1] in (2, 3) and len(coords) > _SPOTS_PER_SECTION
    return fits and coords.dtype.kind in "fiu" and bool(np.isfinite(coords).all())


def _count_heights(coords):
    shape = np.shape(coords)
    return len(np.unique(np.asarray(coords)[:, 2])) if len(shape) == 2 and shape[1] == 3 else 0


def _warn_of_background(adata):
    if _BACKGROUND not in adata.obs:
        return
    flags = np.asarray(adata.obs[_BACKGROUND].astype(str))
    outside = np.isin(flags, ["0", "0.0", "False", "false"])
    if outside.any() and not outside.all():
        value = adata.obs[_BACKGROUND].to_numpy()[np.argmin(outside)]
        warn_user(
            f"{outside.sum()} of {len(outside)} spots are background, outside the tissue by "
            "adata.obs['in_tissue'], but are taken for tissue: drop them first, "
            f'adata = adata[adata.obs["in_tissue"] == {getattr(value, "item", lambda: value)()!r}]'
            ".copy()"
        )


def _warn_of_sections(adata, near, cure):
    libraries = adata.uns.get("spatial")
    libraries = [str(key) for key in libraries] if isinstance(libraries, Mapping) else []
    column, n_sections = _find_section_column(adata, libraries, near)
    if column is None and len(libraries) > 1:
        n_sections, message = len(libraries), f"adata.uns['spatial'] has {len(libraries)} libraries"
        column, cure = "library_id", f"put each spot's into adata.obs['library_id'] and {cure}"
    else:
        message = f"adata.obs[{column!r}] has {n_sections} values"
    if n_sections > 1:
        warn_user(
            f"{message}, so these may be several sections, but they are taken for one, whose spots "
            f"are neighbours across them: {cure.format(column=column)}"
        )


def _find_section_column(adata, libraries, near):
    """Return the column that names each spot's section, and how many there are; or None and 0."""
    attributes = adata.uns.get("spatialdata_attrs")
    region = attributes.get("region_key") if isinstance(attributes, Mapping) else None
    found = []
    for name in adata.obs.columns:
        column = adata.obs[name]
        kind = getattr(column.dtype, "kind", "O")
        named = 3 if name == region else _rate_name(str(name))
        if kind not in "OUSTiubf" or named < 2 * (kind == "f"):
            continue
        if len(libraries) > 1 and kind in "OUST":
            values = {str(value) for value in column.dropna().unique()}
            if values and values <= set(libraries):
                return name, len(values)
        if near is not None:
            codes, values = near.take(column).factorize()
            complete = named or codes.min() >= 0
            few = 1 < len(values) <= len(codes) // _SPOTS_PER_SECTION
            if few and complete and near.mix(codes, named):
                found.append((named, column.nunique(), name))
    return max(found, key=lambda one: one[:2])[:0:-1] if found else (None, 0)


def _split_words(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def find_places(names):
    """Return the names, x first, that look like those of coordinates, with z if any, or None."""
    known = {tuple(re.findall(r"[a-z]+|[0-9]+", _split_words(str(name)))): name for name in names}
    for words, name in known.items():
        axes = _AXES
        if words and words[0] in _NUMBERED:
            axes = [*_AXES, ("0", "1"), ("1", "2")]
        for first, second in axes:
            if first in words:
                other = tuple(second if word == first else word for word in words)
                third = known.get(tuple("z" if word == "x" else word for word in words), name)
                if other in known:
                    return [name, known[other], *([] if third is name else [third])]
    return None


def _rate_name(name):
    """Return 2 for a name of sections, 1 for one that may be such, 0 for others, -1 for places."""
    split = _split_words(name)
    words = set(re.split(r"[^a-z]+", split))
    if words & _PLACES or name == _BACKGROUND:
        return -1
    if words & _KINDS:
        return 0
    if words & _WORDS or any(part in split for part in _NAMES):
        return 2
    return int(bool(words & _VAGUE))


class _Neighbors:
    """Neighbours of spots, of a sample if there are many, and who they are by columns."""

    def __init__(self, coords):
        self.coords = np.asarray(coords, dtype=np.float64)
        n = len(self.coords)
        rows = np.unique(np.linspace(0, n - 1, _SAMPLE).astype(np.intp))
        count = min(_NEIGHBORS, n - 1)
        distance, near = cKDTree(self.coords).query(self.coords[rows], count + 1)
        # A spot is its own neighbour, unless so many lie on it that it isn't among the first.
        own = near == rows[:, None]
        own[~own.any(axis=1), -1] = True
        self.distance = distance[~own].reshape(len(rows), count)
        # Only those that are seen are looked up in columns.
        self.seen, near = np.unique(np.r_[rows, near[~own]], return_inverse=True)
        self.rows, self.near = near[: len(rows)], near[len(rows) :].reshape(len(rows), count)

    def take(self, column):
        """Return the values of a Series for the spots seen."""
        return column.iloc[self.seen]

    def mix(self, codes, named):
        """Whether groups of spots, by their codes, lie upon one another as sections would.

        Spots of one section keep their distance, so that of sections that lie upon one another
        the nearest pairs are of two sections; those of cells of several types are not. Without
        such pairs a name must tell (``named`` from 0 to 3).
        """
        same = codes[self.near] == codes[self.rows][:, None]
        chance = 1 - (np.bincount(codes[codes >= 0]) ** 2).sum() / len(codes) ** 2
        mixed = 1 - same[:, :6].mean()
        if mixed < _PARTLY_MIXED * chance or self._are_lines(codes):
            return False
        nearest = self.distance[:, 0]
        within = np.where(same, self.distance, np.inf).min(axis=1)
        short = nearest <= min(np.quantile(nearest, 0.1), 0.75 * np.median(within))
        expected = short.sum() * same.mean()
        found = same[short, 0].sum()
        apart = expected >= (3 if named else 5) and found < (0.5 if named else 0.1) * expected
        crowded = named > 1 or short.mean() > 0.02
        return apart or (bool(named) and crowded and mixed >= _MIXED * chance)

    def _are_lines(self, codes):
        narrow = []
        for code in range(min(codes.max() + 1, 200)):
            places = self.coords[self.seen[codes == code]]
            if len(places) > 2:
                spread = np.linalg.svd(places[:, :2] - places[:, :2].mean(axis=0), False, False)
                narrow.append(spread[1] < _NARROWEST * spread[0] or spread[0] == 0)
        return bool(narrow) and np.mean(narrow) > 0.5

    def warn_of_slices(self):
        """Warn of a third coordinate that is the number of a slice; return whether it is."""
        z = self.coords[self.seen, 2] if self.coords.shape[1] == 3 else np.zeros(1)
        heights, codes = np.unique(z, return_inverse=True)
        if not 1 < len(heights) <= len(z) // _SPOTS_PER_SECTION:
            return False
        same = codes[self.near] == codes[self.rows][:, None]
        within = np.where(same, self.distance, np.inf).min(axis=1)
        gaps = np.diff(heights)
        gap, crossing = np.median(gaps), 1 - same[:, :6].mean()
        # Planes of one stack can be near, but then they are no numbers.
        numbered = bool((gaps == np.rint(gaps)).all())
        flat = gap < (_FLAT if numbered else _FLATTEST) * np.median(within)
        chance = 1 - (np.bincount(codes) ** 2).sum() / len(codes) ** 2
        if not flat or crossing < _PARTLY_MIXED * chance:
            return False
        warn_user(
            f"coords has {len(heights)} values of z, {gap:g} apart, where neighbours in x and y "
            f"are {np.median(within):.3g} apart, so that {crossing:.0%} of the neighbours of a "
            "spot have another z: if z numbers slices, pass sections=coords[:, 2], else scale it "
            "to the unit of x and y, or leave it out, coords[:, :2]"
        )
        return True
