"""A section where it is trained: on the device whole, where it fits, and cut into batches."""

from typing import NamedTuple

import numpy as np
import torch

__all__ = ["PlacedBatch", "PlacedSection", "fits", "multiply"]

# These read the section where it lies.
_HOSTS = ("cpu",)
# Others, Apple's GPUs before all, have no sparse matrices in the oldest torch that we support.
_SPARSE_DEVICES = ("cpu", "cuda")

# What stays on a device takes at most this share of its free memory: activations need some too.
_SHARE = 0.5
_FREE_IF_UNKNOWN = 2**31  # bytes, of devices that don't tell


class PlacedBatch(NamedTuple):
    """What one step sees, on its device.

    Attributes
    ----------
    spots : LongTensor of shape (B,)
        The batch's own spots.
    pairs : LongTensor of shape (P,) or slice
        Those of them, by position, that the pairwise losses see.
    inputs : dict of str to (Tensor (B + halo, d), Tensor (B + halo, d_pooled))
    target : Tensor of shape (B, d)
    neighbor_mean : sparse Tensor or tuple, of shape (B, B + halo)
        For :func:`multiply`.
    """

    spots: torch.Tensor
    pairs: torch.Tensor | slice
    inputs: dict
    target: torch.Tensor
    neighbor_mean: object


class PlacedSection:
    """The tensors of a section on a device, or on the CPU where they don't fit.

    Parameters
    ----------
    section : SectionArrays
    device : torch.device
    """

    def __init__(self, section, device):
        self.section, self.device = section, device
        arrays = [*(part for parts in section.inputs.values() for part in parts), section.target]
        n_bytes = sum(array.nbytes for array in arrays)
        self.resident = device.type not in _HOSTS and fits(n_bytes, device)
        if self.resident:
            self._inputs = {
                name: tuple(torch.tensor(part, device=device) for part in parts)
                for name, parts in section.inputs.items()
            }
            self._target = torch.tensor(section.target, device=device)
        self._whole = None

    def place(self, batches):
        """Yield a PlacedBatch for each of an epoch's pairs of a Batch and its `pairs`.

        Parameters
        ----------
        batches : iterable of (Batch, ndarray of int or None)
            None: the pairwise losses see all spots.
        """
        if not self.resident:
            yield from (self._place_batch(batch, pairs) for batch, pairs in batches)
            return
        # All of the epoch's indices travel at once, so that no step waits for the CPU.
        batches = list(batches)
        places = self._send([b.spots for b, _ in batches])
        pairs = self._send([p for _, p in batches])
        matrices = self._send_matrices([b.neighbor_mean for b, _ in batches])
        for (batch, _), spots, some, mean in zip(batches, places, pairs, matrices, strict=True):
            own = spots[: batch.n_core]
            inputs = {
                name: tuple(part.index_select(0, spots) for part in parts)
                for name, parts in self._inputs.items()
            }
            some = slice(None) if some is None else some
            yield PlacedBatch(own, some, inputs, self._target.index_select(0, own), mean)

    def _place_batch(self, batch, pairs):
        if batch.n_core < len(self.section):
            return self._gather(batch, pairs, batch.spots)
        if self._whole is None:  # the same in every epoch, but for the pairs
            self._whole = self._gather(batch, None, slice(None))
        return self._whole._replace(pairs=self._to_pairs(pairs))

    def _gather(self, batch, pairs, rows):
        section, own = self.section, rows
        if not isinstance(rows, slice):
            own = rows[: batch.n_core]
        inputs = {
            name: tuple(self._rows_of(part, rows) for part in parts)
            for name, parts in section.inputs.items()
        }
        return PlacedBatch(
            torch.from_numpy(batch.spots[: batch.n_core]),
            self._to_pairs(pairs),
            inputs,
            self._rows_of(section.target, own),
            self._send_matrices([batch.neighbor_mean])[0],
        )

    def _rows_of(self, array, rows):
        array = array[rows]
        # What memory keeps is read-only, which torch has no word for.
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device)

    def _to_pairs(self, pairs):
        return slice(None) if pairs is None else torch.from_numpy(pairs).to(self.device)

    def _send(self, parts):
        sizes = [0 if part is None else len(part) for part in parts]
        found = [part for part in parts if part is not None]
        joined = torch.from_numpy(np.concatenate(found) if found else np.empty(0, np.int64))
        split = joined.to(self.device).split(sizes)
        return [None if part is None else s for part, s in zip(parts, split, strict=True)]

    def _send_matrices(self, matrices):
        parts = [matrix.tocoo() for matrix in matrices]
        shapes = [matrix.shape for matrix in matrices]
        rows = self._send([part.row.astype(np.int64) for part in parts])
        columns = self._send([part.col.astype(np.int64) for part in parts])
        values = self._send([part.data.astype(np.float32) for part in parts])
        return [_assemble(*entries) for entries in zip(rows, columns, values, shapes, strict=True)]


def _assemble(row, column, values, shape):
    if values.device.type not in _SPARSE_DEVICES:
        return row, column, values, shape
    index = torch.stack([row, column])
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False)


def multiply(matrix, z):
    """Return the product (B, k) of a batch's neighbour mean and z (B + halo, k), in float32."""
    if isinstance(matrix, tuple):
        row, column, values, shape = matrix
        product = values.new_zeros(shape[0], z.shape[1])
        return product.index_add(0, row, values[:, None] * z.float()[column])
    with torch.autocast(z.device.type, enabled=False):
        return torch.sparse.mm(matrix, z.float())


def fits(n_bytes, device):
    """Return whether half of the free memory of a device holds so much."""
    free = _FREE_IF_UNKNOWN
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= _SHARE * free
