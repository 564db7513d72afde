"""`save` and `load` of the fitted estimators."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sklearn.utils.validation import check_is_fitted

from .._utils._display import DocumentedEstimator
from ._arrays import WrittenTensors
from ._codec import decode, encode, open_object, rebuild
from ._files import FileError, quote, read_file, write_file
from ._registry import Stored, check_object

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._typing import PathLike

__all__ = ["StoredEstimator"]

# Folders mean nothing elsewhere, and a fit would trust what lies there.
_FOLDERS = ("memory", "checkpoint")


class StoredEstimator(DocumentedEstimator):
    """Base of estimators that one safetensors file holds; a subclass of its own goes with it."""

    _stored: ClassVar[Stored] = Stored()

    @classmethod
    def _import_stored(cls):
        """Import the modules whose classes a file may name."""

    def save(self, path: PathLike) -> None:
        """Write the fitted estimator to one file, without pickle.

        The file is in safetensors format: arrays as tensors, all else as text, and a digest
        (SHA-256) of it all. An existing file is replaced only once the new one is complete, and
        keeps its mode; a link leads to the file that is written. All is stored but ``memory``,
        ``checkpoint`` and callbacks of class :class:`~skiehercl.Checkpoint`, which name folders;
        sparse adjacencies become CSR, pandas' indices and series arrays.

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
        check_is_fitted(self)
        tensors, state = WrittenTensors(), _forget_folders(open_object(self, self._stored))
        try:
            state = {name: encode(value, name, tensors) for name, value in state.items()}
        except TypeError as error:
            raise TypeError(
                f"{error}: use joblib.dump, which stores any object (load only files you trust)"
            ) from error
        check_object(self, self._stored)
        write_file(path, "model", {"class": type(self).__name__, "state": state}, tensors)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read a fitted estimator of this class that ``save`` wrote.

        Loading rebuilds registered classes only and runs nothing that the file names, so that
        files from others are safe to load: they can hold other numbers, but finite ones that fit
        each other, and take memory by their own size. Import the modules of your own heads and
        callbacks before. scikit-learn warns if its version has changed.

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
        cls._import_stored()

        def build(content, tensors):
            if content["class"] != cls.__name__:
                name = quote(content["class"])
                raise FileError(f"holds a {name}, not a {cls.__name__}: load it with that")
            state = {name: decode(item, tensors) for name, item in content["state"].items()}
            return rebuild(cls, cls._stored, _forget_folders(state))

        return read_file(path, "model", f"{cls.__name__}.save", build)


def _forget_folders(state):
    return {name: None if name in _FOLDERS else value for name, value in state.items()}
