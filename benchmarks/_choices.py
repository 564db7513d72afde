"""Which candidate each score of a search would choose, with truth and blind."""

import numpy as np
import pandas as pd


def compare_choices(search):
    """Return a DataFrame with a row for each score of a fitted GridSearchCV or the like.

    Columns: "chosen" ("with truth" or "blind", by the score's name), "candidate" (its row in
    ``cv_results_``), the candidate's parameters, and what it reaches in each score. Those chosen
    with truth come first; a score that failed for all candidates is left out.
    """
    results = search.cv_results_
    means = {name[10:]: results[name] for name in results if name.startswith("mean_test_")}
    if list(means) == ["score"]:  # a single score has no name in the results
        means = {getattr(search.scorer_, "metric", "score"): means["score"]}
    rows = {}
    for name in sorted(means, key=lambda name: name.startswith("blind_")):
        if np.isnan(means[name]).all():
            continue
        best = int(np.nanargmax(means[name]))
        kind = "blind" if name.startswith("blind_") else "with truth"
        reached = {score: float(values[best]) for score, values in means.items()}
        rows[name] = {"chosen": kind, "candidate": best, **results["params"][best], **reached}
    return pd.DataFrame.from_dict(rows, orient="index")
