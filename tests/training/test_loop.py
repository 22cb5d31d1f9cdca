"""Training resumes exactly, refuses what it cannot go on with, and several processes are one."""

import hashlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import safetensors
import torch
from tensorboardX.proto import event_pb2

from totalgen.checkpoints import save_checkpoint
from totalgen.data.archive import pack
from totalgen.data.recipes import PetCt
from totalgen.errors import InputError
from totalgen.schema import build
from totalgen.settings import RunSettings, TrainingSettings
from totalgen.training import diffusion, loop, objectives
from totalgen.training.loop import Order, Share, clean_gradients, learning_rate
from totalgen.training.objectives import noise_of_item
from totalgen.weights import load_weights, save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "1_Trainings" / "train_totalgen.py"
WATCHED = """
import gc, runpy, sys, torch.distributed
from torch.nn.parallel import DistributedDataParallel
end = torch.distributed.destroy_process_group
def watched():  # a module that is freed after the group, and frees it, now and then waits for ever
    left = [each for each in gc.get_objects() if type(each) is DistributedDataParallel]
    end()
    sys.exit("a DistributedDataParallel outlives the process group") if left else None
torch.distributed.destroy_process_group = watched
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TINY = dict(
    stage="global", family="edm", uncertainty=True, shape=(16, 16, 24), channels=4, multipliers=(1,), blocks=1,
    attention=(), batch=4, microbatch=2, items=32, lr=0.01, lr_decay_steps=10, rampup_items=8, loader_processes=0,
    checkpoint_steps=2, picture_steps=1000, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory, cropped_cohort):
    root = cropped_cohort(tmp_path_factory.mktemp("cohort"), subjects=4)
    pack(root, PetCt(shape=TINY["shape"]))
    return root


def train_stage(root, outdir, preset, **settings):
    return diffusion.train_diffusion(root, outdir, preset, build(TrainingSettings, settings))


def weights(outdir):
    return load_weights(outdir / "ema-0.100.safetensors")[0]


def same(one, two, **tolerance):
    equal = torch.equal if not tolerance else lambda a, b: torch.allclose(a, b, **tolerance)
    return all(equal(one[name], two[name]) for name in one)


def test_a_resumed_run_is_bit_identical_to_one_never_stopped(root, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_stage(root, whole, "tiny", **TINY)
    train_stage(root, halves, "tiny", **TINY | dict(items=16))
    train_stage(root, halves, "tiny", **TINY)
    assert same(weights(whole), weights(halves))
    steps = [json.loads(line)["step"] for line in (halves / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_a_run_ended_after_any_checkpoint_lacks_nothing_that_belongs_to_its_steps(root, tmp_path, monkeypatch):
    settings = TINY | dict(snapshot_steps=2, picture_steps=2)
    train_stage(root, tmp_path / "whole", "tiny", **settings)

    def save_and_end(*arguments):
        save_checkpoint(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_end)
        for _ in range(4):  # after steps 2, 4, 6 and 8
            with pytest.raises(KeyboardInterrupt):
                train_stage(root, tmp_path / "ended", "tiny", **settings)
    assert train_stage(root, tmp_path / "ended", "tiny", **settings).exists()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "ended"))
    assert load_weights(tmp_path / "ended" / "ema-0.100.safetensors")[1]["progress"]["steps"] == 8
    for folder in ("snapshots", "samples"):
        kept = [sorted(path.name for path in (tmp_path / run / folder).iterdir()) for run in ("whole", "ended")]
        assert kept[0] == kept[1] != []


@pytest.mark.slow
def test_a_killed_run_started_again_ends_with_the_same_weights(root, tmp_path):
    command = [
        sys.executable, SCRIPT, "--preset", "smoke-global-edm", "--root", root, "--set", "shape=(16,16,24)",
        "--set", "multipliers=(1,)", "--set", "attention=()", "--set", "items=400", "--set", "checkpoint_steps=3",
        "--set", "precision=float32",
    ]  # fmt: skip
    subprocess.run([*command, "--outdir", tmp_path / "whole"], check=True, capture_output=True)
    log, killed = tmp_path / "killed" / "log.jsonl", 0
    for step in (11, 40, 80):
        process = subprocess.Popen([*command, "--outdir", tmp_path / "killed"], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) >= step):
            time.sleep(0.01)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--outdir", tmp_path / "killed"], check=True, capture_output=True)
    assert killed == 3
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


@pytest.mark.slow
@pytest.mark.parametrize("microbatch", [1, 4])  # two forward passes per step and process; more than its share
def test_two_processes_give_the_weights_of_one(root, tmp_path, microbatch):
    arguments = ["--preset", "smoke-global-edm", "--root", root, "--set", "shape=(16,16,24)"]
    arguments += ["--set", f"microbatch={microbatch}"]
    arguments += ["--set", "multipliers=(1,)", "--set", "attention=()", "--set", "precision=float32"]
    subprocess.run([sys.executable, SCRIPT, *arguments, "--outdir", tmp_path / "one"], check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "watched.py").write_text(WATCHED)
    command = [*torchrun, tmp_path / "watched.py", SCRIPT, *arguments, "--outdir", tmp_path / "two"]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"), atol=1e-4)


def test_a_damaged_checkpoint_is_passed_over(root, tmp_path):
    train_stage(root, tmp_path, "tiny", **TINY)
    expected = weights(tmp_path)
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    (tmp_path / "ema-0.100.safetensors").unlink()
    train_stage(root, tmp_path, "tiny", **TINY)
    assert same(expected, weights(tmp_path))


def test_averages_that_are_lost_are_written_again_of_the_checkpoint(root, tmp_path, capsys):
    path = train_stage(root, tmp_path, "tiny", **TINY)
    expected = weights(tmp_path)
    for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:1000])):
        damage(path)
        train_stage(root, tmp_path, "tiny", **TINY)
        assert same(expected, weights(tmp_path))
    capsys.readouterr()
    train_stage(root, tmp_path, "tiny", **TINY | dict(items=16, init_from=path))
    said = capsys.readouterr().err
    assert "goes on from its own checkpoint, not from" in said
    assert "has learnt 32 items, more than the 16 that are asked for" in said


def test_a_run_does_not_go_on_with_other_people_or_volumes(cropped_cohort, tmp_path):
    root, run = tmp_path / "cohort", tmp_path / "run"
    cropped_cohort(root, subjects=4, shape=TINY["shape"])
    pack(root, PetCt(shape=TINY["shape"]))
    train_stage(root, run, "tiny", **TINY | dict(items=16))
    kept = (root / "cohort.csv").read_text()
    table = pd.read_csv(root / "cohort.csv")
    table.loc[table["subject"].isin(["s0", "s1"]), "weight_kg"] += [5, -5]
    table.to_csv(root / "cohort.csv", index=False)
    pack(root, PetCt(shape=TINY["shape"]))
    with pytest.raises(InputError, match="people or volumes of the training's subjects differ"):
        train_stage(root, run, "tiny", **TINY)
    (root / "cohort.csv").write_text(kept)
    pack(root, PetCt(shape=TINY["shape"]))
    train_stage(root, run, "tiny", **TINY)


def test_another_configuration_in_the_same_folder_is_refused(root, tmp_path):
    train_stage(root, tmp_path, "tiny", **TINY)
    with pytest.raises(InputError, match=r"another configuration \(run.lr differ\)"):
        train_stage(root, tmp_path, "tiny", **TINY | dict(lr=0.02))


def test_training_lowers_the_loss_and_leaves_log_picture_and_weights(root, tmp_path):
    changes = dict(items=400, picture_steps=100, checkpoint_steps=100, lr=0.03)
    train_stage(root, tmp_path, "tiny", **TINY | changes)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-40:]) < 0.97 * sum(losses[:40])  # an untrained network stays at its start, 1.0 on average
    assert (tmp_path / "samples" / "step_00000100.png").exists()
    assert load_weights(tmp_path / "ema-0.050.safetensors")[1]["preset"] == "tiny"


def test_settings_that_mean_nothing_are_refused_before_the_folder_is_taken(root, tmp_path):
    for wrong, fact in (
        (dict(stage="sr", patch=(8, 8, 8), target="Residual"), 'Did you mean "residual"'),
        (dict(weights_dtype="bfloat16"), "Known: float32, float16"),
        (dict(patch=(24, 24)), r"patch is \(24, 24\), not a tuple of 3 whole numbers"),
        (dict(stage="sr", patch=(32, 8, 8)), "larger than the volume"),
        (dict(axial="pad"), "was packed with --axial stretch, the preset expects pad"),
        (dict(items=0), "items is 0; allowed is from 1"),
        (dict(emphasis=10.0), "the global stage is shown no SUV"),
        (dict(emphasis=10.0, template=True, loss="l1"), "emphasis is of loss mse"),
    ):
        with pytest.raises(InputError, match=fact):
            train_stage(root, tmp_path / "run", "tiny", **TINY | wrong)
    assert not (tmp_path / "run").exists()


def test_batch_that_cannot_be_shared_is_refused(root, tmp_path):
    with pytest.raises(InputError, match="not divisible by 1 processes × microbatch 3"):
        train_stage(root, tmp_path, "tiny", **TINY | dict(microbatch=3))


def test_learning_rate_ramps_up_then_decays_as_one_over_the_root():
    assert learning_rate(1, 500, 0.017, 35000, 1000) == pytest.approx(0.0085)
    assert learning_rate(35000, 10**7, 0.017, 35000, 1000) == pytest.approx(0.017)
    assert learning_rate(140000, 10**8, 0.017, 35000, 1000) == pytest.approx(0.0085)


def test_noise_belongs_to_the_item():
    like = torch.empty(2, 4)
    one, again, other = (noise_of_item(3, n, like) for n in (9, 9, 5))
    assert all(torch.equal(x, y) for x, y in zip(one, again, strict=True))
    assert not torch.equal(one[1], other[1])
    assert not torch.equal(noise_of_item(4, 9, like)[1], one[1])


def test_the_order_of_millions_of_items_is_made_as_it_is_needed():
    run = RunSettings(items=16_252_000, batch=2048, microbatch=8)
    order = Order(Share(1, 4, run), done=7000, steps=7936)
    assert len(order) == 936 * 64
    assert next(iter(order)) == list(range(7000 * 2048 + 8, 7000 * 2048 + 16))


def test_processes_and_rounds_share_every_item_once():
    run = RunSettings(batch=24, microbatch=4)
    seen = [n for rank in range(3) for batch in Order(Share(rank, 3, run), 1, 3) for n in batch]
    assert sorted(seen) == list(range(24, 72))


def test_non_finite_gradients_become_zero_and_are_counted():
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([1.0, float("nan"), float("inf"), -2.0])
    assert clean_gradients([parameter]) == 2
    assert parameter.grad.tolist() == [1, 0, 0, -2]


def test_accumulated_gradients_are_those_of_the_whole_batch(root, tmp_path):
    train_stage(root, tmp_path / "rounds", "tiny", **TINY | dict(microbatch=1))
    train_stage(root, tmp_path / "at_once", "tiny", **TINY | dict(microbatch=4))
    assert same(weights(tmp_path / "rounds"), weights(tmp_path / "at_once"), atol=1e-4)  # sums in another order


@pytest.mark.parametrize("shape", [(16, 16, 24), (8, 8, 8)])
def test_a_step_is_that_of_the_summed_loss_whatever_the_number_of_voxels(shape):
    """Adam with ε = 1e-8 on the sum over the values of an item, as published, gives the same weights; gradients as
    small as in the paper's network, where a fixed ε on the mean would halve the step."""
    values, tiny = 2 * math.prod(shape), 1e-9
    updates = []
    for scale, epsilon in ((values, loop.EPSILON), (1, loop.EPSILON / values)):
        weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimiser = torch.optim.Adam([weight], lr=0.01, betas=loop.BETAS, eps=epsilon)
        for n in range(3):
            weight.grad = scale * tiny * torch.tensor([1.0, -2.0, 0.5 * n], dtype=torch.float64)
            optimiser.step()
        updates.append(weight.detach())
    assert torch.allclose(*updates, rtol=1e-9)


