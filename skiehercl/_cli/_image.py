"""The image of a section, as the options of the command line have it."""

from .. import SpotLayout, io
from ..image import ResNet50PatchFeaturizer

__all__ = ["check_image_options", "take_image"]

_COMPUTED = SpotLayout().image_key


def check_image_options(args):
    """Raise a ValueError for options that contradict each other."""
    if args.weights and not args.backbone:
        raise ValueError("--weights needs its network: add --backbone, such as resnet50")
    for option in ("patch_size", "library"):
        if getattr(args, option) and (args.no_image or args.image_features):
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is for computing image features: leave it out")


def take_image(adata, path, args, say, section_key=None):
    """Return the key of image features in `adata`, where computed ones are kept, or None."""
    if args.no_image:
        say("image: left out")
        return None
    key = args.image_features
    if key is None:
        features = _describe_image(adata, args, say, section_key)
        if features is not None:
            adata.obsm[_COMPUTED] = features
            return _COMPUTED
        if args.backbone or args.patch_size or args.library:
            raise ValueError(
                f"{path!r} has no image in uns['spatial'] to describe: leave out --backbone, "
                "--patch-size and --library"
            )
        if _COMPUTED not in adata.obsm:
            say("image: none is used")
            return None
        key = _COMPUTED
    if key not in adata.obsm:
        raise ValueError(
            f"--image-features {key!r} is not in obsm, which has: {', '.join(sorted(adata.obsm))}"
        )
    say(f"image: ready features in obsm[{key!r}]")
    return key


def _describe_image(adata, args, say, section_key):
    """Return features (n, d) of the image, or of each section's own, or None if there is none."""
    featurizer = None
    if args.backbone:
        featurizer = ResNet50PatchFeaturizer(
            args.backbone,
            args.weights or "DEFAULT",
            device=args.device,
            random_state=args.seed,
            verbose=not args.quiet,
        )
    try:
        features = io.section_image_features(
            adata,
            featurizer,
            args.patch_size,
            library=args.library,
            section_key=section_key,
            skip_coarse=not (args.backbone or args.library),
            verbose=not args.quiet,
        )
    except ValueError as error:
        raise ValueError(f"{error}; or leave the image out, --no-image") from error
    if features is not None and featurizer is None:
        say("(colour and texture statistics; the paper's network: --backbone resnet50)")
    return features
