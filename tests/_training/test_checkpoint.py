"""Checkpoints: wherever a training is cut off, it ends as if it hadn't been."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from skiehercl._training import _checkpoint
from skiehercl._training._callbacks import Callback
from skiehercl._training._checkpoint import Checkpoint, read_state, write_state
from skiehercl._training._loop import Training
from skiehercl._utils import _atomic

CPU = torch.device("cpu")


class Interrupted(Exception):
    pass


class Interrupt(Callback):
    """Cuts a training off after so many epochs, and counts them."""

    def __init__(self, after=np.inf):
        self.after = after

    def on_train_begin(self, trainer):
        self.n_epochs = 0

    def on_epoch_end(self, trainer):
        self.n_epochs += 1
        if self.n_epochs >= self.after:
            raise Interrupted


def train(section, plan, callbacks=(), seed=0):
    return Training(section, plan, seed, CPU).run(callbacks)


def assert_same_training(a, b):
    assert a.n_iter == b.n_iter
    np.testing.assert_equal(a.loss_history, b.loss_history)
    for name, value in a.network.state_dict().items():
        assert torch.equal(value, b.network.state_dict()[name]), name


def count_epochs(trained):
    return len(trained.loss_history["total"])


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("image", [False, True])
def test_interrupted_after_every_epoch(image, every, make_section, make_plan, tmp_path):
    section, plan = make_section(image), make_plan()
    undisturbed, n_runs = train(section, plan), 0
    while True:
        interrupt = Interrupt(every)
        n_runs += 1
        try:
            trained = train(section, plan, [Checkpoint(tmp_path, every), interrupt])
        except Interrupted:
            continue
        break
    assert n_runs > count_epochs(undisturbed) // every
    assert_same_training(trained, undisturbed)


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_interrupted_between_two_writes(after, make_section, make_plan, tmp_path):
    section, plan = make_section(), make_plan()
    with pytest.raises(Interrupted):
        train(section, plan, [Checkpoint(tmp_path, 3), Interrupt(after)])
    interrupt = Interrupt()
    trained = train(section, plan, [Checkpoint(tmp_path, 3), interrupt])
    undisturbed = train(section, plan)
    assert_same_training(trained, undisturbed)
    assert interrupt.n_epochs == count_epochs(undisturbed) - after // 3 * 3


def test_several_trainings_share_a_folder_and_finished_ones_are_not_repeated(
    make_section, make_plan, tmp_path
):
    section, plan = make_section(image=True), make_plan()
    undisturbed = [train(section, plan, seed=seed) for seed in (4, 5)]
    checkpoint = Checkpoint(tmp_path, 1)
    train(section, plan, [checkpoint], seed=4)
    with pytest.raises(Interrupted):
        train(section, plan, [checkpoint, Interrupt(2)], seed=5)
    checkpoint, counts = Checkpoint(tmp_path, 1), []
    for seed, whole in zip((4, 5), undisturbed, strict=True):
        interrupt = Interrupt()
        assert_same_training(train(section, plan, [checkpoint, interrupt], seed=seed), whole)
        counts.append(interrupt.n_epochs)
    assert counts == [0, count_epochs(undisturbed[1]) - 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoints_may_be_the_trainers_own(make_section, make_plan, tmp_path):
    section = make_section()
    plan = make_plan(callbacks=[Checkpoint(tmp_path, 1), Interrupt(2)])
    with pytest.raises(Interrupted):
        train(section, plan)
    plan.trainer.callbacks[1].after = np.inf
    plan = make_plan(callbacks=[Checkpoint(str(tmp_path)), Interrupt()])
    with pytest.raises(ValueError, match=r"callbacks=.*Interrupt\(after=2\)"):
        train(section, plan)
    for path in tmp_path.iterdir():
        path.unlink()
    assert_same_training(train(section, plan), train(section, make_plan()))


def test_writing_changes_nothing(make_section, make_plan, tmp_path):
    section, plan = make_section(), make_plan()
    for number, every in enumerate((None, 1)):
        checkpoint = Checkpoint(tmp_path / str(number), every)
        assert_same_training(train(section, plan, [checkpoint]), train(section, plan))


def damage_end(content):
    return content[:-100]


def damage_header(content):
    return content.replace(b"skiehercl-checkpoint", b"skiehercl-checkpoinT")


def damage_history(content):
    start = content.index(b"n_iter")
    return content[:start] + b"n_epoc" + content[start + 6 :]


def damage_weights(content):
    middle = len(content) - 1000
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def empty(content):
    return b""


def fill(content):
    return b"\0" * len(content)


DAMAGES = [damage_end, damage_header, damage_history, damage_weights, empty, fill]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_ignored_with_a_warning(damage, make_section, make_plan, tmp_path):
    section, plan = make_section(), make_plan()
    with pytest.raises(Interrupted):
        train(section, plan, [Checkpoint(tmp_path, 1), Interrupt(2)])
    (path,) = tmp_path.iterdir()
    changed = damage(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    match = r"training-0\.safetensors is (damaged|no file of Checkpoint).* starts anew"
    with pytest.warns(UserWarning, match=match):
        trained = train(section, plan, [Checkpoint(tmp_path, 1)])
    assert_same_training(trained, train(section, plan))
    assert_same_training(train(section, plan, [Checkpoint(tmp_path, 1)]), trained)


def forge(path, change):
    """Change the content of a checkpoint, and give it the digest that it ought to have."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.loads(metadata["content"])
    parts = dict(content["items"])
    change(parts["state"]["items"], tensors, parts)
    text = json.dumps({**content, "items": list(parts.items())})
    sealed = save(tensors, {**metadata, "content": text, "sha256": "0" * 64})
    digest = hashlib.sha256(sealed).hexdigest().encode()
    path.write_bytes(sealed.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest, 1))


