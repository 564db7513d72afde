"""Whole files of every kind that enters, and what chance does to them: for `fuzz`."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np

# Kind: the files in its folder that may be damaged, each as often as it is named.
FILES = {
    "h5ad": ["section.h5ad"],
    "h5ad gzip": ["section.h5ad"],
    "10x h5": ["filtered_feature_bc_matrix.h5"],
    "mtx": [
        *["filtered_feature_bc_matrix/matrix.mtx"] * 3,
        "filtered_feature_bc_matrix/barcodes.tsv",
        "filtered_feature_bc_matrix/features.tsv",
        "spatial/tissue_positions.csv",
        "spatial/scalefactors_json.json",
    ],
    "mtx gzip": [
        *["filtered_feature_bc_matrix/matrix.mtx.gz"] * 2,
        "filtered_feature_bc_matrix/barcodes.tsv.gz",
        "filtered_feature_bc_matrix/features.tsv.gz",
        *["spatial/tissue_positions.parquet"] * 2,
        "spatial/tissue_hires_image.png",
    ],
    "TIFF": ["image.tiff"],
    "TIFF tiled": ["image.tiff"],
    "OME-TIFF": ["image.ome.tiff"],
    "PNG": ["image.png"],
    "JPEG": ["image.jpg"],
    "model": ["model.safetensors"],
    "mixture": ["model.safetensors"],
}
SECTIONS, IMAGES, MODELS = list(FILES)[:5], list(FILES)[5:10], list(FILES)[10:]
SPOTS = {"n_spots": 60, "n_domains": 3, "n_genes": 20, "n_domain_genes": 4, "random_state": 0}
_MATRIX = "filtered_feature_bc_matrix"


def make_section():
    """Return the AnnData that all sections are of."""
    from skiehercl.datasets import make_tissue

    return make_tissue(**SPOTS, pixel_size=2.0, max_image_side=96)


def write_whole(kind, folder):
    """Write a kind's files into a new folder."""
    folder.mkdir(parents=True)
    if kind in MODELS:
        _write_model(kind, folder / "model.safetensors")
    elif kind in IMAGES:
        _write_image(kind, folder / FILES[kind][0])
    elif kind.startswith("h5ad"):
        compression = "gzip" if kind.endswith("gzip") else None
        make_section().write_h5ad(folder / "section.h5ad", compression=compression)
    else:
        _write_space_ranger(kind, folder)


def _write_space_ranger(kind, folder):
    import pandas as pd
    from PIL import Image

    adata, spatial = make_section(), folder / "spatial"
    spatial.mkdir()
    barcodes, genes = [f"SPOT{i}-1" for i in range(adata.n_obs)], list(adata.var_names)
    table = pd.DataFrame({"barcode": barcodes, "in_tissue": 1})
    table["array_row"], table["array_col"] = adata.obs["array_row"].to_numpy(), range(adata.n_obs)
    table[["pxl_row_in_fullres", "pxl_col_in_fullres"]] = adata.obsm["spatial"][:, ::-1]
    if kind == "mtx gzip":
        table.to_parquet(spatial / "tissue_positions.parquet")
    else:
        table.to_csv(spatial / "tissue_positions.csv", index=False)
    (entry,) = adata.uns["spatial"].values()
    (spatial / "scalefactors_json.json").write_text(json.dumps(entry["scalefactors"]))
    Image.fromarray(entry["images"]["hires"]).save(spatial / "tissue_hires_image.png")
    if kind == "10x h5":
        _write_10x(folder / f"{_MATRIX}.h5", adata.X.tocsr(), barcodes, genes)
    else:
        _write_mtx(folder / _MATRIX, adata.X.tocoo(), barcodes, genes, kind.endswith("gzip"))


def _write_10x(path, counts, barcodes, genes):
    import h5py

    packed = {"compression": "gzip", "chunks": True}
    with h5py.File(path, "w") as file:
        file.attrs["library_ids"] = np.array([b"sample"])
        group = file.create_group("matrix")
        group.create_dataset("data", data=counts.data.astype(np.int32), **packed)
        group.create_dataset("indices", data=counts.indices, **packed)
        group.create_dataset("indptr", data=counts.indptr, **packed)
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        group.create_dataset("barcodes", data=np.array(barcodes, dtype="S"), **packed)
        features = group.create_group("features")
        features["id"] = features["name"] = np.array(genes, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * len(genes), dtype="S")


