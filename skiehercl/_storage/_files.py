"""One safetensors file, whole or not at all, without pickle, with a digest of all its bytes.

Arrays are the file's tensors; everything else is JSON in its header. Only registered classes are
written and rebuilt, without calling anything that the file names, and checked: a file of unknown
origin can hold wrong numbers, but neither run code nor bring compiled code to read beyond its
memory.
"""

import hashlib
import json
import os

from safetensors.numpy import load, save

from .._utils._atomic import open_regular, replace_file
from .._utils._memory import list_versions
from ._arrays import ReadTensors

__all__ = ["FORMAT_VERSION", "FileError", "quote", "read_file", "write_file"]

# Raised whenever a released version's files would be read wrongly.
FORMAT_VERSION = 1
# A header of a fitted model takes less than 1 MB; Python objects take far more than their JSON.
_MOST_HEADER, _MOST_NODES = 64 * 2**20, 2_000_000
# In place of the digest while it is computed. No text of the header but its own entry holds this:
# quotation marks within texts are escaped.
_DIGEST = b'"sha256":"%s"'
_NO_DIGEST = b"0" * 64


class FileError(ValueError):
    """A file that isn't the one that was wanted, or not as it was written."""


def write_file(path, kind, content, tensors):
    """Write what `encode` returned, and its WrittenTensors, replacing the file that is there.

    ``kind`` says what it is: no other is read in its place.
    """
    metadata = {
        "format": f"skiehercl-{kind}",
        "format_version": str(FORMAT_VERSION),
        "versions": json.dumps(list_versions()),
        "content": json.dumps(content),
        "sha256": _NO_DIGEST.decode(),
    }
    data = memoryview(save(tensors.arrays, metadata))
    header = bytes(data[: _end_of_header(data)])
    _check_header(header)
    start = header.index(_DIGEST % _NO_DIGEST) + _DIGEST.index(b"%")
    digest = hashlib.sha256(data).hexdigest().encode()
    with replace_file(path) as temporary, open(temporary, "wb") as file:
        file.writelines([data[:start], digest, data[start + len(digest) :]])


def read_file(path, kind, writer, build):
    """Return ``build(content, tensors)`` of a file that a ``writer`` wrote.

    Raises
    ------
    FileError
        If it is another file, of another format version or damaged, or can't be built. ``build``
        may raise one itself, which goes on behind the path.
    OSError
        If there is none, no regular file, or it can't be read.
    """
    with open_regular(path, f"a file that {writer} wrote") as file:
        try:
            return build(*_read_parts(file, kind, writer))
        except FileError as error:
            raise FileError(f"{path} {error}") from None
        except OSError as error:
            raise type(error)(f"can't read {path}: {error.strerror or error}") from error
        # The header is anybody's text: whatever goes wrong in reading it is the file's fault.
        except Exception as error:
            reason = quote(f"({type(error).__name__}: {error})", 200)
            raise FileError(f"{path} is damaged or not by {writer} {reason}") from error


def _read_parts(file, kind, writer):
    n_bytes = os.fstat(file.fileno()).st_size
    end = _end_of_header(file.read(8))
    if not 8 < end <= min(n_bytes, _MOST_HEADER):
        raise ValueError("its header is cut short, or none")
    header = file.read(end - 8)
    _check_header(header)
    metadata = json.loads(header).get("__metadata__", {})
    if metadata.get("format") != f"skiehercl-{kind}":
        raise FileError(f"is no file of {writer}")
    version = metadata["format_version"]
    if version != str(FORMAT_VERSION):
        by = json.loads(metadata["versions"])["skiehercl"]
        raise FileError(
            f"has format version {quote(version)}, written by skiehercl {quote(by)}, but this "
            f"skiehercl reads version {FORMAT_VERSION}: use the one that wrote it, or write it "
            "again"
        )
    file.seek(0)
    data = file.read(n_bytes)
    _check_digest(data, end, metadata.get("sha256", ""))
    return json.loads(metadata["content"]), ReadTensors(load(data), len(data))


def _end_of_header(start):
    return 8 + int.from_bytes(start[:8], "little") if len(start) >= 8 else 0


def _check_header(header):
    """Raise an error if parsing would take memory beyond any measure."""
    n_nodes = sum(header.count(mark) for mark in (b",", b"[", b"{"))
    if len(header) > _MOST_HEADER or n_nodes > _MOST_NODES:
        raise ValueError(
            f"a header of {len(header):,} bytes and {n_nodes:,} values is beyond what files may "
            "have: use joblib.dump, which stores any object (load only files you trust)"
        )


def _check_digest(data, end, digest):
    """Raise an error if a byte of the file isn't as it was written."""
    named = _DIGEST % digest.encode()
    if len(digest) != len(_NO_DIGEST) or data.count(named, 0, end) != 1:
        raise ValueError("it has no digest")
    start = data.index(named) + _DIGEST.index(b"%")
    found = hashlib.sha256(memoryview(data)[:start])
    found.update(_NO_DIGEST)
    found.update(memoryview(data)[start + len(_NO_DIGEST) :])
    if found.hexdigest() != digest:
        raise ValueError("its content isn't what was written: the digests differ")


def quote(text, most=60):
    """Return a text of the file as one line of characters that a terminal takes for itself."""
    text = str(text)[: most + 1].split("\n")[0]
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else text[: most - 3] + "..."
