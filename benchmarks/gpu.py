"""A default fit on a GPU: seconds by stage, share of the card's matrix rate, peak memory.

    python -m benchmarks gpu                             # 100,000 spots; under four minutes
    python -m benchmarks gpu --device cpu --spots 3000   # the same code where there is no GPU

Training and encoding run on the device, all else on the CPU. The matrix rate is that of products of
square float32 matrices, measured in the same process; the share is of the floating-point operations
of matrix products that torch counts in the steps of the training, forward and backward; counting
slows them a little. Stages are timed by what a fit tells its log. A first fit without a step starts
the device.
"""

import contextlib
import io
import time

from . import _harness as harness
from . import _tables
from .scale import make_features, make_patches

STAGES = ("features", "training", "mixtures", "labels")
TABLE = harness.Table(
    ("device", "n_spots", "batch_size", "seed"),
    (
        *STAGES,
        "seconds",
        *("tflops", "rate_tflops", "share", "peak_gib", "ARI"),
    ),
)
_SIZE = 4096
_MAX_ITER = 50


def measure_rate(device):
    """Return the operations per second of a product of square matrices."""
    import torch

    size = _SIZE if device.type == "cuda" else _SIZE // 4
    a = torch.randn(size, size, device=device)
    a @ a
    _wait(device)
    start, n_products = time.perf_counter(), 10
    for _ in range(n_products):
        a @ a
    _wait(device)
    return 2.0 * size**3 * n_products / (time.perf_counter() - start)


def _wait(device):
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fit(data, device, batch_size, max_iter, seed):
    """Return a fitted model, its seconds by stage, and the operations of its matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    from skiehercl import IEHERCLClusterer, Trainer

    trainer = Trainer(batch_size=batch_size, n_iter_no_change=_MAX_ITER)
    options = {"device": str(device), "random_state": seed, "verbose": True}
    model = IEHERCLClusterer(20, max_iter=max_iter, trainer=trainer, **options)
    text, counter = io.StringIO(), FlopCounterMode(display=False)
    with contextlib.redirect_stderr(text), counter:
        model.fit(*data)
    lines = [line.split(": ") for line in text.getvalue().splitlines() if line.endswith(" s")]
    seconds = {name: float(value.removesuffix(" s")) for name, value in lines}
    return model, seconds, counter.get_total_flops()


def measure(device, n_spots, batch_size, seed):
    """Return the figures of one case; None where there is no such device."""
    import torch
    from sklearn.metrics import adjusted_rand_score

    if device == "cuda" and not torch.cuda.is_available():
        return None
    device = torch.device(device)
    coords, domain = make_patches(int(n_spots))
    data = make_features(domain, 50), coords
    # Starts the device, and counts what isn't training.
    _, _, encoding = fit(data, device, int(batch_size), 0, seed)
    start = time.perf_counter()
    model, seconds, total = fit(data, device, int(batch_size), _MAX_ITER, seed)
    figures = {name: seconds[name] for name in STAGES} | {"seconds": time.perf_counter() - start}
    rate = measure_rate(device)
    done = (total - encoding) / seconds["training"]
    on_card = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_card else harness.peak_gib()
    figures |= {"tflops": done / 1e12, "rate_tflops": rate / 1e12, "share": done / rate}
    return figures | {"peak_gib": peak, "ARI": adjusted_rand_score(domain, model.labels_)}


def summarise(rows):
    """Return the table of seconds, rates and memory."""
    columns = [*TABLE.keys[:3], *TABLE.figures]
    return _tables.markdown(columns, [[_show(row[name]) for name in columns] for row in rows])


def _show(value):
    try:
        return value if float(value).is_integer() else f"{float(value):.3g}"
    except ValueError:
        return value


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, seeds=1)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--spots", type=int, default=100_000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[512, 1024, 16384])
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(args.device, args.spots, size, 0) for size in args.batch_sizes]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}: is there a {args.device} device?")
