"""Any PET that is SUV comes back on its own grid; anything else is refused in one line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from totalgen.data.demographics import Demographics
from totalgen.data.pet_input import Pet, read_pet
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.generation.pet_denoiser import Input, PetDenoiser
from totalgen.generation.tiling import tiles, weights
from totalgen.models.networks import UNet
from totalgen.models.samplers import sample
from totalgen.phantom import make_subject
from totalgen.phantom.phantom_dicom import write_study
from totalgen.schema import build, to_dict
from totalgen.settings import PetDenoisingInferenceSettings, PetDenoisingSettings
from totalgen.tasks.pet_denoising import LowDose
from totalgen.tasks.task import Box
from totalgen.weights import network_arguments, save_weights

WOMAN = Demographics("F", 60, 1.65, 71.5)
SCRIPT = "2_Tests/denoise_pet.py"


def weights_file(path, gain=0.0, **changes):
    """An untrained denoiser of 4 mm voxels; with gain 0 its network predicts 0, so a residual changes nothing."""
    asked = dict(voxel_mm=4.0, patch=(8, 8, 8), channels=4, multipliers=(1, 2), blocks=1, attention=())
    settings = build(PetDenoisingSettings, asked | dict(family="regression") | changes)
    dims = len(settings.task.patch)
    about = dict(
        kind="PET denoiser", preset="test", settings=to_dict(settings), dims=dims,
        channels=dict(target=["SUV"], condition=["low-dose SUV", "log10 dose"]),
        codec=dict(kind="standardise", mean=[0.0], std=[0.01]),
        data=dict(
            encodings=dict(SUV=dict(kind="linear", low=0.0, high=16.0)), sources=["phantom"],
            statistics=dict(volumes_mean=[0.02], volumes_std=[0.05]),
        ),
    )  # fmt: skip
    torch.manual_seed(0)
    network = UNet(**network_arguments(about))
    state = network.state_dict()
    state["out_gain"] = torch.full_like(state["out_gain"], gain)
    save_weights(path, state, about)
    return path


@pytest.fixture
def denoiser(tmp_path):
    """denoiser(gain, training={…}, **settings) → a PetDenoiser, sampled by one Euler step unless changed."""

    def make(gain=0.0, training=None, device="cpu", **changes):
        path = weights_file(tmp_path / "denoiser.safetensors", gain, **training or {})
        asked = dict(weights=path, sampler="euler", steps=1, window=(8, 8, 8), overlap=4, precision="float32")
        return PetDenoiser.load(build(PetDenoisingInferenceSettings, asked | changes), torch.device(device))

    return make


def pet(shape, affine=None, seed=0):
    random = np.random.default_rng(seed)
    affine = np.diag([4.0] * 3 + [1.0]) if affine is None else affine
    return Volume(random.gamma(1.0, 1.0, shape).astype(np.float32), affine)


def low(volume, dose=0.1):
    return Input(Pet(volume), dose)


ORIENTATIONS = {
    "plain": np.diag([4.0, 4.0, 4.0, 1.0]),
    "left-handed": np.diag([-4.0, 4.0, 4.0, 1.0]),
    "axes in another order": np.array([[0, 4.0, 0, 5], [0, 0, -4.0, 6], [4.0, 0, 0, 7], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("shape", [(8, 8, 8), (13, 7, 21), (1, 30, 5), (9, 9, 1)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("tiling", ["fused", "ramp"])
def test_any_shape_and_orientation_comes_back_on_its_own_grid(denoiser, shape, orientation, tiling):
    volume = pet(shape, ORIENTATIONS[orientation])
    found = denoiser(tiling=tiling).run(low(volume))["SUV"]
    assert found.shape == shape
    assert np.array_equal(found.affine, volume.affine)
    assert np.abs(found.voxels - volume.voxels).max() < 1e-4  # the network predicts no change


def test_other_voxels_are_resampled_there_and_back(denoiser):
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (30, 34, 20)], indexing="ij"))
    smooth = (3 * np.exp(-3 * (at**2).sum(0))).astype(np.float32)
    affine = np.diag([3.0, 2.5, 5.0, 1.0])
    affine[:2, :2] = np.array([[0.95, -0.3], [0.3, 0.95]]) @ affine[:2, :2]
    found = denoiser().run(low(Volume(smooth, affine)))["SUV"]
    assert found.shape == smooth.shape
    assert np.array_equal(found.affine, affine)
    inner = (slice(4, -4), slice(4, -4), slice(3, -3))
    assert np.abs(found.voxels - smooth)[inner].max() < 0.1


def test_a_denoiser_of_slices_goes_over_a_volume(denoiser):
    volume = pet((9, 12, 5))
    found = denoiser(training=dict(patch=(8, 8)), window=(8, 8)).run(low(volume))["SUV"]
    assert np.abs(found.voxels - volume.voxels).max() < 1e-4


@pytest.mark.parametrize("sampler", ["dpm_solver", "ancestral"])
def test_how_many_slices_go_at_once_does_not_matter(denoiser, sampler):
    training = dict(patch=(8, 8), family="ddpm", target="direct")
    made = [
        denoiser(gain=1.0, training=training, window=(8, 8), steps=3, sampler=sampler, window_batch=batch)
        for batch in (1, 4)
    ]  # fmt: skip
    one, four = (each.run(low(pet((9, 12, 5))), seed=3)["SUV"].voxels for each in made)
    assert np.abs(one - four).max() < 1e-4
    assert np.ptp(one) > 1e-3


def test_negative_and_hot_voxels_pass(denoiser):
    volume = pet((9, 9, 9))
    volume.voxels[2, 2, 2], volume.voxels[5, 5, 5] = -0.5, 120.0  # far above what is stored as 1
    found = denoiser().run(low(volume))["SUV"].voxels
    assert found[2, 2, 2] == pytest.approx(-0.5, abs=1e-4)
    assert found[5, 5, 5] == pytest.approx(120, abs=1e-2)


def test_samples_differ_and_their_spread_is_given(denoiser):
    source = low(pet((10, 9, 8)))
    made = denoiser(gain=1.0, training=dict(family="edm"), steps=2, samples=3)
    found = made.run(source, seed=1)
    assert set(found) == {"SUV", "SUV_std"}
    assert found["SUV_std"].voxels.min() > 0
    again, other = made.run(source, seed=1), made.run(source, seed=2)
    assert np.array_equal(found["SUV"].voxels, again["SUV"].voxels)
    assert not np.array_equal(found["SUV"].voxels, other["SUV"].voxels)
    with pytest.raises(InputError, match="a regression has one result only"):
        denoiser(samples=2)


@pytest.mark.parametrize(("tiling", "sampler", "doubts"), [("ramp", "ancestral", 1), ("ramp", "euler", 0),
                                                            ("fused", "ancestral", 0)])  # fmt: skip
def test_a_spread_of_blended_windows_with_noise_of_their_own_is_doubted(denoiser, tiling, sampler, doubts):
    made = denoiser(training=dict(family="edm"), steps=2, samples=2, tiling=tiling, sampler=sampler)
    assert len(made.doubts(low(pet((9, 9, 9))))) == doubts
    one = denoiser(training=dict(family="edm"), steps=2, tiling=tiling, sampler=sampler)
    assert one.doubts(low(pet((9, 9, 9)))) == []


def test_the_only_target_needs_no_second_evaluation(denoiser):
    shifted = dict(gain=1.0, training=dict(family="edm"), steps=2, time_shift=2.0)
    every, alone = (denoiser(**shifted, time_shift_of=name) for name in ("", "SUV"))
    source = low(pet((10, 9, 8)))
    assert np.array_equal(every.run(source, seed=1)["SUV"].voxels, alone.run(source, seed=1)["SUV"].voxels)
    assert every.operations((10, 9, 8)) == alone.operations((10, 9, 8))


def test_an_early_start_begins_at_the_input(denoiser):
    """Without a residual the network is given the low-dose PET plus noise of the level asked for."""
    seen = []

    def denoise(z, sigma, condition):
        seen.append((z.clone(), float(sigma[0])))
        return z

    noise, begin = torch.randn(1, 1, 4, 4, 4), torch.full((1, 1, 4, 4, 4), 7.0)
    sample(denoise, torch.zeros(1, 0, 4, 4, 4), noise, "euler", 2, sigma_max=3.0, start=begin)
    assert torch.allclose(seen[0][0], 3 * noise + 7)
    made = denoiser(training=dict(family="edm", target="direct"), start=2.0)
    source = low(pet((8, 8, 8)), dose=0.1)
    encoded = torch.from_numpy(made.task.encoding.encode(source.pet.suv.voxels).astype(np.float32))[None]
    begun, sigma = made._begin(LowDose(encoded, 0.1), Box.whole((8, 8, 8)))
    assert torch.allclose(made.task.codec.decode(begun)[0], encoded, atol=1e-5)
    added = 0.1 * np.sqrt(2.3 * 0.02 * 16 + 0.02) * 3 / 16  # std at the mean activity, dose 1/10, encoded
    assert sigma == pytest.approx(2.0 * added / 0.01 * 0.5)


def test_the_published_windows_are_where_they_were():
    for shape, starts in (
        ((192, 288, 520), [0, 86, 172, 258, 344, 424]), ((192, 304, 612), [0, 86, 172, 258, 344, 430, 516]),
    ):
        found = tiles(shape, (192, 304, 96), (0, 0, 10))
        assert [tile.box.start for tile in found] == [(0, 0, z) for z in starts]
        assert {tile.box.shape[2] for tile in found} == {96}
    first, second = tiles((4, 4, 182), (4, 4, 96), (0, 0, 10))
    ramps = [weights(tile, (4, 4, 182), (0, 0, 10), "ramp")[0, 0] for tile in (first, second)]
    assert torch.allclose(ramps[0][86:], 1 - (torch.arange(10) + 0.5) / 10)
    assert torch.allclose(ramps[0][86:] + ramps[1][:10], torch.ones(10))


def test_windows_that_are_averaged_begin_where_the_network_halves(denoiser):
    """The volume that is covered, and with it the noise, does not depend on the windows."""
    for any_shape, covered in ((False, (22, 10, 34)), (True, (21, 9, 33))):
        for window, overlap in (((8, 8, 8), 3), ((6, 8, 12), 5), ((10, 10, 10), 16)):
            training = dict(patch=(8, 8, 8), any_shape=any_shape)
            sampler = denoiser(window=window, overlap=overlap, training=training).sampler
            used, whole = sampler.window((21, 9, 33))
            assert whole == covered
            plan = sampler.plan(whole, used)
            assert len(plan) > 1
            assert all(start % 2 == 0 for tile in plan for start in tile.box.start)
            assert sampler.operations((21, 9, 33)) > 0


def test_operations_count_windows_samples_and_slices(denoiser):
    one = denoiser().operations((8, 8, 8))
    assert one > 0
    assert denoiser().operations((12, 8, 16)) == 6 * one
    many = denoiser(training=dict(family="edm"), steps=3, samples=2)
    assert many.operations((8, 8, 8)) == 6 * one


def test_a_file_is_denoised_by_the_script_and_kept_the_second_time(tmp_path, invoke):
    path = tmp_path / "low.nii.gz"
    write_nifti(path, pet((9, 11, 7)))
    asked = [SCRIPT, "--preset", "smoke", "--input", path, "--dose", 0.1, "--outdir", tmp_path / "out"]
    file = weights_file(tmp_path / "w.safetensors", family="edm")
    asked += ["--weights", file, "--samples", 2, "--set", "window=(8,8,8)"]
    first = invoke(*asked)
    assert first.exit_code == 0, first.output
    assert {p.name for p in (tmp_path / "out" / "low").iterdir()} >= {"SUV.nii.gz", "SUV_std.nii.gz", "preview.png"}
    assert "0 subjects done, 1 were done before" in invoke(*asked).output
    one = [SCRIPT, "--preset", "smoke", "--input", path, "--dose", 0.1, "--outdir", tmp_path / "one", "--weights", file]
    assert invoke(*one).exit_code == 0
    assert "0 subjects done, 1 were done before" in invoke(*one).output
    result = invoke(*asked[:-2], "--set", "window=(9,8,8)")
    assert result.exit_code == 2
    assert "is not divisible by" in result.stderr or "another window" in result.stderr


@pytest.mark.parametrize("brought", ["file", "cohort"])
def test_the_result_of_one_input_is_not_handed_out_for_another_of_its_name(tmp_path, invoke, brought):
    file = weights_file(tmp_path / "w.safetensors")
    for person, seed in (("alice", 0), ("bob", 1)):
        write_nifti(tmp_path / person / "doses/p/SUV_0.1.nii.gz", pet((8, 8, 8), seed=seed))
        (tmp_path / person / "cohort.csv").write_text("subject\np\n")
    given = {"file": ("--input", "{}/doses/p/SUV_0.1.nii.gz"), "cohort": ("--cohort", "{}")}[brought]
    asked = [SCRIPT, "--preset", "smoke", "--weights", file, "--dose", 0.1, "--outdir", tmp_path / "out"]
    asked += ["--set", "window=(8,8,8)", given[0]]

    def run(person):
        return invoke(*asked, tmp_path / given[1].format(person))

    assert run("alice").exit_code == 0
    (study,) = (tmp_path / "out").glob("*/study.json")
    before = {path: path.read_bytes() for path in study.parent.iterdir()}
    result = run("bob")
    assert result.exit_code == 2
    assert "was made with another input of that name. Ask for the same again" in result.stderr
    assert {path: path.read_bytes() for path in study.parent.iterdir()} == before
    assert "0 subjects done, 1 were done before" in run("alice").output
    row = json.loads(study.read_text())
    del row["input_sha256"]  # as an earlier version left it
    study.write_text(json.dumps(row))
    result = run("bob")
    assert "0 subjects done, 1 were done before" in result.output
    assert "whether they were these is not known" in result.stderr


@pytest.mark.parametrize("only", [(), ("--split", "train")])
def test_what_is_made_of_a_cohort_has_the_splits_of_its_subjects(tmp_path, invoke, only):
    (tmp_path / "cohort.csv").write_text("subject,split\na,train\nb,test\nc,train\n")
    for subject in "ab":  # c has no low-dose PET
        write_nifti(tmp_path / "doses" / subject / "SUV_0.1.nii.gz", pet((8, 8, 8)))
    asked = [SCRIPT, "--preset", "smoke", "--weights", weights_file(tmp_path / "w.safetensors"), "--dose", 0.1]
    asked += ["--cohort", tmp_path, "--outdir", tmp_path / "out", "--set", "window=(8,8,8)", "--set", "steps=1"]
    result = invoke(*asked, *only)
    assert result.exit_code == 0
    assert f"1 of {2 if only else 3} subjects have no doses/<subject>/SUV_0.1.nii.gz" in result.stderr
    splits = pd.read_csv(tmp_path / "out/manifest.csv").set_index("subject")["split"].to_dict()
    assert splits == (dict(a="train") if only else dict(a="train", b="test"))


@pytest.mark.parametrize(("given", "words"), [
    (["guidance=2"], "denoiser_sampling: guidance is 2, but it has no guide. Set it to 1"),
    (["window=(8,8)"], "window is (8, 8); this network has 3 axes. Give one for each"),
])  # fmt: skip
def test_settings_that_no_denoiser_has_are_refused_in_one_line(tmp_path, refused, given, words):
    write_nifti(tmp_path / "low.nii.gz", pet((8, 8, 8)))
    asked = [SCRIPT, "--preset", "smoke", "--weights", weights_file(tmp_path / "w.safetensors"), "--dose", 0.1]
    asked += ["--input", tmp_path / "low.nii.gz", "--outdir", tmp_path / "out"]
    assert words in refused(*asked, *(part for each in given for part in ("--set", each)))


def test_a_dicom_series_becomes_a_derived_one(tmp_path, invoke):
    subject = make_subject(WOMAN, seed=3, voxel_mm=16.0)
    write_study(tmp_path / "in", "p", subject, WOMAN, seed=3)
    file = weights_file(tmp_path / "w.safetensors", voxel_mm=16.0)
    asked = [SCRIPT, "--preset", "smoke", "--input", tmp_path / "in", "--dose", 0.1, "--outdir", tmp_path / "out"]
    asked += ["--weights", file, "--set", "window=(8,8,8)", "--set", "steps=1"]
    assert invoke(*asked).exit_code == 0
    study = tmp_path / "out/in/study.json"
    row, made = study.read_text(), study.with_name("SUV.nii.gz").read_bytes()
    study.write_text(json.dumps({key: value for key, value in json.loads(row).items() if key != "input_sha256"}))
    assert "of which input it was made is not known, and dicom needs it" in invoke(*asked, "--dicom").stderr
    study.write_text(row)
    result = invoke(*asked, "--dicom")  # of the volume that is there
    assert result.exit_code == 0, result.output
    assert study.with_name("SUV.nii.gz").read_bytes() == made
    given, nifti = read_pet(tmp_path / "in").suv, read_nifti(tmp_path / "out/in/SUV.nii.gz", reorder=False)
    made = read_pet(tmp_path / "out/in/dicom").suv
    assert made.shape == given.shape == nifti.shape
    assert np.allclose(made.affine, given.affine, atol=1e-3)
    assert np.abs(made.voxels - nifti.voxels).max() < 1e-3 * nifti.voxels.max()  # 16 bits per slice
    result = invoke(SCRIPT, "--preset", "smoke", "--input", tmp_path / "out/in/SUV.nii.gz", "--dose", 0.1,
                    "--outdir", tmp_path / "out2", "--weights", file, "--dicom")  # fmt: skip
    assert result.exit_code == 2
    assert "--dicom derives a series from the DICOM folder" in result.stderr


def refused(tmp_path, voxels, words, name="bad.nii.gz"):
    write_nifti(tmp_path / name, Volume(voxels.astype(np.float32), np.eye(4)))
    with pytest.raises(InputError, match=words):
        read_pet(tmp_path / name)


def test_what_is_no_suv_volume_is_refused(tmp_path):
    good = np.random.default_rng(0).random((5, 5, 5))
    refused(tmp_path, good * 8000, "no SUV but perhaps Bq/mL")
    refused(tmp_path, np.where(good > 0.9, np.nan, good), "are not finite numbers")
    refused(tmp_path, good * 0, "no voxel is above 0")
    refused(tmp_path, good[0], "has 2 dimensions")
    refused(tmp_path, good[..., None].repeat(2, -1), "has 4 dimensions")
    with pytest.raises(InputError, match="no such file"):
        read_pet(tmp_path / "none.nii.gz")
    np.savez(tmp_path / "two.npz", a=good, b=good)
    with pytest.raises(InputError, match="holds 2 arrays"):
        read_pet(tmp_path / "two.npz")
    (tmp_path / "broken.npz").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read as npz"):
        read_pet(tmp_path / "broken.npz")


def test_negative_values_are_noise_or_no_suv(tmp_path):
    """Noise of an image that shows anything is less far below 0 than the image is above; HU are not."""
    random = np.random.default_rng(0)
    body = np.zeros((20, 20, 20))
    body[5:15, 5:15] = 1
    noisy = body + random.normal(0, 1, body.shape)  # as much noise as uptake
    for factor in (0.1, 1, 10):
        write_nifti(tmp_path / "noisy.nii.gz", Volume((factor * noisy).astype(np.float32), np.eye(4)))
        assert any("negative voxels are kept" in text for text in read_pet(tmp_path / "noisy.nii.gz").warnings)
    refused(tmp_path, np.where(body > 0, 40, -1000), "values are -1000 to 40, which no SUV has; a CT")
    refused(tmp_path, np.where(body > 0, 1500, -1000), "values are -1000 to 1500")
    refused(tmp_path, np.where(body > 0, 1, -0.9), "the sum of its values is negative")


def test_what_is_doubtful_is_said(tmp_path):
    voxels = np.random.default_rng(0).random((5, 5, 5)) * 400
    voxels[0, 0, 0] = -60
    write_nifti(tmp_path / "hot.nii.gz", Volume(voxels.astype(np.float32), np.eye(4)))
    warnings = read_pet(tmp_path / "hot.nii.gz").warnings
    assert any("check that it is SUV" in text for text in warnings)
    assert any("negative voxels are kept" in text for text in warnings)
    np.savez(tmp_path / "one.npz", sample=voxels[None, ..., None] / 10)
    found = read_pet(tmp_path / "one.npz")
    assert found.suv.shape == (5, 5, 5)
    assert found.suv.voxel_mm == pytest.approx([1.65] * 3)
    assert any("npz has no geometry" in text for text in found.warnings)


@pytest.mark.parametrize("dose", [0, 1, 2, -0.1])
def test_a_dose_that_is_no_fraction_is_refused(denoiser, dose):
    with pytest.raises(InputError, match="give the fraction of the normal dose"):
        denoiser().source(dict(input="x", dose=dose))


def test_a_dose_that_was_not_learnt_is_doubtful(denoiser):
    made, volume = denoiser(), pet((8, 8, 8))
    assert made.doubts(low(volume, 0.1)) == []
    assert "outside 0.01 to 0.5 of the training" in made.doubts(low(volume, 0.002))[0]


@pytest.mark.parametrize("target", ["residual", "direct"])
@pytest.mark.parametrize("tiling", ["fused", "ramp"])
def test_all_of_it_is_computed_where_the_weights_are(denoiser, elsewhere, tiling, target):
    made = denoiser(device=elsewhere, training=dict(family="edm", target=target), tiling=tiling, start=1.0, samples=2)
    assert {volume.shape for volume in made.run(low(pet((20, 9, 11)))).values()} == {(20, 9, 11)}
