"""Whole files made hostile, with digests that fit: links, pipes, claims, collisions; for `fuzz`."""

import gzip
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np

from ._damage import FILES, IMAGES, MODELS, find_target, make_section, write_whole

# Kind: the kind of files that it is made of.
BASES = {
    "h5ad hostile": "h5ad",
    "10x h5 hostile": "10x h5",
    "mtx hostile": "mtx gzip",
    "zarr hostile": "zarr",
    "OME-TIFF hostile": "OME-TIFF",
    "PNG hostile": "PNG",
    "model hostile": "mixture",
}
MARK, GREY, SITE = 987654.25, 77, "hostile.example"  # what no file may bring in
_MOST_MEMORY = 500 * 2**20


def write_base(base, folder):
    """Write the whole files, and beside them those that no other may bring in."""
    import h5py
    import tifffile

    if base == "zarr":
        folder.mkdir(parents=True)
        make_section().write_zarr(folder / "section.zarr")
    else:
        write_whole(base, folder)
    secret = folder / "secret"
    secret.mkdir()
    with h5py.File(secret / "secret.h5", "w") as file:
        file["secret"] = np.full(64, MARK)
    np.full(64, MARK).tofile(secret / "secret.raw")
    tifffile.imwrite(secret / "secret.tif", np.full((96, 96, 3), GREY, np.uint8))


def find_opened(base, folder):
    """Return what a user would pass to open a kind's folder."""
    return Path(folder) / "section.zarr" if base == "zarr" else find_target(base, folder)


def attack_copy(kind, whole, folder, rng):
    """Copy a whole folder, make it hostile and return a line on what was done."""
    base = BASES[kind]
    shutil.copytree(whole, folder)
    attack = rng.choice(_ATTACKS[base])
    return f"{attack.__name__.strip('_')}: {attack(base, folder, rng)}"


def holds_mark(base, opened):
    """Whether what was opened holds other files' content or code of the file's."""
    if base in MODELS:
        return SITE in opened._repr_html_()
    if base in IMAGES:
        return bool((np.asarray(opened) == GREY).mean() > 0.3)
    return any(_holds_number(value) for value in (opened.uns, opened.obsm, opened.layers))


def limit_memory(target):
    """Return the bytes that opening may take: ten times the files and 500 MB."""
    paths = [path for path in [target, *target.rglob("*")] if path.is_file()]
    return _MOST_MEMORY + 10 * sum(path.stat().st_size for path in paths)


def _holds_number(value):
    if hasattr(value, "values") and hasattr(value, "keys"):
        return any(_holds_number(value[key]) for key in value)
    floats = getattr(getattr(value, "dtype", None), "kind", None) == "f"
    return floats and bool((np.asarray(value) == MARK).any())


def _pipes(base, folder, rng):
    target = find_opened(base, folder)
    files = [folder / name for name in dict.fromkeys(FILES.get(base, ()))]
    files = files or sorted(path for path in target.rglob("*") if path.is_file())
    path = rng.choice(files)
    path.unlink()
    os.mkfifo(path)
    return path.relative_to(folder)


def _open_hdf5(base, folder):
    import h5py

    file = h5py.File(folder / FILES[base][0], "r+")
    return file, file["uns"] if "uns" in file else file.create_group("uns")


def _links(base, folder, rng):
    import h5py

    file, group = _open_hdf5(base, folder)
    other = rng.choice(["secret/secret.h5", str(folder / "secret" / "secret.h5")])
    way = rng.choice(["link", "soft", "external", "virtual"])
    with file:
        if way == "virtual":
            layout = h5py.VirtualLayout((64,), "f8")
            layout[:] = h5py.VirtualSource(other, "secret", shape=(64,))
            group.create_virtual_dataset("more", layout)
        elif way == "external":
            raw = other.replace(".h5", ".raw")
            group.create_dataset("more", (64,), "f8", external=[(raw, 0, 512)])
        else:
            group["a"] = h5py.ExternalLink(other, "/" if way == "soft" else "/secret")
            if way == "soft":
                group["more"] = h5py.SoftLink("/uns/a/secret")
    return way


def _claims(base, folder, rng):
    import h5py

    file, group = _open_hdf5(base, folder)
    way = rng.choice(["array", "text", "paths", "circle", "arrays"])
    with file:
        if way == "array":
            group.create_dataset("more", (rng.randrange(10**8, 10**12),), "f8", chunks=(1000,))
        elif way == "text":
            n, text = rng.randrange(20_000, 200_000), "x" * rng.randrange(50_000, 500_000)
            kind = h5py.string_dtype()
            group.create_dataset("more", (n,), kind, chunks=(n,), fillvalue=text)
        elif way == "arrays":
            group.create_dataset("more", (2**21,), "f8", chunks=(2**20,))
            for i in range(rng.randrange(100, 400)):
                group[f"more{i}"] = group["more"]
        elif way == "circle":
            group["more"] = rng.choice([h5py.SoftLink("/"), file["/"]])
        else:
            for _ in range(rng.randrange(25, 40)):
                inner = group.create_group("a")
                group["b"] = inner
                group = inner
    return way