def test_the_run_uses_that_step(root, tmp_path, monkeypatch):
    made = []
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **k: made.append(k["eps"]) or adam(*a, **k))
    train_stage(root, tmp_path / "global", "tiny", **TINY | dict(items=4))
    train_stage(root, tmp_path / "sr", "tiny", **TINY | dict(items=4, stage="sr", patch=(8, 8, 8)))
    assert made == [pytest.approx(1e-8 / (2 * 4 * 4 * 6)), pytest.approx(1e-8 / (2 * 8**3))]


def test_recomputed_activations_train_the_same_weights(root, tmp_path):
    train_stage(root, tmp_path / "kept", "tiny", **TINY)
    train_stage(root, tmp_path / "again", "tiny", **TINY | dict(recompute="pointwise"))
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "again"))
    with pytest.raises(InputError, match='Did you mean "blocks"'):
        train_stage(root, tmp_path / "refused", "tiny", **TINY | dict(recompute="block"))


def test_bfloat16_trains_nearly_the_same_weights(root, tmp_path):
    train_stage(root, tmp_path / "float32", "tiny", **TINY)
    train_stage(root, tmp_path / "bfloat16", "tiny", **TINY | dict(precision="bfloat16"))
    one, two = (weights(tmp_path / name) for name in ("float32", "bfloat16"))
    assert not same(one, two)
    assert same(one, two, atol=0.1)  # eight steps of Adam at 0.01 could part them by 0.16


