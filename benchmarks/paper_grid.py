"""What the paper leaves open: trainings and readings of the embedding, one change at a time.

    python -m benchmarks paper_grid --trainings plain scaled --steps 200 600 --seeds 1

A training is stopped at several numbers of steps, and each time its embedding is read in several
ways: Z; Z averaged over each spot and its neighbours, once and twice; the reconstruction X^. Each
is handed to one mixture of its leading 15, 20, 30 and 64 principal directions, as to mclust, and
to the vote of the first three; EM ends at ``tol``, of which 1e-4 is about mclust's; domains are
refined by the 50 nearest spots. K is given, the truth is used for scoring only. CPU seconds are
those of the readings alone. Sections of ready features have no genes to scale: their "plain" is
what "scaled" is elsewhere.
"""

import time
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from . import _harness as harness
from ._harness import OUT
from ._paper_gradients import measure_gradients
from ._paper_settings import ABLATIONS, LENGTHS
from ._tables import markdown
from .paper import describe_patches

# The preset is chosen on the first two, the others confirm it.
CHOSEN_ON = ("dlpfc_151673", "hbc_blockA_sec1_pca200")
SECTIONS = (
    *CHOSEN_ON,
    "dlpfc_151674",
    "dlpfc_151507_pca200",
    "dlpfc_151508_pca200",
    "dlpfc_151669_pca200",
    "dlpfc_151672_pca200",
    "starmap_visual_cortex",
    "mob_st_rep11",
    "mob_st_rep8",
)
STEPS = (100, 200, 400, 600, 1000)
# Steps before the transport joins, the same in trainings of any length.
_WARMUP = 60
_LARGEST_NORM = 5.0
PLAIN = {
    "lambda_rec": 10.0,
    "lambda_contrast": 1e-3,
    "lambda_ot": 1.0,
    "preprocessor__scale": False,
    "preprocessor__max_value": None,
    "network__activation": "elu",
    "network__normalize_views": True,
    "trainer__batch_size": 1024,
    "trainer__n_iter_no_change": 10**6,
}
SCALED = {"preprocessor__scale": True, "preprocessor__max_value": 10.0}
TRAININGS = {
    "plain": {},
    "scaled": SCALED,
    "whole section": {"trainer__batch_size": None},
    "scaled, whole section": {"trainer__batch_size": None, **SCALED},
    "relu": {"network__activation": "relu"},
    "scaled, relu": {"network__activation": "relu", **SCALED},
    # Sums over the columns in (1), (2) and (8), for the 3,000 genes of counts.
    "sums": {"lambda_rec": 3e4},
    "scaled, sums": {"lambda_rec": 3e4, **SCALED},
    "views as they are": {"network__normalize_views": False},
    "clipped": {},  # gradients at a norm of 5, as STAGATE and what follows it do
    "scaled, image": SCALED,
    **ABLATIONS,
    **{name: LENGTHS[name] for name in ("t=1", "t=9", "t=15")},
}
READINGS = ("Z", "once", "twice", "X^")
DEPTHS = (15, 20, 30)  # of the vote
SHARES = ("contrast_share", "transport_share", "gradient")
FIGURES = (
    *("mixture_15", "mixture_20", "mixture_30", "mixture_64", "vote", "cpu_seconds"),
    *SHARES,
)
TABLE = harness.Table(("section", "training", "steps", "reading", "tol", "seed"), FIGURES)


def measure(section, training, steps, reading, tol, seed, *, until):
    """Return the ARI of each head on one reading of one training."""
    from skiehercl._domains._head import MixtureVote

    path = find_snapshot(section, training, steps, seed)
    if not path.exists():
        train(section, training, seed, until)
    with np.load(path) as kept:
        z, norms = kept[reading].astype(np.float64), kept["gradients"]
    start = time.process_time()
    adata, k = load(section), harness.find_section(section).n_domains
    spots = describe_spots(adata)
    vote = MixtureVote(DEPTHS, (1,), 1, "tied", 50, tol=tol)
    scores = {"vote": score(section, vote.fit([z], spots, [k], 1.0, seed))}
    for number, depth in enumerate(DEPTHS):
        mixture = vote.mixtures_[0][: number + 1][-1]  # small sections have fewer
        scores[f"mixture_{depth}"] = score(section, vote._refine(mixture.predict_proba(z), spots))
    wide = MixtureVote((64,), (1,), 1, "tied", 50, tol=tol)
    scores["mixture_64"] = score(section, wide.fit([z], spots, [k], 1.0, seed))
    rec, contrast, transport, total = norms
    share = {"contrast_share": contrast, "transport_share": transport}
    share = {name: value / (rec + contrast + transport) for name, value in share.items()}
    return {**scores, **share, "gradient": total, "cpu_seconds": time.process_time() - start}


def find_snapshot(section, training, steps, seed):
    """Return the file of a training's readings after some steps."""
    return OUT / "paper_grid" / f"{section}-{training}-{steps}-{seed}.npz"


@lru_cache(1)
def load(section):
    """Return the AnnData of a section."""
    return harness.load(section)