def _bombs(base, folder, rng):
    name = rng.choice(["matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"])
    line = rng.choice([b"1 1\n", b"a\n", b"\0", b"A" * 50 + b"\n"])
    n_bytes = rng.randrange(2**27, 2**30)
    path = folder / "filtered_feature_bc_matrix" / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        block = line * (2**20 // len(line))
        for _ in range(n_bytes // len(block)):
            file.write(block)
    return f"{name} of {n_bytes} bytes"


def _stores(base, folder, rng):
    store = find_opened(base, folder)
    names = (".zarray", "zarr.json", ".zmetadata")
    texts = [path for path in store.rglob("*") if path.name in names]
    path = rng.choice(sorted(path for path in texts if b'"shape"' in path.read_bytes()))
    way = rng.choice(["shape", "chunks", "pickle", "link"])
    if way == "link":
        target = rng.choice([store, folder / "secret" / "secret.raw"])
        (store / "uns" / "more").symlink_to(target)
        return way
    text, n = path.read_text(), rng.randrange(10**9, 10**13)
    if way == "pickle":
        codec = '"filters": [{"id": "pickle"}], "more": ['
        text = re.sub(r'"filters": null', codec + "]", text)
        text = re.sub(r'"codecs": \[', codec, text)
    else:
        key = "shape" if way == "shape" else rng.choice(["chunks", "chunk_shape"])
        text = re.sub(rf'"{key}": \[[^\]]*\d', f'"{key}": [{n}', text, count=1)
    path.write_text(text)
    return f"{way} of {path.relative_to(store)}"


def _companions(base, folder, rng):
    import tifffile

    path = folder / FILES[base][0]
    name = rng.choice(["secret/secret.tif", str(folder / "secret" / "secret.tif")])
    size, count = rng.choice([(2, 1), (2, 1), (10**9, 10**9), (2, 10**12)])
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="96" '
        f'SizeY="96" SizeC="{size}" SizeZ="1" SizeT="1"><TiffData IFD="0" FirstC="0" PlaneCount='
        f'"1"/><TiffData IFD="0" FirstC="1" PlaneCount="{count}"><UUID FileName="{name}">urn:uuid:1'
        "</UUID></TiffData></Pixels></Image></OME>"
    )
    tifffile.imwrite(path, np.zeros((96, 96), np.uint8), description=xml, metadata=None)
    return f"{name}, {size}, {count}"


def _formats(base, folder, rng):
    import io

    from PIL import Image

    path, other = folder / FILES[base][0], rng.choice(["eps", "ppm", "gif", "text", "size"])
    if other == "eps":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n%%EOF")
    elif other == "size":
        content = bytearray(path.read_bytes())
        content[16:24] = np.array(rng.sample(range(10**4, 10**5), 2), ">u4").tobytes()
        path.write_bytes(content)
    elif other == "text":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        for i in range(8):
            info.add_text(f"k{i}", "x" * 2**26, zip=True)
        Image.new("RGB", (64, 64)).save(path, "PNG", pnginfo=info)
    else:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (GREY,) * 3).save(buffer, other)
        path.write_bytes(buffer.getvalue())
    return other


def _forged(base, folder, rng):
    """Set an attribute or change a value of a model's object, and give the file its digest."""
    estimator, seal = _open_model(folder / FILES[base][0])
    states = [estimator["state"], *_find_states(estimator)]
    state = rng.choice(states)
    way = rng.choice(["set", "set", "change", "collide"])
    names = ["_doc_link_template", "_doc_link_module", "_repr_html_", "fit", "__class__", "_parts"]
    name, value = rng.choice(names), f"https://{SITE}/<script>"
    if way == "change":
        name = rng.choice(list(state))
        value = rng.choice([None, -1, 10**12, "x", [], {"type": "range", "items": [0, 10**18, 1]}])
    elif way == "collide":
        keys = [i * (2**61 - 1) for i in range(60_000)]
        value = {"type": "dict", "items": [[key, 0] for key in keys]}
        name = rng.choice([*state, "extra_"])
    state[name] = value
    seal()
    return f"{way} {name}"


def _open_model(path):
    """Return the estimator in a file, its states as dicts, and what writes it back."""
    from safetensors.numpy import load, save

    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    estimator, tensors = json.loads(header["content"]), load(content)
    for node in list(_find_states(estimator, raw=True)):
        node["items"] = dict(node["items"])

    def seal():
        for node in list(_find_states(estimator, raw=True)):
            node["items"] = list(node["items"].items())
        text = {**header, "content": json.dumps(estimator), "sha256": "0" * 64}
        new = save(tensors, text)
        digest = hashlib.sha256(new).hexdigest().encode()
        path.write_bytes(new.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest, 1))

    return estimator, seal


def _find_states(node, raw=False):
    """Yield the attributes of all objects in an estimator."""
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and node.get("type") == "object" and "items" in node["state"]:
        yield node["state"] if raw else node["state"]["items"]
    for value in values:
        yield from _find_states(value, raw)


_ATTACKS = {
    "h5ad": [_links, _links, _claims, _claims, _pipes],
    "10x h5": [_links, _links, _claims, _claims, _pipes],
    "mtx gzip": [_bombs, _pipes],
    "zarr": [_stores, _stores, _pipes],
    "OME-TIFF": [_companions, _companions, _pipes],
    "PNG": [_formats, _formats, _pipes],
    "mixture": [_forged, _forged, _forged, _pipes],
}
