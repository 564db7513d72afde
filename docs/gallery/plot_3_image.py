"""
Image features
==============

A patch of the tissue image around each spot, described by numbers; whether it lies where it should;
and whether it helped.
"""

# %%
# A section whose genes hardly tell some of its domains apart, while the image does. Real tissue
# is seldom so obliging: see :doc:`/evidence`.

from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer, io
from skiehercl.datasets import make_tissue

adata = make_tissue(800, n_domains=5, n_genes=200, random_state=0)
truth = adata.obs["domain"]

# %%
# Do the spots lie on the tissue?
# -------------------------------
# A wrong scale factor or swapped axes go unnoticed in tables and ruin the features. Look before
# you compute. Spots outside the image would be red.

from skiehercl.plotting import plot_placement

axes = plot_placement(adata, patch_size=40)

# %%
# Describe the patches
# --------------------
# :func:`~skiehercl.io.section_image_features` finds image, scale and patch size in the AnnData.
# By default :class:`~skiehercl.image.ColorTextureFeaturizer` describes colour, stain and texture:
# no network, no weights.

features = io.section_image_features(adata)
features.shape

# %%
# The paper's ResNet50 is :class:`~skiehercl.ResNet50PatchFeaturizer`; pass it as ``featurizer=``.
# Its weights come from torchvision, or from a file where there is no network (:doc:`/faq`)::
#
#     featurizer = ResNet50PatchFeaturizer(weights="resnet50.pth")
#     features = io.section_image_features(adata, featurizer)
#
# With and without
# ----------------
# ``fit`` reads ``obsm["X_image"]`` if it is there. The image is used only where it adds to what
# the neighbours' genes tell of a spot, beyond chance; ``image_evidence_`` is that gain. Otherwise
# the domains are exactly those without it.

without = IEHERCLClusterer(5, random_state=0).fit(adata)
adata.obsm["X_image"] = features
model = IEHERCLClusterer(5, random_state=0).fit(adata)

print(f"without the image: ARI {adjusted_rand_score(truth, without.labels_):.2f}")
print(f"with the image:    ARI {adjusted_rand_score(truth, model.labels_):.2f}")
print(f"evidence: {model.image_evidence_:+.3f} ± {model.image_evidence_error_:.3f}")

# %%
# Who looked where: the weight that the model gives to the image at each spot.

from skiehercl.plotting import plot_attention

ax = plot_attention(adata, {"modality": model.attention_["modality"]})

# %%
# Is it the image, or chance?
# ---------------------------
# :func:`~skiehercl.report.image_report` fits without the image, with it, with it alone, and with
# the patches dealt out at random. What a shuffled image gains is no merit of the image.

from skiehercl.report import image_report

report = image_report(adata, estimator=IEHERCLClusterer(5), truth=truth, seeds=[0])
print(report.verdict)
report.scores[["run", "ARI"]].round(2)
