"""Is the pipeline as good as the clusterer alone? ARI of both, on counts of real sections.

    python benchmarks/pipeline_form.py [--seeds 3] [--sections NAME ...]

The pipeline's preprocessor logs the counts and the clusterer behind it turns them back, so that
both pool counts before the logarithm. The folder of the sections is that of accuracy.py.
"""

import argparse
import warnings

import numpy as np
import sklearn
from accuracy import SECTIONS, load
from sklearn.pipeline import make_pipeline

from skiehercl import IEHERCLClusterer
from skiehercl.metrics import domain_scores
from skiehercl.preprocessing import ExpressionPreprocessor


def main():
    """Print a line for each section and seed, and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ["dlpfc_151673", "starmap_mpfc_bz5", "mob_st_rep11"]
    parser.add_argument("--sections", nargs="+", default=default, choices=SECTIONS)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    differences = []
    print("section               seed  counts  pipeline")
    for section in args.sections:
        adata = load(section, 0)
        coords, truth = adata.obsm["spatial"], adata.obs["domain"]
        for seed in range(args.seeds):
            clusterer = IEHERCLClusterer(SECTIONS[section], random_state=seed)
            pipeline = make_pipeline(ExpressionPreprocessor(), clusterer)
            labels = [clusterer.fit_predict(adata.X, coords)]
            with sklearn.config_context(enable_metadata_routing=True):
                labels.append(pipeline.fit_predict(adata.X, coords=coords))
            alone, piped = (domain_scores(truth, some)["ARI"] for some in labels)
            differences.append(abs(alone - piped))
            print(f"{section:20s}  {seed:4d}  {alone:6.3f}  {piped:8.3f}", flush=True)
    print(f"largest difference: {np.max(differences):.3f}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)  # of genes without counts
    main()
