"""What files claim: bounded by the files, and without links, pipes and code."""

import json
import os
import zipfile

import numpy as np
import pytest

from skiehercl import io
from skiehercl._storage._untrusted import check_store
from skiehercl.datasets import make_tissue
from skiehercl.image._files import open_image, read_image

zarr = pytest.importorskip("zarr")
OLD = {
    "zarr_format": 2,
    "shape": [40_000, 40_000, 3],
    "chunks": [512, 512, 3],
    "dtype": "|u1",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": None,
}
NEW = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [40_000, 40_000, 3],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [512, 512, 3]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [{"name": "bytes"}],
}
FILES = {".zarray": OLD, "zarr.json": NEW}


def write_claim(folder, name, **changes):
    folder.mkdir()
    (folder / name).write_text(json.dumps(FILES[name] | changes))
    return folder


@pytest.mark.parametrize("name", FILES)
def test_an_image_that_only_claims_its_pixels_is_refused(name, tmp_path):
    path = write_claim(tmp_path / "a.zarr", name)
    for read in (open_image, read_image):
        with pytest.raises(ValueError, match=rf"a\.zarr.*{name} claims 4\.47 GiB, of a store of"):
            read(path)


def test_a_chunk_may_claim_no_more(tmp_path):
    path = write_claim(tmp_path / "a.zarr", ".zarray", shape=[9, 9, 3], chunks=[40_000, 40_000, 3])
    with pytest.raises(ValueError, match="claims"):
        open_image(path)
    path = write_claim(tmp_path / "b.zarr", ".zarray", shape=[9], dtype="<U100000000", chunks=[9])
    with pytest.raises(ValueError, match="claims"):
        check_store(path)


def test_many_small_claims_are_one(tmp_path):
    for i in range(100):
        write_claim(tmp_path / f"a{i}", ".zarray", shape=[10**7])
    with pytest.raises(ValueError, match="claims"):
        check_store(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["compressor", "filters", "codecs"])
def test_codecs_that_run_code_are_refused(name, place, tmp_path):
    codec = {"id": "pickle", "name": "numcodecs.pickle"}
    change = {place: codec if place == "compressor" else [codec]}
    path = write_claim(tmp_path / "a.zarr", name, shape=[9, 9, 3], **change)
    with pytest.raises(ValueError, match="pickle, which could run code"):
        open_image(path)


@pytest.fixture
def store(tmp_path):
    adata = make_tissue(60, 3, n_genes=20, random_state=0)
    adata.uns.pop("spatial", None)
    adata.layers["none"] = np.zeros((60, 20), np.float32)
    adata.write_zarr(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_whole_stores_are_read(store, tmp_path):
    assert io.read_section(store).shape == (60, 20)
    packed = tmp_path / "b.zarr.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(store.rglob("*")):
            file.write(path, path.relative_to(store))
    check_store(packed)
    assert io.read_section(packed).shape == (60, 20)


def test_links_in_a_store_are_refused(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100)
    (store / "uns" / "c").symlink_to(secret)
    with pytest.raises(OSError, match=r"uns/c' is a link, which could bring in any file"):
        io.read_section(store)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_pipes_in_a_store_are_refused(store):
    chunk = next(path for path in (store / "obsm").rglob("*") if path.name in ("0.0", "0"))
    while chunk.is_dir():
        chunk = next(chunk.iterdir())
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(OSError, match="is a named pipe"):
        io.read_section(store)


def test_a_zip_file_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(3):
            file.writestr(f"X/{i}", b"\0" * 10**7)
    check_store(tmp_path / "a.zip")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (4 * 10**9).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(ValueError, match="claims more than it could unpack"):
        check_store(tmp_path / "b.zip")
