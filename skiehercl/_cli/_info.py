"""``skiehercl info``: what a path holds, and what a fit of it would take."""

from .. import io
from ..resources import available_memory, estimate_memory
from ._common import print_json

__all__ = ["run_info"]

_N_TEXTURE = 52  # image features that a fit makes by default


def run_info(args):
    """Print what a path holds, as lines or as JSON."""
    found, adata = io.describe_section(args.path)
    found["memory_of_fit"] = None
    if adata.X is not None:
        found["memory_of_fit"] = estimate_memory(
            adata.n_obs,
            adata.n_vars,
            density=found["density"],
            n_image_features=_N_TEXTURE if found["images"] else 0,
            n_sections=max(1, len(found["libraries"])),
        )
    found["memory_free"] = available_memory()
    if args.json:
        print_json({"path": args.path, **found, "warnings": args.warnings})
        return
    for name, told in _describe(found):
        print(f"{name:<9}{told}")


def _describe(found):
    """Yield what each line of the table is about, and what it says."""
    density = found["density"]
    stored = "dense" if density is None else f"sparse, {density:.1%} stored"
    yield "format", found["format"]
    yield "size", f"{found['n_spots']} spots x {found['n_genes']} genes, {stored}"
    yield "layers", ", ".join(found["layers"]) or "none"
    yield "obsm", ", ".join(found["obsm"]) or "none"
    yield "sections", _describe_sections(found["libraries"], found["section_key"])
    if found["spacing"] is None:
        yield "coords", "none: obsm['spatial'] is missing, which a fit needs"
    else:
        unit = found["micrometres_per_unit"]
        unit = (
            "" if unit is None else ", in micrometres" if unit == 1 else f", units of {unit:.4g} µm"
        )
        yield "coords", f"obsm['spatial']{unit}, nearest spots {found['spacing']:.4g} apart"
    for image in found["images"]:
        yield "image", _describe_image(image)
    if not found["images"]:
        yield "image", "none"
    if found["memory_of_fit"] is not None:
        free = found["memory_free"]
        free = "" if free is None else f"; {free / 2**30:.1f} GiB are free"
        yield "memory", f"a fit takes about {found['memory_of_fit'] / 2**30:.2f} GiB{free}"


def _describe_sections(libraries, key):
    if key is not None:
        return f"several, which don't touch: fit --sections {key}"
    if len(libraries) < 2:
        return "1, as far as uns['spatial'] tells; of several, fit --sections COLUMN"
    return f"{len(libraries)}: {', '.join(libraries)}; name their column, fit --sections COLUMN"


def _describe_image(image):
    if "problem" in image:
        return f"{image['library']}: {image['problem']}"
    what = image.get("file") or " x ".join(map(str, image["shape"]))
    told = f"{image['library']}: {what}, {image['pixels_per_unit']:.4g} pixels per unit of coords"
    if image["pixels_across_spot"]:
        told += f", {image['pixels_across_spot']:.1f} pixels across a spot"
    if image["micrometres_per_pixel"]:
        told += f", {image['micrometres_per_pixel']:.3g} µm per pixel"
    return told
