"""The paper's settings as changes of its preset, and what it prints for them."""

from itertools import product

SECTIONS = [  # those of which the paper has the tissue, and two others
    "hbc_blockA_sec1_pca200",
    "starmap_visual_cortex",
    "dlpfc_151673",
    "dlpfc_151674",
    "dlpfc_151507_pca200",
    "dlpfc_151508_pca200",
    "dlpfc_151669_pca200",
    "dlpfc_151672_pca200",
    "mob_st_rep11",
]
QUICK_SECTIONS = ("mob_st_rep11", "starmap_visual_cortex")
# Sections on which all settings run; the others get the preset and the defaults.
TABLE_SECTIONS = ("hbc_blockA_sec1_pca200", "starmap_visual_cortex")
DEFAULTS, PRESET = "defaults", "preset"
ABLATIONS = {
    "without L_c": {"lambda_contrast": 0.0},
    "without L_s": {"lambda_ot": 0.0},
    "without the walk": {"walk_length": 0},
    "without the AE view": {"network__views": "sage"},
    "without the GraphSAGE view": {"network__views": "ae"},
    "without attention": {"network__attention": False},
}
# t = 5 and lambdas 10, 1e-3, 1 are the preset's.
LENGTHS = {f"t={t}": {"walk_length": t} for t in range(1, 16, 2)}
LAMBDAS = {
    f"lambdas {rec:g}, {contrast:g}, {ot:g}": {
        "lambda_rec": rec,
        "lambda_contrast": contrast,
        "lambda_ot": ot,
    }
    for rec, contrast, ot in product((1.0, 10.0), (1e-4, 1e-3), (0.1, 1.0))
}
PRESET_TOO = ("t=5", "lambdas 10, 0.001, 1")
PRETRAINED = "image by EfficientNet-lite0"
SETTINGS = {
    PRESET: {},
    **{k: v for k, v in {**ABLATIONS, **LENGTHS, **LAMBDAS}.items() if k not in PRESET_TOO},
    PRETRAINED: {},
}
QUICK_SETTINGS = (DEFAULTS, PRESET, "without L_c", "t=9")

# What the paper prints (ARI): breast cancer with its image, but for the three of Lung 9-1, FOV 2.
PAPER_PRESET = {"hbc_blockA_sec1_pca200": 0.6074, "dlpfc_151673": 0.6247}
PAPER_FULL = {"hbc": 0.6279, "lung": 0.6970}
PAPER_ABLATIONS = {
    "without L_c": ("hbc", 0.5344),
    "without L_s": ("hbc", 0.6120),
    "without the walk": ("hbc", 0.5582),
    "without the AE view": ("lung", 0.6401),
    "without the GraphSAGE view": ("lung", 0.6322),
    "without attention": ("lung", 0.6518),
}
PAPER_BACKBONES = {
    "ResNet34": 0.6018,
    "ResNet50": 0.6279,
    "ResNet101": 0.6229,
    "VGG16": 0.6308,
    "VGG19": 0.6234,
    "DenseNet121": 0.6250,
    "EfficientNet-B0": 0.6473,
}
