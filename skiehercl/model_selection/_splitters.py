"""How spatial data is split: not at all, or by tiles of the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _num_samples

from .._spots._arrays import check_block
from ..metrics._scorers import take_coords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import ArrayLike, Columns, IntArray, RandomState, SpotsLike

__all__ = ["SpatialBlockSplit", "WholeSectionSplit"]


class WholeSectionSplit(BaseCrossValidator):
    """One "split" whose training and test set are all spots.

    Spatial domains are found in a section, not learnt from labels, so parameters are compared
    by the domains that a fit gives to the very spots it has seen. This splitter lets
    `GridSearchCV`, `cross_validate` and their relatives do that.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.model_selection import WholeSectionSplit
    >>> [(train.tolist(), test.tolist()) for train, test in WholeSectionSplit().split(np.eye(3))]
    [([0, 1, 2], [0, 1, 2])]
    """

    def split(
        self, X: SpotsLike, y: object = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield all spots as training set and all spots as test set, once.

        Parameters
        ----------
        X : array-like or AnnData of shape (n_spots, n_features)
            The section.
        y, groups : object
            Ignored.

        Yields
        ------
        train, test : ndarray of shape (n_spots,), int
            Both 0, ..., n_spots - 1.
        """
        everything = np.arange(_num_samples(X))
        yield everything, everything.copy()

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return 1, whatever the parameters."""
        return 1


class SpatialBlockSplit(BaseCrossValidator):
    """Cross-validation that holds out contiguous tiles of the tissue.

    Neighbouring spots are alike, so spots held out at random are nearly known from the
    training set. Here the section is cut into tiles of equal numbers of spots by bisection
    along the longer side, and each fold holds out some tiles.

    The coordinates come from the first of: `coords`; the columns `coords_columns` of a packed
    `X`; `groups` of shape (n_spots, 2), as in `GridSearchCV.fit(X, y, groups=coords)`; the
    `obsm['spatial']` of an AnnData `X`.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_blocks : int or None, default=None
        Number of tiles, at least `n_splits`; a multiple of it keeps the folds equal in size.
        None: four per fold, or fewer where that would leave tiles of less than 20 spots.
    coords : array-like of shape (n_spots, n_dims) or None, default=None
        Coordinates of the spots that will be split.
    coords_columns : columns or None, default=None
        Columns of a packed `X` with the coordinates, as in :class:`~skiehercl.IEHERCLClusterer`.
    random_state : int, RandomState instance or None, default=None
        Seed of the assignment of tiles to folds. None: a new assignment at each call.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.model_selection import SpatialBlockSplit
    >>> line = np.arange(6.0)[:, None]
    >>> splits = SpatialBlockSplit(n_splits=2, n_blocks=2, coords=line, random_state=0)
    >>> sorted(test.tolist() for _, test in splits.split(np.zeros((6, 1))))
    [[0, 1, 2], [3, 4, 5]]
    """

    # Lets the groups through where metadata routing is enabled.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(
        self,
        n_splits: int = 5,
        n_blocks: int | None = None,
        *,
        coords: ArrayLike | None = None,
        coords_columns: Columns | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_splits = n_splits
        self.n_blocks = n_blocks
        self.coords = coords
        self.coords_columns = coords_columns
        self.random_state = random_state

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return the number of folds, whatever the parameters."""
        return self.n_splits

    def split(
        self, X: SpotsLike, y: object = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the spots to train on and the spots held out, fold by fold.

        Parameters
        ----------
        X : array-like or AnnData of shape (n_spots, n_features)
            The section.
        y : object
            Ignored.
        groups : array-like of shape (n_spots, n_dims) or None, default=None
            Coordinates, unless the constructor says where they are.

        Yields
        ------
        train, test : ndarray of int
            Sorted indices; every spot is in exactly one test set.

        Raises
        ------
        ValueError
            If there are no coordinates, their number is not that of the spots, or `n_splits`
            and `n_blocks` do not suit the number of spots.
        """
        fold = self._assign_folds(self._find_coords(X, groups))
        for held_out in range(self.n_splits):
            yield np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)

    def _find_coords(self, X, groups):
        coords, source = self.coords, "coords"
        if coords is None and self.coords_columns is not None:
            coords, source = take_coords(X, self.coords_columns), "X[coords_columns]"
        if coords is None and groups is not None:
            coords, source = groups, "groups"
        if coords is None and "spatial" in getattr(X, "obsm", {}):
            coords, source = X.obsm["spatial"], "X.obsm['spatial']"
        if coords is None:
            raise ValueError(
                "SpatialBlockSplit needs coordinates: pass coords= or coords_columns= to its "
                "constructor, the coordinates as groups=, or an AnnData with obsm['spatial']"
            )
        if np.ndim(coords) != 2:
            raise ValueError(
                f"{source} must hold coordinates of shape (n_spots, 2), got an array of "
                f"{np.ndim(coords)} dimension(s)"
                + ("; to hold out whole groups use GroupKFold" if source == "groups" else "")
            )
        coords = check_array(check_block(coords, source), input_name=source, dtype=np.float64)
        if len(coords) != _num_samples(X):
            raise ValueError(
                f"{source} has {len(coords)} rows but X has {_num_samples(X)}: pass one row of "
                "coordinates per spot (inside another cross-validation use coords_columns or "
                "groups, which are split along with X)"
            )
        return coords

    def _assign_folds(self, coords):
        """Fold of each spot (n_spots,)."""
        n_spots, n_splits, n_blocks = len(coords), self.n_splits, self.n_blocks
        if not 2 <= n_splits <= n_spots:
            raise ValueError(f"n_splits must be from 2 to n_spots={n_spots}, got {n_splits}")
        if n_blocks is None:
            n_blocks = n_splits * int(np.clip(n_spots // (20 * n_splits), 1, 4))
        if not n_splits <= n_blocks <= n_spots:
            raise ValueError(
                f"n_blocks must be from n_splits={n_splits} to n_spots={n_spots}, got {n_blocks}"
            )
        tiles = _bisect(coords, n_blocks)
        fold = np.empty(n_spots, dtype=np.intp)
        held = np.zeros(n_splits, dtype=np.intp)
        rng = check_random_state(self.random_state)
        for tile in rng.permutation(n_blocks):
            smallest = np.flatnonzero(held == held.min())
            chosen = rng.choice(smallest)
            fold[tiles[tile]] = chosen
            held[chosen] += len(tiles[tile])
        return fold


def _bisect(coords, n_blocks):
    """Cut the spots into `n_blocks` tiles of (nearly) equal numbers of spots, as index arrays."""
    tiles, pending = [], [(np.arange(len(coords)), n_blocks)]
    while pending:
        spots, n_parts = pending.pop()
        if n_parts == 1:
            tiles.append(spots)
            continue
        axis = np.argmax(np.ptp(coords[spots], axis=0))
        first = n_parts // 2
        cut = max(first, min(round(len(spots) * first / n_parts), len(spots) - n_parts + first))
        order = spots[np.argsort(coords[spots, axis], kind="stable")]
        pending += [(order[:cut], first), (order[cut:], n_parts - first)]
    return tiles