def describe_spots(adata):
    """Return what the head asks of the spots."""
    coords = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    return SimpleNamespace(coords=coords, sections=None)


def score(section, probabilities):
    """Return the ARI of domain probabilities (n, K)."""
    return harness.score(section, load(section), probabilities.argmax(axis=1))["ARI"]


def train(section, training, seed, until):
    """Train once and keep the readings at 200, 600 and 1,000 steps, up to ``until``."""
    from sklearn.decomposition import PCA
    from torch.nn.utils import clip_grad_norm_

    from skiehercl import Callback, IEHERCLClusterer
    from skiehercl._training._encoding import encode, reconstruct
    from skiehercl.graph._means import neighbor_mean_matrix

    class Snapshots(Callback):
        """Writes the readings."""

        def on_train_begin(self, trainer):
            if training == "clipped":
                weights = list(trainer.network_.parameters())

                def clip(*_):
                    clip_grad_norm_(weights, _LARGEST_NORM)

                trainer.optimizer_.register_step_pre_hook(clip)

        def on_epoch_end(self, trainer):
            for steps in STEPS:
                path = find_snapshot(section, training, steps, seed)
                if trainer.n_iter_ == min(steps, trainer.max_iter_) == steps and not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.savez(path, **self.read(trainer))

        def read(self, trainer):
            """Return the readings of the network as it is, and its gradients."""
            z, _ = encode(trainer.network_, trainer.section_, trainer.device_)
            around = trainer.section_.neighbor_mean
            mean = neighbor_mean_matrix((around > 0).astype(np.float64), include_self=True)
            once = mean @ z
            genes = reconstruct(trainer.network_, z, around, trainer.device_)
            genes = PCA(min(64, *genes.shape), random_state=0).fit_transform(genes)
            norms = measure_gradients(trainer)
            names = ("reconstruction", "contrast", "transport", "total")
            found = {"Z": z, "once": once, "twice": mean @ once, "X^": genes}
            found = {name: part.astype(np.float32) for name, part in found.items()}
            return {**found, "gradients": np.array([norms.get(name, 0.0) for name in names])}

    changes = PLAIN | TRAININGS[training]
    start = time.process_time()
    image = describe_patches(load(section), section) if training.endswith("image") else None
    IEHERCLClusterer.from_preset(
        "paper",
        n_clusters=harness.find_section(section).n_domains,
        max_iter=until,
        terms__ot_warmup=_WARMUP / until,
        trainer__callbacks=[Snapshots()],
        head__dimensions=(2,),  # not read
        random_state=seed,
        **changes,
    ).fit(load(section), image_features=image)
    print(f"{section} {training} {seed}: {time.process_time() - start:.0f} CPU s", flush=True)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, SECTIONS, seeds=3)
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=["plain"])
    parser.add_argument("--steps", nargs="+", type=int, choices=STEPS, default=[200])
    parser.add_argument("--readings", nargs="+", choices=READINGS, default=READINGS)
    parser.add_argument("--tol", type=float, default=1e-4, help="at which EM ends")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [
            (section, training, steps, reading, args.tol, seed)
            for seed in range(args.seeds)
            for section in args.sections
            for training in args.trainings
            for steps in args.steps
            for reading in args.readings
        ]

        def work(*job):
            return measure(*job, until=max(args.steps))

        rows = harness.run_missing(args.out, TABLE, jobs, work, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")


def summarise(rows):
    """Return ARI by training and reading, then the terms' shares of the gradient."""
    heads = ("mixture_15", "mixture_20", "mixture_30", "mixture_64")
    lines, shares = [], []
    keys = {(r["section"], r["training"], int(r["steps"]), r["reading"], r["tol"]) for r in rows}
    for key in sorted(
        keys, key=lambda k: (SECTIONS.index(k[0]), *k[1:3], READINGS.index(k[3]), k[4])
    ):
        own = dict(zip(TABLE.keys, key, strict=False))
        found = [harness.list_scores(rows, head, **own) for head in heads]
        vote = harness.list_scores(rows, "vote", **own)
        cells = [f"{np.mean(some):.3f}" for some in found]
        lines.append([*key, len(vote), *cells, f"{np.mean(found):.3f}", f"{np.mean(vote):.3f}"])
        if key[3] == "once" and key[:3] not in [line[:3] for line in shares]:
            parts = [np.mean(harness.list_scores(rows, name, **own)) for name in SHARES]
            shares.append((*key[:3], *(f"{part:.1e}" for part in parts)))
    columns = ["section", "training", "steps"]
    directions = [head.removeprefix("mixture_") for head in heads]
    return "\n\n".join(
        [
            "ARI, means over seeds: one mixture of so many directions, the mean of these, the "
            "vote of the first three.",
            markdown([*columns, "reading", "tol", "seeds", *directions, "mean", "vote"], lines),
            "Shares of contrast (13) and transport (17) in the sum of the terms' gradient norms at "
            "the encoders, and the norm of the whole gradient.",
            markdown([*columns, "contrast", "transport", "norm"], shares),
        ]
    )
