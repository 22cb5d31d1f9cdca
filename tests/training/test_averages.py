"""Post-hoc averages of a real run equal those that a run of the same seed tracked directly."""

import shutil

import pytest
import torch

from totalgen.data.archive import pack
from totalgen.data.recipes import PetCt
from totalgen.errors import InputError
from totalgen.schema import build
from totalgen.settings import TrainingSettings
from totalgen.training.averages import reconstruct, snapshots
from totalgen.training.diffusion import train_diffusion
from totalgen.weights import VQVAE_KIND, load_weights, save_weights

RUN = dict(
    stage="global", family="edm", shape=(16, 16, 24), channels=4, multipliers=(1,), blocks=1, attention=(), batch=2,
    microbatch=2, items=120, lr=0.01, lr_decay_steps=10, rampup_items=8, loader_processes=0, checkpoint_steps=20,
    picture_steps=1000,
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cropped_cohort):
    """(run that kept snapshots of two profiles, run of the same seed that tracked a third)."""
    folder = tmp_path_factory.mktemp("runs")
    pack(cropped_cohort(folder, subjects=4), PetCt(shape=RUN["shape"]))
    for name, ema in (("kept", (0.05, 0.10)), ("direct", (0.08,))):
        train_diffusion(folder, folder / name, name, build(TrainingSettings, RUN | dict(ema=ema, snapshot_steps=3)))
    return folder / "kept", folder / "direct"


def test_what_has_no_name_of_a_snapshot_is_named_and_left_out(tmp_path, capsys):
    (tmp_path / "snapshots").mkdir()
    for name in ("00000004-0.050", "00000008-0.100", "00000004-0.050 (1)", "00000004", "last-0.050", "4-5-6"):
        (tmp_path / "snapshots" / f"step_{name}.safetensors").touch()
    assert list(snapshots(tmp_path).values()) == [(4, 0.05), (8, 0.1)]
    assert capsys.readouterr().err.count("has no name of a snapshot") == 4


def flat(path):
    return torch.cat([value.flatten().double() for value in load_weights(path)[0].values()])


def test_a_profile_that_was_not_tracked_is_reconstructed(runs):
    kept, direct = runs
    path, misfit = reconstruct(kept, 0.08)
    found, wanted = flat(path), flat(direct / "ema-0.080.safetensors")
    others = [flat(kept / f"ema-{rel:.3f}.safetensors") for rel in (0.05, 0.10)]
    assert misfit < 0.05
    assert (found - wanted).norm() < 0.1 * min((other - wanted).norm() for other in others)
    progress = load_weights(path)[1]["progress"]
    assert (progress["sigma_rel"], progress["steps"], progress["items"]) == (0.08, 60, 120)


def test_an_earlier_step_can_be_asked_for(runs):
    kept, direct = runs
    path, _ = reconstruct(kept, 0.08, step=45)
    wanted = flat(direct / "snapshots" / "step_00000045-0.080.safetensors")
    assert (flat(path) - wanted).norm() < 0.2 * (flat(kept / "ema-0.050.safetensors") - wanted).norm()
    snapshot = kept / "snapshots" / "step_00000045-0.050.safetensors"
    found, stored = (load_weights(at)[1]["progress"] for at in (path, snapshot))
    assert (found["items"], found["hours"]) == (90, stored["hours"])


def test_what_cannot_be_reconstructed_is_refused(runs, tmp_path, refused):
    for step in (2, 61):
        with pytest.raises(InputError, match=f"step {step} is not from 3 to 60, its snapshots"):
            reconstruct(runs[0], 0.08, step=step)
    before = sorted(runs[0].iterdir())
    with pytest.raises(InputError, match=r"after step 6 within .* % only, 5 % are allowed. Choose a later step"):
        reconstruct(runs[0], 0.15, step=6)
    assert sorted(runs[0].iterdir()) == before
    with pytest.raises(InputError, match=r"0.01 to 0.3"):
        reconstruct(runs[0], 0.5)
    assert "holds no snapshot" in refused("1_Trainings/reconstruct_ema.py", "--run", tmp_path, "--sigma-rel", 0.1)


def test_the_average_of_a_run_is_not_replaced_by_one_of_almost_its_width(runs):
    before = (runs[0] / "ema-0.100.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"is of width 0.1, and 0.1004 would replace it. Move it away"):
        reconstruct(runs[0], 0.1004)
    assert (runs[0] / "ema-0.100.safetensors").read_bytes() == before


def test_an_average_is_not_replaced_by_one_of_an_earlier_step(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "run")
    for path in run.glob("snapshots/step_0000006*"):
        path.unlink()
    before = (run / "ema-0.100.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"is of step 60, and the last snapshot is of 57. Give --step 57, which makes"):
        reconstruct(run, 0.10)
    assert (run / "ema-0.100.safetensors").read_bytes() == before
    assert reconstruct(run, 0.10, step=57)[0].name == "ema-0.100-step_00000057.safetensors"


def test_what_is_not_learnt_is_taken_and_not_averaged(runs):
    """Frequencies and phases of the noise embedding are the same numbers in every file."""
    kept, _ = runs
    found, stored = (load_weights(path)[0] for path in (reconstruct(kept, 0.07)[0], kept / "ema-0.050.safetensors"))
    for name in ("fourier.frequency", "fourier.phase"):
        assert torch.equal(found[name], stored[name])
    names = [name for name in stored if name.endswith("weight")]
    sizes = [torch.stack([state[name].norm() for name in names]) for state in (found, stored)]
    assert torch.allclose(*sizes, rtol=0.05)  # no layer shrinks


def test_a_codebook_is_that_of_the_step_that_is_asked_for(tmp_path):
    """It follows the latents by itself: the one of the end belongs to other weights."""
    for step in range(2, 61, 2):
        about = dict(kind=VQVAE_KIND, taken=["codes"], progress=dict(hours=0.0, items=step, steps=step))
        state = dict(weight=torch.full((2,), float(step)), codes=torch.full((2,), float(step)))
        for width in (0.05, 0.1):
            path = tmp_path / "snapshots" / f"step_{step:08d}-{width:.3f}.safetensors"
            path.parent.mkdir(exist_ok=True)
            save_weights(path, state, about | dict(progress=about["progress"] | dict(sigma_rel=width)))
    made, _ = reconstruct(tmp_path, 0.08, step=40)
    assert load_weights(made)[0]["codes"].tolist() == [40, 40]
    with pytest.raises(InputError, match="no snapshot is of step 41, and a codebook is not averaged"):
        reconstruct(tmp_path, 0.08, step=41)
