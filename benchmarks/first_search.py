"""The first thing a user writes: pipelines, a grid over lambda and t, ARI, K-means beside it.

    python benchmarks/first_search.py [SECTION]

Counts of a labelled section (default: starmap_mpfc_bz9) go through three pipelines of one form, a
search each, scored by scikit-learn's own ``make_scorer(adjusted_rand_score)``. Prints one table;
any warning is an error. The folder of the sections is that of accuracy.py.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
import sklearn
from accuracy import SECTIONS, load
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skiehercl import IEHERCLClusterer, SmoothedMixture
from skiehercl.model_selection import WholeSectionSplit
from skiehercl.preprocessing import ExpressionPreprocessor


def make_searches(n_clusters):
    """Return (name, pipeline, grid) of each method."""
    components = ExpressionPreprocessor(n_components=30, random_state=0)
    return [
        (
            "KMeans",
            make_pipeline(components, KMeans(n_clusters, random_state=0)),
            {"kmeans__n_init": [1, 10]},
        ),
        (
            "SmoothedMixture",
            make_pipeline(ExpressionPreprocessor(), SmoothedMixture(n_clusters, random_state=0)),
            {"smoothedmixture__n_components": [10, 15, 20]},
        ),
        (
            "IEHERCLClusterer",
            make_pipeline(ExpressionPreprocessor(), IEHERCLClusterer(n_clusters, random_state=0)),
            {
                "ieherclclusterer__lambda_contrast": [0.0, 0.1, 0.3],
                "ieherclclusterer__walk_length": [1, 5, 9],
            },
        ),
    ]


def main():
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", nargs="?", default="starmap_mpfc_bz9", choices=SECTIONS)
    section = parser.parse_args().section
    adata = load(section, 0)
    spots = adata[(adata.obs["domain"] != "NA").to_numpy()]
    counts, domains, coords = spots.X, spots.obs["domain"].to_numpy(), spots.obsm["spatial"]
    rows = []
    for name, pipeline, grid in make_searches(SECTIONS[section]):
        search = GridSearchCV(
            pipeline, grid, scoring=make_scorer(adjusted_rand_score), cv=WholeSectionSplit()
        )
        search.fit(counts, domains, coords=coords)
        for parameters, ari, seconds in zip(
            search.cv_results_["params"],
            search.cv_results_["mean_test_score"],
            search.cv_results_["mean_fit_time"],
            strict=True,
        ):
            short = {key.split("__")[1]: value for key, value in parameters.items()}
            settings = ", ".join(f"{key}={value}" for key, value in short.items())
            rows.append({"method": name, "parameters": settings, "ARI": ari, "seconds": seconds})
    table = pd.DataFrame(rows)
    table["best"] = np.where(
        table.groupby("method")["ARI"].transform("idxmax") == table.index, "*", ""
    )
    print(f"{section}: {len(domains)} spots, {SECTIONS[section]} domains, seed 0")
    print(table.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    warnings.simplefilter("error")
    # What torch says of torch_geometric, to its developers.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
    with sklearn.config_context(enable_metadata_routing=True):
        main()
