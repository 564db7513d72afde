"""Large images that stay on disk: TIFF and Zarr, read by region through a cache of tiles."""

import os
import re
from collections import OrderedDict

import numpy as np

from .._storage._untrusted import check_store

# Most that known codecs make of a byte (deflate 1,032, LZW some 2,700); a header may claim more.
_MOST_FROM_A_BYTE = 4000
_SMALL = 2**24  # bytes that any header may claim
CACHE_BYTES = 2**28  # decoded tiles kept in memory
_CHANNEL_AXES = "SCQI"  # samples, channels, and what unnamed leading axes are called
_OME_COUNTS = re.compile(r"""(?:NumPlanes|PlaneCount|IFD|First[A-Z]|Size[^XY])\s*=\s*["'](\d+)""")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_DECODED = {1, 2, 6}  # photometric: grey, RGB, YCbCr; Pillow turns the others into RGB
_PER_UNIT = {2: 25_400.0, 3: 10_000.0}  # micrometres in TIFF's units inch and centimetre
_MICROMETRES = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micrometer": 1.0, "nm": 1e-3, "nanometer": 1e-3}
_MICROMETRES |= {"mm": 1e3, "millimeter": 1e3}
_PLAUSIBLE_MPP = (0.01, 50.0)  # printers' resolutions such as 72 dpi say nothing about tissue