def test_losses_that_stay_non_finite_stop_the_run(root, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "PATIENCE", 3)
    broken = lambda *arguments: tuple(x * math.nan for x in noise_of_item(*arguments))  # noqa: E731
    monkeypatch.setattr(objectives, "noise_of_item", broken)
    with pytest.raises(InputError, match=r"not finite for 3 steps in a row \(step 3\).*last checkpoint is intact"):
        train_stage(root, tmp_path / "run", "tiny", **TINY)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all(line["nonfinite_gradients"] > 0 for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPU")
def test_a_compiled_network_trains_the_same_weights(root, tmp_path):
    short = TINY | dict(items=8)
    train_stage(root, tmp_path / "plain", "tiny", **short)
    train_stage(root, tmp_path / "compiled", "tiny", **short | dict(compiled=True))
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "compiled"), atol=1e-3)


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_from_its_checkpoint(root, tmp_path, monkeypatch):
    straight = tmp_path / "straight"
    train_stage(root, straight, "tiny", **TINY)
    saved = loop.save_checkpoint

    def full(folder, step, tensors):
        if step > 4:
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        saved(folder, step, tensors)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(InputError, match=r"stopped: No space left on device. Free some"):
        train_stage(root, tmp_path / "stopped", "tiny", **TINY)
    monkeypatch.setattr(loop, "save_checkpoint", saved)
    train_stage(root, tmp_path / "stopped", "tiny", **TINY)
    assert same(weights(straight), weights(tmp_path / "stopped"))


