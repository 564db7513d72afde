import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skiehercl
from skiehercl import (
    IEHERCLClusterer,
    NonSpatialClusterer,
    SmoothedMixture,
)
from skiehercl._utils._display import REPOSITORY
from skiehercl.image import ColorTextureFeaturizer, PatchExtractor, ResNet50PatchFeaturizer
from skiehercl.preprocessing import ExpressionPreprocessor

PIXEL = 137  # one brightness, so that any pixel shown is found
IMAGE = np.full((230, 247, 3), PIXEL, dtype=np.uint8)
COORDS = np.array([[20.0, 30.0], [100.0, 60.0], [200.0, 210.0]])
SHORT = "array (230, 247, 3) uint8"
IMAGES = [PatchExtractor, ColorTextureFeaturizer, ResNet50PatchFeaturizer]


def shown_html(estimator):
    html = re.sub(r"<(style|script)>.*?</\1>", "", estimator._repr_html_(), flags=re.DOTALL)
    return re.sub(r"<span class=\"param-doc-description\".*?</span>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize("cls", IMAGES)
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in a pipeline"])
def test_an_image_is_shown_by_its_shape(cls, nested):
    estimator = cls(image=IMAGE)
    if nested:
        estimator = make_pipeline(estimator, StandardScaler())
    for text in (repr(estimator), shown_html(estimator)):
        assert SHORT in text and str(PIXEL) not in text


def test_a_fitted_image_is_shown_by_its_shape():
    estimator = PatchExtractor(IMAGE, patch_size=8).fit(COORDS)
    assert str(PIXEL) not in shown_html(estimator) + repr(estimator)


@pytest.mark.parametrize("cls", IMAGES)
def test_showing_changes_no_parameter(cls):
    estimator = cls(image=IMAGE, patch_size=9)
    repr(estimator), estimator._repr_html_()
    assert estimator.get_params()["image"] is estimator.image is IMAGE
    assert type(estimator) is cls
    np.testing.assert_array_equal(clone(estimator).image, IMAGE)


def test_other_parameters_are_shown_as_by_scikit_learn():
    assert repr(PatchExtractor()) == "PatchExtractor()"
    expected = "PatchExtractor(image='slide.tif', patch_size=9)"
    assert repr(PatchExtractor("slide.tif", patch_size=9)) == expected
    long = repr(PatchExtractor("folder/" * 20, patch_size=55, scale=0.125, dtype="float32"))
    assert max(map(len, long.split("\n"))) < 170 and long.count("\n") >= 1


@pytest.mark.parametrize(
    "cls",
    [
        *(IEHERCLClusterer, SmoothedMixture, NonSpatialClusterer, ExpressionPreprocessor, *IMAGES),
        *(cls for cls in vars(skiehercl.graph).values() if isinstance(cls, type)),
    ],
)
def test_the_documentation_link_names_the_file_of_the_class(cls):
    link = cls()._get_doc_link()
    assert f'href="{link}"' in cls()._repr_html_()
    repository, path = link.split("/blob/main/")
    assert repository == REPOSITORY
    root = skiehercl.__path__[0].removesuffix("skiehercl")
    with open(root + path, encoding="utf-8") as file:
        assert f"class {cls.__name__}(" in file.read()


def test_classes_of_others_have_no_link():
    class Own(PatchExtractor):
        pass

    Own.__module__ = "own"
    assert Own()._get_doc_link() == ""