class RegionImage:
    """An image file of which only the tiles around the spots are ever decoded.

    It pickles as its path: the file must still be there when the copy is used.

    Parameters
    ----------
    path : str
        A TIFF or OME-TIFF file (of which the first series is read), or an OME-Zarr or Zarr folder.
    level : int, default=0
        Level of the pyramid; 0 is the finest.

    Attributes
    ----------
    shape : tuple
        (height, width, channels).
    dtype : dtype
    mpp : float or None
        Micrometres per pixel of the finest level, if the file has it.
    n_levels : int
        Levels of the pyramid.

    Raises
    ------
    UnsupportedTiff
        The file is a TIFF whose colours or bit depth need another decoder.
    ValueError
        It is damaged, or has more axes than height, width and channels.
    """

    def __init__(self, path, level=0):
        self.path = path
        reader = find_reader(path) or _open_tiff
        self._array, axes, self.mpp, self._alpha, self.n_levels = reader(path, level)
        self._set_axes(axes)
        y, x = self._axes["Y"], self._axes["X"]
        channels = self._array.shape[self._axes["C"]] if "C" in self._axes else 1
        self.shape = (self._array.shape[y], self._array.shape[x], channels - self._alpha)
        if min(self.shape) < 1:
            raise ValueError(f"image {self.path!r} is {self.shape} and has no pixels: damaged?")
        self.dtype = np.dtype(self._array.dtype).newbyteorder("=")
        if self.dtype.kind not in "uif":
            raise ValueError(f"image {self.path!r} has dtype {self.dtype}: pixels are numbers")
        chunks = getattr(self._array, "chunks", None) or (256,) * len(axes)  # a memory map has none
        if os.path.isfile(path):  # a tile is decoded as a whole, even beyond the image
            check_claim(path, self.shape, self.dtype.itemsize)
            check_claim(path, chunks, self.dtype.itemsize)
        self.tile = (min(chunks[y], self.shape[0]), min(chunks[x], self.shape[1]))
        self._tiles, self._held = OrderedDict(), 0

    def _set_axes(self, axes):
        """Remember which axis is which; other axes must have length 1."""
        self._axes = {}
        for i, axis in enumerate(axes):
            name = "C" if axis in _CHANNEL_AXES else axis
            if name in ("Y", "X", "C") and name not in self._axes:
                self._axes[name] = i
            elif self._array.shape[i] != 1:
                raise ValueError(
                    f"image {self.path!r} has axes {axes} of lengths {self._array.shape}: expected "
                    "height, width and channels. Write one plane of it to a file of its own"
                )
        if not {"Y", "X"} <= set(self._axes):
            raise ValueError(f"image {self.path!r} has axes {axes}: expected Y and X among them")

    def __getstate__(self):
        return {"path": self.path, "shape": self.shape}

    def __setstate__(self, state):
        if not os.path.exists(state["path"]):
            raise FileNotFoundError(f"image {state['path']!r} is gone: it was read by region")
        self.__init__(state["path"])
        if self.shape != state["shape"]:
            raise ValueError(
                f"image {self.path!r} is {self.shape} now but was {state['shape']} when it was "
                "opened first: fit again"
            )

    def __deepcopy__(self, memo):
        return type(self)(self.path)

    def read(self, top, bottom, left, right):
        """Return the pixels (bottom - top, right - left, c) of a region inside the image."""
        h, w = self.tile
        region = np.empty((bottom - top, right - left, self.shape[2]), self.dtype)
        for row in range(top // h, -(-bottom // h)):
            for column in range(left // w, -(-right // w)):
                tile = self._read_tile(row, column)
                y, x = row * h, column * w
                y0, y1 = max(top, y), min(bottom, y + tile.shape[0])
                x0, x1 = max(left, x), min(right, x + tile.shape[1])
                inside = tile[y0 - y : y1 - y, x0 - x : x1 - x]
                region[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        return region

    def _read_tile(self, row, column):
        """Return one tile (h, w, c), decoded or from the cache."""
        if (row, column) in self._tiles:
            self._tiles.move_to_end((row, column))
            return self._tiles[row, column]
        h, w = self.tile
        place = [0] * self._array.ndim
        place[self._axes["Y"]] = slice(row * h, min((row + 1) * h, self.shape[0]))
        place[self._axes["X"]] = slice(column * w, min((column + 1) * w, self.shape[1]))
        if "C" in self._axes:
            place[self._axes["C"]] = slice(None)
        try:
            tile = np.asarray(self._array[tuple(place)], dtype=self.dtype)
        except MemoryError as error:
            raise MemoryError(
                f"image {self.path!r} has tiles of {h} x {w} pixels, too large for memory: write "
                "it anew in tiles of 512 x 512, say by tifffile.imwrite(..., tile=(512, 512))"
            ) from error
        except Exception as error:  # each codec has its own kinds
            raise ValueError(
                f"image {self.path!r} cannot be read at rows {row * h} on, columns {column * w} on "
                f"({type(error).__name__}: {error}): damaged, or its compression needs imagecodecs"
            ) from error
        kept = sorted((i, name) for name, i in self._axes.items())
        names = [name for _, name in kept]
        order = [names.index(name) for name in ("Y", "X", "C") if name in names]
        tile = tile.transpose(order)
        tile = tile[:, :, None] if tile.ndim == 2 else tile
        if self._alpha:
            tile = lay_over_white(tile)
        self._tiles[row, column] = tile = np.ascontiguousarray(tile)
        self._held += tile.nbytes
        while self._held > CACHE_BYTES and len(self._tiles) > 1:
            self._held -= self._tiles.popitem(last=False)[1].nbytes
        return tile


def check_claim(path, shape, itemsize):
    """Make sure that a file is large enough for the image that its header claims.

    Raises
    ------
    ValueError
        If no codec could unpack so many pixels from it.
    """
    n_bytes = itemsize * np.prod(shape, dtype=float)
    size = os.path.getsize(path)
    if n_bytes > _SMALL + _MOST_FROM_A_BYTE * size:
        claimed = " x ".join(map(str, shape))
        raise ValueError(
            f"image {path!r} claims {claimed} pixels, {n_bytes / 2**30:.3g} GiB, of a file of "
            f"{size} bytes: it is damaged; copy or write it again"
        )


class UnsupportedTiff(Exception):
    """A TIFF that must be decoded as a whole."""


def lay_over_white(pixels, full=None, white=None):
    """Drop the last channel, opacity up to `full`, by laying the others (h, w, c) over white."""
    if full is None:
        full = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1.0
    if (pixels[..., -1] >= full).all():
        return pixels[..., :-1]
    opacity = np.clip(pixels[..., -1:] / np.float32(full), 0, 1)
    mixed = pixels[..., :-1] * opacity + (full if white is None else white) * (1 - opacity)
    return (np.rint(mixed) if pixels.dtype.kind in "ui" else mixed).astype(pixels.dtype)


def is_tiff(path):
    """Whether a file begins as TIFF files do."""
    if os.path.isdir(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) in _TIFF_MAGIC


def is_zarr(path):
    markers = (".zattrs", ".zgroup", ".zarray", "zarr.json")
    return any(os.path.exists(os.path.join(path, marker)) for marker in markers)


def _open_tiff(path, level):
    """Return (array-like, axes, mpp, has alpha, levels) of a level of a TIFF's first series."""
    import tifffile

    try:
        # Neither format may lead to other files.
        alone = {"is_ndtiff": False} if hasattr(tifffile.TiffFile, "is_ndtiff") else {}
        file = tifffile.TiffFile(path, _multifile=False, **alone)
        _check_ome(file)
        levels = file.series[0].levels
        series = levels[level]
        page = series.keyframe
        if page.photometric not in _TIFF_DECODED or page.bitspersample not in (8, 16, 32, 64):
            raise UnsupportedTiff
        # Every page of the series, since the channels of an OME-TIFF are pages of their own.
        frames = [frame for frame in series.pages if frame is not None]
        end = max(max(np.add(f.dataoffsets, f.databytecounts), default=0) for f in frames)
        expected = int(np.prod(page.chunked))
        if any(len(f.dataoffsets) != expected for f in frames):
            raise ValueError(f"its index of {expected} tiles or strips is incomplete")
        if end > os.path.getsize(path):
            raise ValueError(f"its pixels end at byte {end}, the file at {os.path.getsize(path)}")
        if series.dataoffset is not None and page.is_memmappable:
            array = np.memmap(
                path, file.byteorder + page.dtype.char, "r", series.dataoffset, series.shape
            )
        else:
            import zarr

            array = zarr.open(file.series[0].aszarr(level=level), mode="r")
    except (UnsupportedTiff, ImportError):
        raise
    except Exception as error:  # tifffile raises many kinds on damaged bytes
        raise ValueError(
            f"image {path!r} cannot be read ({type(error).__name__}: {error}): expected a whole "
            "TIFF file"
        ) from error
    alpha = page.photometric in (1, 2) and tuple(page.extrasamples) in ((1,), (2,))
    return array, series.axes, _find_tiff_mpp(file, levels[0].keyframe), alpha, len(levels)


def _check_ome(file):
    """Raise a ValueError if OME-XML names other files, or more planes than the file has bytes."""
    text = file.ome_metadata or ""
    if any(int(count) > file.filehandle.size for count in _OME_COUNTS.findall(text)):
        raise ValueError("its OME-XML claims more planes than it has bytes")
    if "FileName" in text and file.series[0].kind.lower() != "ome":
        raise ValueError(
            "its OME-XML names other files, which could be any: write all planes into one file"
        )


def _find_tiff_mpp(file, page):
    """Return micrometres per pixel from OME, a scanner's description or the resolution."""
    try:
        return _keep_plausible(_read_tiff_mpp(file, page))
    except (ArithmeticError, TypeError, ValueError):  # tags with no number, or one by zero
        return None


def _read_tiff_mpp(file, page):
    if file.ome_metadata:
        size = re.search(r'PhysicalSizeX="([^"]+)"', file.ome_metadata)
        unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', file.ome_metadata)
        factor = _MICROMETRES.get(unit[1] if unit else "µm")  # OME's default
        return float(size[1]) * factor if size and factor else None
    if aperio := re.search(r"MPP\s*=\s*([0-9.]+)", page.description):
        return float(aperio[1])
    if int(page.resolutionunit) in _PER_UNIT and page.resolution[0] > 0:
        return _PER_UNIT[int(page.resolutionunit)] / page.resolution[0]
    return None


def _keep_plausible(mpp):
    low, high = _PLAUSIBLE_MPP
    return mpp if mpp is not None and low <= mpp <= high else None


def _open_zarr(path, level):
    """Return (array, axes, mpp, has alpha, levels) of a Zarr array or of a level of OME-Zarr."""
    import zarr

    check_store(path)
    try:
        node = zarr.open(path, mode="r")
        if hasattr(node, "shape"):
            axes = {2: "YX", 3: "CYX" if node.shape[0] < node.shape[2] else "YXC"}.get(node.ndim)
            if axes is None:
                raise ValueError(f"an array of shape {node.shape} is no image")
            return node, axes, None, False, 1
        attributes = dict(node.attrs)
        scales = attributes.get("ome", attributes).get("multiscales")
        if not scales:
            raise ValueError(f"no OME-Zarr image: its attributes are {sorted(attributes)}")
        names = scales[0].get("axes") or list("tczyx")
        datasets = scales[0]["datasets"]
        array, finest = node[datasets[level]["path"]], datasets[0]
    except Exception as error:  # zarr raises many kinds on damaged stores
        raise ValueError(
            f"image {path!r} cannot be read ({type(error).__name__}: {error}): expected an "
            "OME-Zarr image or a Zarr array"
        ) from error
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in names]
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in names]
    mpp = None
    for change in finest.get("coordinateTransformations", ()):
        factor = _MICROMETRES.get(units[names.index("x")])
        if change.get("type") == "scale" and factor:
            mpp = _keep_plausible(factor * change["scale"][names.index("x")])
    return array, "".join(name.upper() for name in names), mpp, False, len(datasets)


# The formats read by region: what tells one from its path, and what returns of one of its levels
# (array-like, axes, micrometres per pixel of the finest level or None, has alpha, levels).
_READERS = {
    "zarr": (is_zarr, _open_zarr),
    "tiff": (is_tiff, _open_tiff),
}


def find_reader(path):
    """Return the function that opens an image by region, or None for another format."""
    return next((reader for is_one, reader in _READERS.values() if is_one(path)), None)