def _entry(*path, value):
    def change(state, tensors, parts):
        *above, last = path
        for name in above:
            state = dict(state)[name]["items"]
        next(pair for pair in state if pair[0] == last)[1] = value

    return change


def _tensor(end, make):
    def change(state, tensors, parts):
        name = next(name for name in sorted(tensors) if name.endswith(end))
        tensors[name] = make(tensors[name])

    return change


def _dict(*items):
    return {"type": "dict", "items": items}


FORGED = {
    "position": _entry("random_state", "state", "pos", value=100_000_000),
    "position before": _entry("random_state", "state", "pos", value=-1),
    "zero key": _tensor(".key", torch.zeros_like),
    "short key": _tensor(".key", lambda tensor: tensor[:3].clone()),
    "signed key": _tensor(".key", lambda tensor: tensor.view(torch.int32)),
    "list as key": _entry("random_state", "state", "key", value=[1] * 624),
    "gauss": _entry("random_state", "gauss", value="a"),
    "epoch": _entry("epoch", value=10**12),
    "negative epoch": _entry("epoch", value=-1),
    "epoch as float": _entry("epoch", value=2.0),
    "steps": _entry("n_iter", value=10**12),
    "stopped": _entry("stopped", value="no"),
    "history": _entry("history", value=[1.0]),
    "losses": _entry("history", value=_dict(["total", ["a", "b"]])),
    "callbacks": _entry("callbacks", value=[]),
    "best": _entry("callbacks", value=[_dict(["best", "a"], ["stale", 0])]),
    "terms": _entry("terms", value=_dict()),
    "keys": _entry("history", value=_dict(*([i * (2**61 - 1), []] for i in range(60_000)))),
    "all": lambda state, tensors, parts: parts.update(state=3),
    "identity": lambda state, tensors, parts: parts.update(identity=[1]),
    "class": _entry("epoch", value={"type": "object", "class": "system", "state": _dict()}),
    "weights": _tensor(".weight", lambda tensor: tensor * float("nan")),
    "moments": _tensor(".exp_avg", lambda tensor: tensor.reshape(-1)[:1].clone()),
    "moments' dtype": _tensor(".exp_avg_sq", lambda tensor: tensor.double()),
    "step": _tensor(".step", lambda tensor: torch.zeros(3)),
    "optimizer": lambda state, *_: dict(dict(state)["optimizer"]["items"])["param_groups"][0][
        "items"
    ].__setitem__(0, ["lr", 1e300]),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_forged_file_is_ignored_with_a_warning(change, make_section, make_plan, tmp_path):
    section, plan = make_section(), make_plan(max_iter=4)
    with pytest.raises(Interrupted):
        train(section, plan, [Checkpoint(tmp_path, 1), Interrupt(2)])
    (path,) = tmp_path.iterdir()
    forge(path, change)
    with pytest.warns(UserWarning, match=r"training-0\.safetensors is damaged.* starts anew"):
        trained = train(section, plan, [Checkpoint(tmp_path, 1)])
    assert_same_training(trained, train(section, plan))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_no_checkpoint(make_section, make_plan, tmp_path):
    os.mkfifo(tmp_path / "training-0.safetensors")
    with pytest.raises(OSError, match=r"training-0\.safetensors'.* is a named pipe"):
        train(make_section(), make_plan(max_iter=3), [Checkpoint(tmp_path)])


def test_another_safetensors_file_is_no_checkpoint(make_section, make_plan, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "training-0.safetensors")
    with pytest.warns(UserWarning, match="is no file of Checkpoint: its training starts anew"):
        train(make_section(), make_plan(max_iter=3), [Checkpoint(tmp_path)])


CHANGES = {
    "max_iter": {"max_iter": 18},
    "lambda_contrast": {"lambda_contrast": 0.2},
    "sigma": {"sigma": 0.2},
    "latent_size": {"latent_size": 6},
    "learning_rate": {"learning_rate": 2e-3},
    "batch_size": {"batch_size": None},
    "callbacks": {"callbacks": [Interrupt()]},
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_parameters_are_refused_by_name(name, make_section, make_plan, tmp_path):
    section = make_section()
    train(section, make_plan(), [Checkpoint(tmp_path)])
    with pytest.raises(ValueError, match=rf"training of {name}=.*, not .*another folder") as info:
        train(section, make_plan(**CHANGES[name]), [Checkpoint(tmp_path)])
    assert "\n" not in str(info.value)


def test_other_data_are_refused(make_section, make_plan, tmp_path):
    section, plan = make_section(image=True), make_plan(max_iter=3)
    train(section, plan, [Checkpoint(tmp_path)])
    changed = make_section(image=True)
    changed.inputs["image"][1][3, 1] += 1e-6
    others = [
        make_section(image=True, seed=1),
        make_section(image=False),
        changed,
        replace(section, coords=section.coords + 1),
        replace(section, neighbor_mean=section.neighbor_mean * 0.5),
        replace(section, image_prior=0.4),
        replace(section, image_loadings=section.image_loadings + 1),
    ]
    for other in others:
        with pytest.raises(ValueError, match="training of other data"):
            train(other, plan, [Checkpoint(tmp_path)])
    train(make_section(image=True), plan, [Checkpoint(tmp_path)])


def test_other_versions_are_refused(make_section, make_plan, tmp_path, monkeypatch):
    section, plan = make_section(), make_plan(max_iter=3)
    train(section, plan, [Checkpoint(tmp_path)])
    monkeypatch.setattr(_checkpoint, "list_versions", lambda: {"torch": "0.1"})
    with pytest.raises(ValueError, match="torch's version="):
        train(section, plan, [Checkpoint(tmp_path)])


def test_a_write_that_fails_leaves_the_file_before_and_the_training_alone(
    make_section, make_plan, tmp_path, monkeypatch
):
    section, plan = make_section(), make_plan()
    with pytest.raises(Interrupted):
        train(section, plan, [Checkpoint(tmp_path, 1), Interrupt(2)])
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_atomic.os, "fsync", fail)
        with pytest.warns(UserWarning, match="No space left.*goes on"):
            trained = train(section, plan, [Checkpoint(tmp_path, 1)])
    assert_same_training(trained, train(section, plan))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writes_are_removed(make_section, make_plan, tmp_path):
    owner = f"{_atomic._identify_machine()}-{2**22 + 1}-0123abcd"  # no process has that number
    left = tmp_path / f".training-0.safetensors.{owner}.skiehercl-tmp"
    left.write_bytes(b"half")
    others = tmp_path / "notes.tmp"
    others.write_text("mine")
    train(make_section(), make_plan(max_iter=3), [Checkpoint(tmp_path)])
    assert not left.exists() and others.exists()


def test_a_folder_that_can_not_be_made_is_an_error(make_section, make_plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        train(make_section(), make_plan(max_iter=3), [Checkpoint(tmp_path / "file")])


@pytest.mark.parametrize("cost", [0.001, 0.1, 2.0])
def test_writing_takes_its_share_of_the_time(cost, make_section, make_plan, tmp_path, monkeypatch):
    now, writes = [0.0], []

    class Pass(Callback):
        def on_epoch_begin(self, trainer):
            now[0] += 1.0

    def write(*args):
        now[0] += cost
        writes.append(now[0])

    monkeypatch.setattr(_checkpoint.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_checkpoint, "write_state", write)
    plan = make_plan(max_iter=100, batch_size=None, lambda_ot=0.0, tol=0.0, n_iter_no_change=300)
    train(make_section(), plan, [Pass(), Checkpoint(tmp_path)])
    during = writes[:-1] if len(writes) > 1 else writes  # the last one is due at the end
    # Nobody knows what the first one takes.
    assert len(during) * cost <= 0.02 * now[0] + cost
    assert len(during) >= min(95, int(0.015 * now[0] / cost))


def test_states_are_plain_values_and_tensors(tmp_path):
    path = tmp_path / "state.safetensors"
    state = {
        0: {"step": torch.tensor(3.0), "half": torch.ones(2, dtype=torch.bfloat16)},
        "list": [1, 2.5, float("inf"), None, "text", (True, torch.arange(3))],
        "empty": {},
    }
    write_state(path, {"seed": 1}, state)
    identity, again = read_state(path)
    assert identity == {"seed": 1}
    assert again[0]["step"].shape == () and again[0]["half"].dtype == torch.bfloat16
    assert again["list"][:5] == state["list"][:5]
    assert torch.equal(again["list"][5][1], torch.arange(3))
    assert again["empty"] == {}
    with safe_open(path, framework="pt") as file:
        content = dict(json.loads(file.metadata()["content"])["items"])
        assert content["identity"]["items"] == [["seed", 1]]
    with pytest.raises(TypeError, match=r"state\.things is a builtins\.set, but files hold only"):
        write_state(path, {}, {"things": {1, 2}})


def test_a_checkpoint_is_named_without_torch():
    code = (
        "import sys; from skiehercl._training._checkpoint import Checkpoint; "
        "Checkpoint('a').check(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Forks before torch has begun anything: a process for each training, killed or left alone.
KILLED = """
import json, os, random, signal, sys, time
import numpy as np, scipy.sparse as sp, torch
import skiehercl._training._loop
from skiehercl._features._features import SectionArrays
from skiehercl._training._checkpoint import Checkpoint, read_state, write_state
from skiehercl._training._loop import Training
from skiehercl._training._options import HybridEncoder, LossOptions, Trainer, TrainingPlan

folder = sys.argv[1]
rng = np.random.RandomState(0)
x = rng.normal(size=(200, 10)).astype(np.float32)
mean = sp.random(200, 200, 0.02, "csr", np.float32, random_state=rng)
section = SectionArrays(
    {"gene": (x, mean @ x)}, x, mean, rng.uniform(size=(200, 2)), np.zeros(200, dtype=int)
)
trainer = Trainer(batch_size=50, tol=0.0, n_iter_no_change=1000)
plan = TrainingPlan(4, 1.0, 0.1, 1.0, 3, 100, HybridEncoder(), LossOptions(), trainer)


def start(folder, result):
    child = os.fork()
    if child:
        return child
    callbacks = [] if folder is None else [Checkpoint(folder, 1)]
    found = []
    for seed in (0, 1):
        trained = Training(section, plan, seed, torch.device("cpu")).run(callbacks)
        total = sum(p.double().sum() for p in trained.network.parameters())
        found.append([trained.loss_history["total"], float(total)])
    with open(result, "w") as file:
        json.dump(found, file)
    os._exit(0)


def finish(child):
    assert os.waitpid(child, 0)[1] == 0


began = time.perf_counter()
finish(start(None, folder + ".whole"))
took = time.perf_counter() - began
draw, kills, n_files = random.Random(0), 0, 0
for _ in range(12):
    child = start(folder, folder + ".killed")
    time.sleep(took * draw.uniform(0.05, 0.3))
    os.kill(child, signal.SIGKILL)
    kills += os.waitpid(child, 0)[1] == signal.SIGKILL
    n_files = max(n_files, len(os.listdir(folder)) if os.path.isdir(folder) else 0)
finish(start(folder, folder + ".last"))
print(json.dumps([kills, n_files]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_any_moment(tmp_path):
    command = [sys.executable, "-W", "error:.*damaged", "-c", KILLED, str(tmp_path / "run")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    n_kills, n_files = json.loads(run.stdout)
    assert n_kills > 1 and n_files > 0
    whole, last = ((tmp_path / f"run.{name}").read_text() for name in ("whole", "last"))
    assert whole == last
    assert len(list((tmp_path / "run").iterdir())) == 2  # nothing half-written is left
