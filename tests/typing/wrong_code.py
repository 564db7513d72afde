"""Mistakes that types catch: mypy tells where one of these goes unnoticed (an unused ignore)."""

import skiehercl
from skiehercl import SpatialKNNGraph
from skiehercl.datasets import make_tissue
from skiehercl.image import PatchExtractor
from skiehercl.metrics import domain_scores
from skiehercl.preprocessing import ExpressionPreprocessor

SpatialKNNGraph("six")  # type: ignore[arg-type]
SpatialKNNGraph(mode="cosine")  # type: ignore[arg-type]
SpatialKNNGraph(neighbors=6)  # type: ignore[call-arg]
PatchExtractor(pad="zeros")  # type: ignore[arg-type]
PatchExtractor().fit()  # type: ignore[call-arg]
ExpressionPreprocessor(transformation="log2")  # type: ignore[arg-type]
make_tissue(layout="square")  # type: ignore[arg-type]
score: str = domain_scores([0, 1], [0, 1])["ARI"]  # type: ignore[assignment]
plots = skiehercl.plots  # type: ignore[attr-defined]
