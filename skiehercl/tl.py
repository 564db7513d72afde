"""One call for an AnnData, by scanpy's conventions: the domains are found and written into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ._spots._anndata import is_anndata
from .clusterer import IEHERCLClusterer
from .io import annotate
from .io._annotation import check_domain_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["domains"]


def domains(
    adata: AnnData,
    n_clusters: int | Sequence[int] | Literal["auto"] = 8,
    key_added: str = "domain",
    copy: bool = False,
    **parameters: Any,
) -> AnnData | None:
    """Find the spatial domains of an AnnData and write them into it.

    Fits an :class:`~skiehercl.IEHERCLClusterer` and stores what it found by
    :func:`skiehercl.io.annotate`. To keep the model, for other sections, call these two.

    Parameters
    ----------
    adata : AnnData
        Counts, or their logarithms, with coordinates in ``obsm["spatial"]``.
    n_clusters : int, sequence of int or "auto", default=8
        Number of domains; several, or "auto", to choose from.
    key_added : str, default="domain"
        The column of ``obs`` for the domains, and the beginning of what else is written.
    copy : bool, default=False
        Whether to leave `adata` as it is and return an annotated copy.
    **parameters
        Parameters of the clusterer, those of its parts by double underscores:
        ``max_iter=100, head__n_starts=2, layout__section_key="sample"``. Unlike the clusterer's,
        ``random_state`` is 0 unless given, as scanpy's are.

    Returns
    -------
    AnnData or None
        The copy, or None. Written are ``obs[key_added]``, ``obs[key_added + "_confidence"]``,
        ``uns[key_added]``, ``uns[key_added + "_colors"]`` and ``obsm["X_iehercl"]``.

    Raises
    ------
    TypeError
        `adata` is no AnnData.
    ValueError
        ``obs`` or ``uns`` has something else under this key, such as the truth, a name is no
        parameter, or the data don't suit the clusterer.

    Examples
    --------
    >>> import skiehercl
    >>> adata = skiehercl.datasets.make_tissue(300, n_domains=3, n_genes=60, random_state=0)
    >>> skiehercl.tl.domains(adata, 3, key_added="niche", max_iter=5)
    >>> adata.obs["niche"].cat.categories.tolist()
    ['0', '1', '2']
    """
    if not is_anndata(adata):
        raise TypeError(
            f"adata is a {type(adata).__name__}, but tl.domains writes into an AnnData: for arrays "
            "use IEHERCLClusterer(...).fit_predict(X, coords), for a file io.read_section"
        )
    check_domain_key(adata, key_added, "key_added")  # before the fit, which takes longer
    model = IEHERCLClusterer(n_clusters).set_params(**{"random_state": 0, **parameters})
    if copy:
        adata = adata.copy()
    annotate(adata, model.fit(adata), key_added)
    return adata if copy else None
