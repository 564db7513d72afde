"""K-means, Gaussian mixture, Leiden, SmoothedMixture and IE-HERCL in the same search.

    python benchmarks/compare.py --section dlpfc_151673 --clusters 5 7 9

Each method goes through the same GridSearchCV with the same scorer; the grid is over the number of
domains, and over two lambdas and t of IE-HERCL with ``--full``. The table says what the truth would
choose (ARI) and what the spatial coherence chooses without it (PAS). Leiden takes part if
``igraph`` and ``leidenalg`` are installed.
"""

import argparse
import importlib.util
import warnings

import pandas as pd
import sklearn
from accuracy import SECTIONS, load
from baselines import Leiden
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skiehercl import IEHERCLClusterer, SmoothedMixture
from skiehercl._spots._kind import recognise_input
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import WholeSectionSplit, compare_choices
from skiehercl.preprocessing import ExpressionPreprocessor


def list_models(kind, clusters, full):
    """Return name: (estimator, grid) of each method."""

    def components(n):
        counts = ExpressionPreprocessor(n_components=n, random_state=0)
        return counts if kind == "counts" else PCA(n, random_state=0)

    kmeans = make_pipeline(components(30), KMeans(n_init=10, random_state=0))
    mixture = make_pipeline(components(15), GaussianMixture(covariance_type="tied", random_state=0))
    leiden = make_pipeline(components(30), Leiden())
    grid = {"n_clusters": clusters}
    lambdas = {"lambda_rec": [1.0, 10.0], "lambda_contrast": [0.0, 0.1], "walk_length": [1, 5, 9]}
    models = {
        "K-means": (kmeans, {"kmeans__n_clusters": clusters}),
        "Gaussian mixture": (mixture, {"gaussianmixture__n_components": clusters}),
        "Leiden": (leiden, {"leiden__n_clusters": clusters}),
        "SmoothedMixture": (SmoothedMixture(random_state=0), grid),
        "IE-HERCL": (IEHERCLClusterer(random_state=0), grid | lambdas if full else grid),
    }
    if not (importlib.util.find_spec("leidenalg") and importlib.util.find_spec("igraph")):
        del models["Leiden"]
    return models


def search_all(models, X, y, coords):
    """Return name: fitted search of each method: the one cell of code."""
    scorer = make_domain_scorer(["ari", "nmi", "blind_neg_pas", "blind_morans_i"])
    with sklearn.config_context(enable_metadata_routing=True):
        return {
            name: GridSearchCV(
                model, grid, scoring=scorer, refit="ari", cv=WholeSectionSplit()
            ).fit(X, y, coords=coords)
            for name, (model, grid) in models.items()
        }


def main():
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--section", choices=SECTIONS, default="starmap_mpfc_bz5")
    parser.add_argument("--clusters", type=int, nargs="+", help="default: the true number")
    parser.add_argument("--full", action="store_true", help="search IE-HERCL's lambdas and t too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    adata = load(args.section, 0)
    kind = recognise_input(adata.X, "auto")
    models = list_models(kind, args.clusters or [SECTIONS[args.section]], args.full)
    searches = search_all(models, adata.X, adata.obs["domain"], adata.obsm["spatial"])
    tables = []
    for name, search in searches.items():
        table = compare_choices(search).rename_axis("chosen by").reset_index()
        table["parameters"] = [str(search.cv_results_["params"][i]) for i in table["candidate"]]
        seconds = search.cv_results_["mean_fit_time"][table["candidate"]]
        tables.append(table.assign(method=name, seconds=seconds))
    table = pd.concat(tables)
    table = table[table["chosen by"].isin(["ari", "blind_neg_pas"])]
    columns = ["method", "chosen by", "chosen", "parameters", "ari", "nmi", "blind_neg_pas"]
    columns += ["blind_morans_i", "seconds"]
    print(f"\n{args.section}\n\n" + table[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