@pytest.mark.parametrize("processes", [0, 1])
def test_a_subject_that_vanished_from_the_archive_is_named_in_one_line(root, tmp_path, processes):
    cohort = tmp_path / "cohort"
    shutil.copytree(root / "training.zarr", cohort / "training.zarr")
    shutil.rmtree(cohort / "training.zarr" / "s1")
    with pytest.raises(InputError, match=r"s1 is missing .* Run 6_pack_training_set.py") as caught:
        train_stage(cohort, tmp_path / "run", "tiny", **TINY | dict(loader_processes=processes))
    assert "\n" not in str(caught.value)


def test_the_log_is_written_for_tensorboard_too(root, tmp_path):
    train_stage(root, tmp_path, "tiny", **TINY)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (events,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    data, at = events.read_bytes(), 0
    while at < len(data):  # records of length, checksum, event, checksum
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            if value.tag == "loss":
                found[event.step] = value.simple_value
        at += 16 + length
    assert [found[step] for step in range(1, 9)] == pytest.approx(losses, rel=1e-6)


@pytest.mark.slow
def test_a_refusal_of_one_process_ends_them_all(root, tmp_path):
    arguments = ["--preset", "smoke-global-edm", "--root", root, "--set", "shape=(16,16,24)", "--set", "attention=()"]
    arguments += ["--set", "multipliers=(1,)", "--outdir", tmp_path / "run"]
    subprocess.run([sys.executable, SCRIPT, *arguments], check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", SCRIPT]
    process = subprocess.run(
        [*launch, *arguments, "--set", "seed=5"], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode != 0
    assert "was started with another configuration" in process.stderr
    assert "process 0 refused to go on" in process.stderr
    (tmp_path / "run" / "log.jsonl").write_text("no JSON\n")
    process = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert "log.jsonl: line 1 is no JSON object" in process.stderr
    assert "process 0 refused to go on" in process.stderr


def test_a_run_started_from_weights_begins_there_and_refuses_those_of_another_network(root, tmp_path):
    train_stage(root, tmp_path / "first", "tiny", **TINY)
    given = tmp_path / "first" / "ema-0.100.safetensors"
    still = TINY | dict(items=4, lr=0.0, seed=7)
    train_stage(root, tmp_path / "second", "tiny", **still, init_from=given)
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"), atol=1e-4)
    train_stage(root, tmp_path / "second", "tiny", **still, init_from=given)  # goes on, with nothing left to do
    with pytest.raises(InputError, match=r"differs in network from what is trained"):
        train_stage(root, tmp_path / "third", "tiny", **TINY | dict(channels=8), init_from=given)
    assert not (tmp_path / "third").exists()


def test_a_run_that_goes_on_states_what_it_began_with_and_needs_it_no_more(root, tmp_path):
    train_stage(root, tmp_path / "first", "tiny", **TINY | dict(items=4))
    given, other = sorted((tmp_path / "first").glob("ema-*.safetensors"))[:2]
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (given, other)}

    def begun(name, items, path):
        made = train_stage(root, tmp_path / name, "tiny", **TINY | dict(items=items, init_from=path))
        kept = load_weights(made)[1], loop.read_configuration(made.parent)
        stated = {each.get("initialised_from") for each in kept}
        assert len(stated) == 1  # in the weights and in configuration.json
        return stated.pop()

    for first, then in ((given, None), (given, other), (None, other)):
        name = f"{first and first.name} {then and then.name}"
        assert begun(name, 4, first) == begun(name, 8, then) == hashes.get(first)
    begun("killed", 4, other)
    shutil.rmtree(tmp_path / "killed" / "checkpoints")  # before its first one: it begins anew
    assert begun("killed", 4, given) == hashes[given]
    given.unlink()
    assert begun("killed", 8, given) == hashes[given]
    settings = build(TrainingSettings, TINY | dict(init_from=given))
    assert hashes[given] in diffusion.describe(root, tmp_path / "killed", "tiny", settings)  # a dry run says the same
    with pytest.raises(InputError, match="no such weights file"):
        diffusion.describe(root, tmp_path / "new", "tiny", settings)
    with pytest.raises(InputError, match="no such weights file"):
        begun("new", 4, given)


def test_a_flow_may_begin_with_the_layers_of_a_diffusion_and_says_so(root, tmp_path, capsys):
    train_stage(root, tmp_path / "edm", "tiny", **TINY)
    given = tmp_path / "edm" / "ema-0.100.safetensors"
    train_stage(root, tmp_path / "flow", "tiny", **TINY | dict(family="flow", items=4, lr=0.0, init_from=given))
    assert same(weights(tmp_path / "edm"), weights(tmp_path / "flow"), atol=1e-4)
    assert "of family edm, begins one of flow" in capsys.readouterr().err


def as_format_1(outdir):
    """Rewrite a run folder as the first format had it (weights.py)."""
    new = json.loads((outdir / "configuration.json").read_text())
    task, run, process = (new["settings"][name] for name in ("task", "run", "process"))
    channels = {name: len(new["channels"][name]) for name in ("target", "condition")}
    network = dict(new["settings"]["network"], in_channels=sum(channels.values()), out_channels=channels["target"])
    training = {name: run[name] for name in ("batch", "lr", "lr_decay_steps", "ema", "seed")}
    training |= dict(rampup_volumes=run["rampup_items"], uncertainty=process["uncertainty"], noise_parameters={})
    training |= dict(noise_levels=process["noise_levels"], condition_noise=task["condition_noise"])
    old = dict(preset=new["preset"], stage=new["settings"]["stage"], family=process["family"], network=network)
    old |= {name: task[name] for name in ("shape", "patch", "target")} | {name: new[name] for name in ("codec", "data")}
    (outdir / "configuration.json").write_text(json.dumps(old | dict(training=training)))
    log = (outdir / "log.jsonl").read_text()
    (outdir / "log.jsonl").write_text(log.replace('"items"', '"volumes"').replace("items_per_s", "volumes_per_s"))


def test_a_long_run_keeps_no_more_than_so_many_averages(root, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SNAPSHOT_STEPS", 1)
    for most, steps in ((64, [1, 2, 3, 4, 5]), (2, [3, 5])):
        monkeypatch.setattr(loop, "MOST_SNAPSHOTS", most)
        given = TINY | dict(items=5 * TINY["batch"], snapshot_steps=0)
        train_stage(root, tmp_path / str(most), "tiny", **given)
        kept = {int(path.stem.split("-")[0][5:]) for path in (tmp_path / str(most) / "snapshots").iterdir()}
        assert sorted(kept) == steps


@pytest.mark.parametrize(("change", "words"), [
    (dict(strides=(2, 2)), r"strides is \(2, 2\); this network has 3 axes"),
    (dict(strides=(2, 2), any_shape=True), r"strides is \(2, 2\); this network has 3 axes"),
    (dict(stage="sr", shape=(20, 20, 24), patch=(8, 8, 8), multipliers=(1, 1, 1, 1)), "20×20 voxels are generated at"),
])  # fmt: skip
def test_a_network_that_cannot_halve_its_volumes_is_refused_before_it_is_trained(root, tmp_path, change, words):
    if "shape" in change:
        shutil.copytree(root, tmp_path / "other", ignore=shutil.ignore_patterns("*.zarr"))
        root = tmp_path / "other"
        pack(root, PetCt(shape=change["shape"]))
    with pytest.raises(InputError, match=words):
        train_stage(root, tmp_path / "run", "tiny", **TINY | change)
    assert not (tmp_path / "run").exists()


def test_weights_of_before_a_setting_existed_start_a_run(root, tmp_path):
    """Those of the first format know no strides; how a network is computed does not matter either."""
    train_stage(root, tmp_path / "first", "tiny", **TINY | dict(items=4))
    state, configuration = load_weights(tmp_path / "first" / "ema-0.100.safetensors")
    for name in ("strides", "any_shape"):
        del configuration["settings"]["network"][name]
    save_weights(tmp_path / "old.safetensors", state, configuration)
    given = dict(init_from=tmp_path / "old.safetensors")
    train_stage(root, tmp_path / "second", "tiny", **TINY | dict(items=4, any_shape=True) | given)
    with pytest.raises(InputError, match="differs in network"):
        train_stage(root, tmp_path / "third", "tiny", **TINY | dict(strides=(2, 2, 1)) | given)


def test_a_run_begun_in_the_first_format_goes_on(root, tmp_path):
    train_stage(root, tmp_path / "straight", "tiny", **TINY)
    train_stage(root, tmp_path / "older", "tiny", **TINY | dict(items=16))
    as_format_1(tmp_path / "older")
    train_stage(root, tmp_path / "older", "tiny", **TINY)
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "older"))
    lines = [json.loads(line) for line in (tmp_path / "older" / "log.jsonl").read_text().splitlines()]
    assert [line["items"] for line in lines] == list(range(4, 36, 4))
    with pytest.raises(InputError, match=r"another configuration \(network.channels differ\)"):
        train_stage(root, tmp_path / "older", "tiny", **TINY | dict(channels=8))


@pytest.mark.parametrize("stage", ["global", "sr"])
def test_all_of_a_training_is_computed_on_its_device(root, tmp_path, monkeypatch, elsewhere, stage):
    monkeypatch.setattr(loop.distributed, "start", lambda **_: (0, 1, elsewhere))
    special = dict(template=True) if stage == "global" else dict(patch=(8, 8, 8), condition_noise=0.1)
    settings = TINY | special | dict(stage=stage, emphasis=10.0, items=8, picture_steps=2)
    assert train_stage(root, tmp_path / "run", "tiny", **settings).exists()
    assert list((tmp_path / "run" / "samples").iterdir())
