"""What a notebook shows of a fitted clusterer."""

import numpy as np
import pytest

from skiehercl import ConsensusMixture, IEHERCLClusterer
from skiehercl.datasets import make_tissue


def test_html_tells_the_sizes_of_the_domains():
    X = np.random.RandomState(0).normal(size=(120, 4)) + np.repeat([0, 9], [80, 40])[:, None]
    model = ConsensusMixture(2, random_state=0)
    assert "<th>spots</th>" not in model._repr_mimebundle_()["text/html"]
    model.fit(X)
    html = model._repr_mimebundle_()["text/html"]
    assert ">80</td>" in html and ">40</td>" in html
    assert "<p>image:" not in html
    assert ">80</td>" in model._repr_html_()


@pytest.mark.parametrize("prior", [0.3, "auto"])
def test_html_tells_the_part_of_the_image(prior):
    tissue = make_tissue(200, 3, n_genes=40, return_arrays=True, random_state=0)
    noise = np.random.RandomState(0).normal(size=(200, 5))
    model = IEHERCLClusterer(3, random_state=0, max_iter=2).set_params(features__image_prior=prior)
    html = model.fit(tissue.X, tissue.coords, noise)._repr_html_()
    assert ("image: left out" in html) == (prior == "auto")
    assert ("of the attention" in html) == (prior != "auto")
