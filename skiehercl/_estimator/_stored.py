"""`save` and `load` of the fitted estimators, without torch until they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._utils._display import DocumentedEstimator

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._data._types import PathLike

__all__ = ["StoredEstimator"]


class StoredEstimator(DocumentedEstimator):
    """Base of estimators that one safetensors file holds."""

    def save(self, path: PathLike) -> None:
        """Write the fitted estimator to one file, without pickle.

        The file is in safetensors format: arrays as tensors, all else as text, and a digest
        (SHA-256) of it all. An existing file is replaced only once the new one is complete, and
        keeps its mode; a link leads to the file that is written. All is stored but ``memory`` and
        ``checkpoint``; sparse adjacencies become CSR, pandas' indices and series arrays.

        Parameters
        ----------
        path : str or path-like
            The file's name; ".safetensors" is its usual ending.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator isn't fitted.
        TypeError
            If a parameter is an object that the format doesn't know, such as a graph
            transformer of your own: use ``joblib.dump`` then.
        ValueError
            If the estimator isn't whole: what was fitted has been changed, or isn't finite.
        OSError
            If the file can't be written.

        See Also
        --------
        load : Read the file.

        Examples
        --------
        >>> import os, tempfile
        >>> from skiehercl import SmoothedMixture
        >>> from skiehercl.datasets import make_tissue
        >>> tissue = make_tissue(200, n_domains=3, n_genes=60, return_arrays=True, random_state=0)
        >>> model = SmoothedMixture(n_clusters=3, random_state=0).fit(tissue.X, tissue.coords)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "model.safetensors"))
        ...     loaded = SmoothedMixture.load(os.path.join(folder, "model.safetensors"))
        >>> bool((loaded.predict(tissue.X, tissue.coords) == model.labels_).all())
        True
        """
        # Imported here: storing needs torch, which reading or plotting a section doesn't.
        from ._persistence import save_estimator

        save_estimator(self, path)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read a fitted estimator of this class that ``save`` wrote.

        Loading rebuilds a fixed list of classes and runs nothing that the file names, so that
        files from others are safe to load: they can hold other numbers, but finite ones that fit
        each other, and take memory by their own size. scikit-learn warns if its version has
        changed.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        estimator : object of this class
            Fitted, with the same parameters, attributes and predictions.

        Raises
        ------
        OSError
            If the file can't be opened or read, or is none: a folder, pipe or device.
        ValueError
            If it wasn't written by ``save``, holds another class, is damaged, or has another
            format version.
        """
        from ._persistence import load_estimator

        return load_estimator(path, cls)