def _write_mtx(folder, counts, barcodes, genes, packed):
    folder.mkdir()
    lines = ["%%MatrixMarket matrix coordinate integer general", "%"]
    lines.append(f"{len(genes)} {len(barcodes)} {counts.nnz}")
    entries = zip(counts.col, counts.row, counts.data, strict=True)
    lines += [f"{gene + 1} {spot + 1} {int(count)}" for gene, spot, count in entries]
    features = [f"{gene}\t{gene}\tGene Expression" for gene in genes]
    tables = {"matrix.mtx": lines, "barcodes.tsv": barcodes, "features.tsv": features}
    for name, rows in tables.items():
        content = ("\n".join(rows) + "\n").encode()
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)


def _write_image(kind, path):
    (entry,) = make_section().uns["spatial"].values()
    pixels = entry["images"]["hires"]
    if "TIFF" not in kind:
        from PIL import Image

        Image.fromarray(pixels).save(path, quality=90)
        return
    import tifffile

    options = {"photometric": "rgb", "compression": "zlib", "resolution": (5000, 5000)}
    options |= {"resolutionunit": "CENTIMETER"}
    if kind == "TIFF":
        options |= {"compression": None, "rowsperstrip": 16}
    elif kind == "TIFF tiled":
        options |= {"tile": (32, 32)}
    else:
        scale = {"PhysicalSizeX": 2.0, "PhysicalSizeY": 2.0}
        options |= {"tile": (32, 32), "compression": "lzw", "metadata": {"axes": "YXS", **scale}}
    tifffile.imwrite(path, pixels, **options)


def _write_model(kind, path):
    from skiehercl import IEHERCLClusterer, SmoothedMixture

    adata = make_section()
    model = SmoothedMixture(3, random_state=0)
    if kind == "model":
        model = IEHERCLClusterer(3, n_init=1, max_iter=2, random_state=0, device="cpu")
    model.fit(adata.X, coords=adata.obsm["spatial"]).save(path)


# ---- damage ------------------------------------------------------------------------------------


def damage_copy(kind, whole, folder, rng):
    """Copy a whole folder, damage one of its files and return a line on what was done."""
    if whole != folder:
        shutil.copytree(whole, folder)
    path = folder / rng.choice(FILES[kind])
    content, told = damage(path.read_bytes(), rng)
    path.write_bytes(content)
    return f"{path.relative_to(folder)}: {told}"


def damage(content, rng):
    """Return a file's bytes, not as they were, and what was done to them."""
    broken, told = content, []
    while broken == content or rng.random() < 0.15:
        change = rng.choice(_CHANGES)
        broken, what = change(broken, rng)
        told.append(what)
    return broken, ", ".join(told)


def _draw_place(content, rng):
    """Return a position: anywhere, or in the first bytes, where headers are."""
    most = len(content) if rng.random() < 0.7 else min(len(content), 600)
    return rng.randrange(max(most, 1))


def _flip(content, rng):
    broken, places = bytearray(content), []
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if content else 0):
        places.append(_draw_place(content, rng))
        broken[places[-1]] ^= 1 << rng.randrange(8)
    return bytes(broken), f"bits flipped at {places}"


def _truncate(content, rng):
    end = rng.randrange(len(content) + 1)
    return content[:end], f"cut at {end}"


def _append(content, rng):
    more = rng.randbytes(rng.choice((1, 10, 1000)))
    return content + more, f"{len(more)} bytes appended"


def _fill(content, rng):
    start, length = _draw_place(content, rng), rng.choice((1, 4, 8, 64, 512, 4096))
    length = min(length, len(content) - start)
    name, block = rng.choice(
        (("random", rng.randbytes(length)), ("0", bytes(length)), ("255", b"\xff" * length))
    )
    return content[:start] + block + content[start + length :], f"{name} at {start}+{length}"


def _swap(content, rng):
    length = rng.choice((2, 8, 64, 512))
    if len(content) < 2 * length:
        return content, "nothing swapped"
    one = rng.randrange(len(content) - 2 * length + 1)
    other = rng.randrange(one + length, len(content) - length + 1)
    first, second = content[one : one + length], content[other : other + length]
    parts = content[:one], second, content[one + length : other], first, content[other + length :]
    return b"".join(parts), f"{length} bytes swapped at {one} and {other}"


def _remove(content, rng):
    start, length = _draw_place(content, rng), rng.choice((1, 8, 512))
    return content[:start] + content[start + length :], f"removed {start}+{length}"


_CHANGES = (_flip, _flip, _truncate, _append, _fill, _fill, _swap, _remove)


def find_target(kind, folder):
    """Return what a user would pass to open a kind's folder."""
    return (
        Path(folder)
        if "section.h5ad" not in FILES[kind] and kind in SECTIONS
        else (Path(folder) / FILES[kind][0])
    )
