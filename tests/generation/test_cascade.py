"""The cascade puts volumes where and how large they belong, and windows cannot be seen."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.demographics import Demographics
from totalgen.data.intensity import CT, PET_CT, SUV
from totalgen.data.organs import MEASURED
from totalgen.data.resolution import phase_offsets, smoothed, subsample
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage
from totalgen.generation.window_sampler import WindowSampler
from totalgen.models.networks import cost
from totalgen.models.precision import autocast
from totalgen.models.samplers import evaluations
from totalgen.settings import ORGAN_CALIBRATION, ComputeSettings, SamplingSettings, WindowSettings
from totalgen.tasks.organ_calibration import OrganCalibration
from totalgen.tasks.petct import LowResolution, Person
from totalgen.tasks.task import Box
from totalgen.weights import load_weights, save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
WOMAN = Demographics("F", 60, 1.65, 66)


@pytest.mark.parametrize("height_m", [1.5, 1.65, 1.9])
def test_a_volume_has_the_axial_extent_of_its_height(cascade, height_m):
    ct, suv = cascade().run(Demographics("M", 60, height_m, 80), seed=1).values()
    assert ct.shape[:2] == (16, 16)
    assert ct.shape[2] * 12.0 == pytest.approx(PUBLISHED.mm(height_m), abs=6)  # half a voxel
    assert np.array_equal(ct.affine, suv.affine)
    assert ct.voxel_mm == pytest.approx([12, 12, 12])
    assert np.allclose(ct.world([7.5, 7.5, 0])[:2], 0)  # centred
    assert ct.voxels[ct.voxels > -1000].min() >= CT.low  # outside the body is air
    assert ct.voxels.max() <= CT.high
    assert suv.voxels.min() >= 0
    assert suv.voxels.max() <= SUV.high * 1.0001


def test_values_stay_in_the_learnt_windows_and_outside_the_body_is_air(cascade):
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (16, 16, 64)], indexing="ij"))
    body = (at[:2] ** 2).sum(0) < 0.5
    high = np.stack([np.where(body, 1.7, 0.05), np.where(body, 1.2, 0.03)]).astype(np.float32)
    made = cascade().to_volumes(high, WOMAN)
    assert (made["CT"].voxels.dtype, made["SUV"].voxels.dtype) == (np.int16, np.float32)
    inside = made["CT"].voxels > -500
    assert made["CT"].voxels.max() == 500
    assert made["SUV"].voxels.max() <= 25
    assert set(np.unique(made["CT"].voxels[~inside])) <= {-1000, -450}  # the rim that belongs to the skin is kept
    assert made["CT"].voxels[0, 0, 0] == -1000
    assert made["SUV"].voxels[0, 0, 0] == 0
    plain = cascade(air=False).to_volumes(high, WOMAN)
    assert plain["CT"].voxels.min() == -450
    row = cascade().describe(WOMAN)
    assert row["CT_window"] == "-500 to 500"


def test_a_padded_axis_is_not_brought_back(cascade, stage_files):
    chosen = cascade()
    for stage in (chosen.global_stage, chosen.sr_stage):
        object.__setattr__(stage.settings.task, "axial", "pad")
    assert chosen.run(WOMAN, seed=1)["CT"].shape == (16, 16, 64)


def test_the_same_seed_gives_the_same_volume_and_another_seed_another(cascade):
    one, two, other = (cascade().run(WOMAN, seed)["CT"].voxels for seed in (3, 3, 4))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_windows_with_enough_context_equal_one_window(cascade):
    """One evaluation of a network of 12 convolutions sees 12 voxels to each side; 16 discarded slices hide the cut."""
    low = cascade().generate_low(WOMAN, 1)
    whole = cascade().refine(low, WOMAN, 1)
    tiled = cascade(slab=48, context=16).refine(low, WOMAN, 1)
    assert torch.allclose(whole, tiled, atol=1e-5)
    cut = cascade(slab=16, context=0).refine(low, WOMAN, 1)
    assert float((whole - cut)[..., 15:17].abs().max()) > 1e-3  # without context the cut shows


def test_fused_windows_are_one_volume(cascade):
    """One window is one window; two that are averaged come nearer to it than two that are put side by side."""

    low = cascade().generate_low(WOMAN, 1)

    def refined(**tiling):
        sampling = dict(sampler="euler", steps=3)
        made = cascade(sr_sampling=sampling, **tiling)
        return made.refine(low, WOMAN, 1)

    whole = refined(slab=64)
    assert torch.allclose(refined(slab=64, windows="fused"), whole, atol=1e-5)
    apart, fused = refined(slab=32), refined(slab=40, windows="fused", overlap=16)
    assert (fused - whole).abs().mean() < 0.5 * (apart - whole).abs().mean()
    assert len(cascade(slab=40, windows="fused", overlap=16).tiles()) == 2
    narrow = dict(slab=40, windows="fused", overlap=6, width=12)
    assert len(cascade(**narrow).tiles()) == 2 * 2 * 2
    assert (refined(**narrow) - whole).abs().mean() < 2e-3  # as two borders of slabs: here every voxel is near one


@pytest.mark.parametrize("noisy", [dict(sampler="sde_dpm_solver", steps=2), dict(steps=2, churn=1.0)])
def test_slabs_with_other_noise_at_every_step_cannot_hide_their_borders(cascade, noisy):
    with pytest.raises(InputError, match="Add --set windows=fused"):
        cascade(sr_sampling=noisy, slab=32, context=8)
    for tiling in (dict(slab=32), dict(slab=64, context=8), dict(slab=32, windows="fused")):
        assert cascade(sr_sampling=noisy, **tiling).sr_sampling.steps == 2


@pytest.mark.parametrize("windows", ["slabs", "fused"])
def test_a_self_start_begins_at_the_upsampled_volume(cascade, windows):
    """From next to no noise it stays there; from much noise it is what pure noise gives, but for the start itself."""
    low = cascade().generate_low(WOMAN, 1)
    upsampled = LowResolution(WOMAN, low).upsampled(Box.whole(cascade().shape))
    tiling = dict(windows=windows, slab=32, sr_sampling=dict(sampler="euler", steps=2))
    assert torch.allclose(cascade(self_start=0.01, **tiling).refine(low, WOMAN, 1), upsampled, atol=6e-3)
    pure, late = cascade(**tiling).refine(low, WOMAN, 1), cascade(self_start=80.0, **tiling).refine(low, WOMAN, 1)
    assert not torch.allclose(pure, upsampled, atol=2e-2)
    assert torch.allclose(late, pure, atol=1e-5)  # the residual's mean is 0: the start adds nothing


@pytest.mark.parametrize("tiling", [dict(slab=64), dict(slab=32, context=8), dict(slab=40, windows="fused")])
def test_a_consistent_refinement_has_the_means_of_its_low_resolution_volume(cascade, tiling):
    """The network has learnt next to nothing and does not follow its condition: with consistency the volume does."""
    low = cascade().generate_low(WOMAN, 1) + torch.tensor([0.2, 0.1])[:, None, None, None]
    sampling = dict(sampler="euler", steps=4)

    def off(consistency, phase):
        made = cascade(sr_sampling=sampling, consistency=consistency, consistency_sigma=0.0, **tiling)
        assert ("consistency" in made.describe(WOMAN)) == bool(consistency)
        refined = made.refine(low, WOMAN, 1, offsets=phase_offsets(phase))
        return (subsample(refined, phase) - low).mean((1, 2, 3)).abs()

    for phase in (0, 42):
        assert (off(0.7, phase) < 0.1 * off(0.0, phase)).all()
    plain = cascade(sr_sampling=sampling, **tiling).refine(low, WOMAN, 1)
    uptake = cascade(sr_sampling=sampling, consistency=0.7, consistency_of="SUV", **tiling).refine(low, WOMAN, 1)
    assert not torch.equal(uptake[1], plain[1])  # CT differs as well: the network sees both
    assert (uptake[0] - plain[0]).abs().mean() < 0.3 * (uptake[1] - plain[1]).abs().mean()
    for lowest, same in ((0.3, False), (100.0, True)):  # above all noise levels it does nothing
        made = cascade(sr_sampling=sampling, consistency=0.7, consistency_sigma=lowest, **tiling).refine(low, WOMAN, 1)
        assert torch.equal(made, plain) == same


def test_a_calibrated_body_departs_further_from_the_one_to_be_expected(cascade, template_file):
    """One step is one estimate: its SUV moves away from the template by the smoothed departure, its CT stays."""
    plain, wide = (cascade(global_weights=template_file, calibration_slope=slope) for slope in (1.0, 1.5))
    made, further = (each.generate_low(WOMAN, 1) for each in (plain, wide))
    task = plain.global_stage.task
    expected = task.codec.decode(task.encoded_template(Person(WOMAN), Box.whole(task.shape))[None])[0]
    assert torch.allclose(expected, task.template.of(WOMAN), atol=1e-6)
    assert torch.equal(further[0], made[0])
    departure = smoothed(made - expected, 1.5)[1]
    assert departure.abs().mean() > 0.01
    assert torch.allclose(further[1] - made[1], 0.5 * departure, atol=1e-5)
    assert "calibration_slope" not in plain.describe(WOMAN)
    assert wide.describe(WOMAN)["calibration_slope"] == 1.5
    with pytest.raises(InputError, match="has no template"):
        cascade(calibration_slope=1.5)


def test_organs_are_amended_as_they_were_measured_and_after_the_slope_of_suv(cascade, template_file, tmp_path):
    """One step is one estimate; the guide, of the same run, was not measured."""
    state, configuration = load_weights(template_file)
    maps = torch.randn(2, 2, 2, 4, 4, 16, generator=torch.Generator().manual_seed(1)) / 30
    slopes = dict(F=np.array([[1.0, 1.0], [1.4, 1.0]]), M=np.ones((2, 2)))
    organs = OrganCalibration(("liver volume", "liver SUVmean"), *maps, np.array([1.0, 90.0]), slopes)
    path = tmp_path / "calibrated.safetensors"
    save_weights(path, state, configuration | dict(data=configuration["data"] | dict(organs=organs.settings)))
    larger = dict(size_calibration=(2, 0, 0, 0))
    given = ({}, larger, larger | dict(size_cooling=(3, 0, 0, 0)))
    plain, amended, cooler = (cascade(global_weights=path, calibration_slope=1.5, **each) for each in given)
    made, other, third = (each.generate_low(WOMAN, 1) for each in (plain, amended, cooler))
    task, template = plain.global_stage.task, plain.global_stage.task.template.of(WOMAN)
    before, after, cooled, expected = (task.codec.encode(each[None])[0] for each in (made, other, third, template))
    change = organs.change(before - expected, 80.0, "F", {"liver volume": 2.0})
    assert change.abs().mean() > 0.01
    assert torch.allclose(after - before, change, rtol=0.01, atol=1e-3)
    moved = (change * organs.patterns[0]).sum() / (organs.patterns[0] ** 2).sum()
    assert torch.allclose(cooled - after, -3 * moved * organs.patterns[1], rtol=0.01, atol=1e-3)
    assert "size_calibration" not in plain.describe(WOMAN)
    assert amended.describe(WOMAN)["size_calibration"] == (2, 0, 0, 0)
    man = Demographics("M", 60, 1.8, 80)
    assert torch.equal(plain.generate_low(man, 1), amended.generate_low(man, 1))
    guided = dict(sampler="euler", steps=1, guidance=1.5)
    cascade(global_weights=path, global_guide=template_file, global_sampling=guided)
    with pytest.raises(InputError, match="not measured"):
        cascade(global_weights=path, uptake_calibration=(0, 1, 0, 0))
    with pytest.raises(InputError, match="size_cooling of the spleen"):
        cascade(global_weights=path, size_calibration=(2, 0, 0, 0), size_cooling=(0, 0, 0, 1))


def test_organs_are_calibrated_as_the_weights_were_validated_unless_settings_say_how(cascade, template_file, tmp_path):
    state, configuration = load_weights(template_file)
    maps = torch.randn(2, 3, 2, 4, 4, 16, generator=torch.Generator().manual_seed(1)) / 30
    slopes = {sex: np.full((2, 3), 1.4) for sex in "FM"}
    organs = OrganCalibration(("liver volume", "heart volume", "heart SUVmean"), *maps, np.array([1.0, 90.0]), slopes)
    measured = configuration | dict(data=configuration["data"] | dict(organs=organs.settings))

    def with_weights(name, settings, **sampling):
        path = tmp_path / f"{name}.safetensors"
        save_weights(path, state, measured | (dict(sampling=sampling) if sampling else {}))
        return cascade(global_weights=path, **settings)

    strengths = dict(size_calibration=[2, 1, 0, 0], size_cooling=[0, 3, 0, 0], uptake_averaging=[0, 1, 0, 0])
    larger = {name: tuple(numbers) for name, numbers in strengths.items()}
    nothing = dict(size_calibration=(0, 0, 0, 0))
    carried, asked = with_weights("carried", {}, **strengths), with_weights("asked", larger)
    without, plain = with_weights("carried", nothing, **strengths), with_weights("plain", {})
    made, same, none, usual = (each.generate_low(WOMAN, 1) for each in (carried, asked, without, plain))
    assert torch.equal(made, same)
    assert torch.equal(none, usual)
    assert not torch.allclose(made, usual, atol=1e-3)
    for name, numbers in larger.items():
        assert carried.describe(WOMAN)[name] == numbers
    with pytest.raises(InputError, match=r"damaged\.safetensors.*size_calibration"):
        with_weights("damaged", {}, size_calibration=[1, 2])
    with pytest.raises(InputError, match=r"damaged\.safetensors: its header"):
        with_weights("damaged", {}, size_calibration=1)


def test_a_dry_run_shows_the_calibration_of_the_weights_and_what_settings_leave_out_is_said(invoke, tmp_path):
    def shown(*changes):
        asked = ("--preset", "demo", "--outdir", tmp_path / "out", "--dry-run", *changes)
        result = invoke("2_Tests/generate_petct.py", *asked)
        warned[:] = result.stderr.splitlines()
        return {name: values for name, _, values in (line.partition(" ") for line in result.stdout.splitlines())}

    warned = []
    path = REPOSITORY / "Resource" / "demo-global-edm.safetensors"
    carried = load_weights(path)[1]["sampling"]
    used = shown()
    for name in ORGAN_CALIBRATION:
        assert len(carried[name]) == len(MEASURED)
        assert used[name].strip() == str(carried[name])
    assert not warned
    none = shown("--set", "size_calibration=0,0,0,0")
    assert not warned
    assert none["size_calibration"].strip() == "[0, 0, 0, 0]"
    assert none["uptake_averaging"].strip() == "[]"
    assert shown("--set", "uptake_averaging=0,0.5,0,0")["size_calibration"].strip() == "[]"
    assert len(warned) == 1
    for word in ("uptake_averaging given, size_calibration=1,2,9,10, ", "size_cooling=", "Set all four", str(path)):
        assert word in warned[0]
    assert "uptake_averaging=" not in warned[0]
    shown(*(word for name in ORGAN_CALIBRATION for word in ("--set", f"{name}=1,1,1,1")))
    assert not warned


def test_estimates_of_the_sr_stage_are_even_where_uptake_is_read_and_a_window_sees_what_the_whole_sees(
    cascade, template_file, tmp_path
):
    state, configuration = load_weights(template_file)
    maps = torch.zeros(2, 1, 2, 4, 4, 16)
    maps[:, 0, 1, 1:3, 1:3, 6:10] = 1
    slopes = {sex: np.ones((1, 1)) for sex in "FM"}
    organs = OrganCalibration(("heart SUVmean",), *maps, np.array([1.0]), slopes)
    path = tmp_path / "calibrated.safetensors"
    save_weights(path, state, configuration | dict(data=configuration["data"] | dict(organs=organs.settings)))
    made = cascade(global_weights=path, uptake_averaging=(0, 1, 0, 0), consistency=0)
    random = torch.Generator().manual_seed(1)
    source = LowResolution(WOMAN, torch.rand(2, 4, 4, 16, generator=random) / 9 + 0.5)
    clean, whole = torch.randn(2, 16, 16, 64, generator=random) / 9, Box.whole((16, 16, 64))
    task = made.sr_stage.task
    even = made._amended(clean, 0.5, source, whole)
    before, after = (task.compose(task.codec.decode(each[None])[0], source, whole)[1] for each in (clean, even))
    changed = (after - before).abs() > 1e-5
    far, core = np.ones((16, 16, 64), bool), (slice(6, 10), slice(6, 10), slice(26, 38))
    far[2:14, 2:14, 22:42] = False
    assert torch.allclose(even[0], clean[0], atol=1e-5)
    assert not changed[far].any()
    assert changed[core].float().mean() > 0.9
    assert after[core].std() < 0.9 * before[core].std()
    for sigma in (0.2, 6.0):
        assert torch.equal(made._amended(clean, sigma, source, whole), clean)
    part = Box((0, 0, 20), (16, 16, 14))
    inside = made._amended(clean[..., 20:34], 0.5, source, part)
    assert torch.allclose(inside[..., :-1], even[..., 20:33], atol=1e-4)


def test_a_low_volume_is_refined_where_its_voxels_lie(cascade, stage_files, tmp_path):
    """An sr stage whose samples are next to nothing adds nothing: the voxels of a phase come back in their places."""
    zero = dict(out_gain=torch.zeros(()))
    silent = load_stage(changed(stage_files[1], tmp_path / "silent.safetensors", **zero), "sr")
    still = replace(cascade(), sr_stage=silent)
    low = still.generate_low(WOMAN, 1)
    for phase in (0, 27):
        high = still.refine(low, WOMAN, 1, offsets=phase_offsets(phase))
        assert torch.allclose(subsample(high, phase), low, atol=3e-3)
        assert not torch.allclose(subsample(high, 42), low, atol=1e-2)


def test_demographics_reach_both_stages(cascade):
    low = cascade().generate_low(WOMAN, 1)
    heavy = Demographics("F", 60, 1.65, 120)
    assert not torch.equal(low, cascade().generate_low(heavy, 1))
    assert not torch.equal(cascade().refine(low, WOMAN, 1), cascade().refine(low, heavy, 1))


def test_a_stage_in_the_place_of_the_other_is_refused(stage_files):
    with pytest.raises(InputError, match="holds stage sr, global is needed"):
        load_stage(stage_files[1], "global")


EULER = dict(sampler="euler", steps=1)


def changed(path, to, configuration=(), **tensors):
    """A copy of a weights file with other tensors and configuration."""
    state, old = load_weights(path)
    save_weights(to, state | tensors, old | dict(configuration))
    return to


def test_guidance_leaves_the_guide_behind(cascade, stage_files, tmp_path):
    """One Euler step ends at the denoiser's answer, so that w·(D − D_g) can be read from it."""
    weak = [changed(path, tmp_path / path.name, out_gain=torch.tensor(0.3)) for path in stage_files]
    guided = EULER | dict(guidance=3.0)
    strong, other = cascade(), cascade(global_weights=weak[0], sr_weights=weak[1])
    both = cascade(global_sampling=guided, sr_sampling=guided, global_guide=weak[0], sr_guide=weak[1])
    lows = [each.generate_low(WOMAN, 1) for each in (strong, other, both)]
    assert torch.allclose(lows[2], lows[1] + 3 * (lows[0] - lows[1]), atol=1e-3)
    highs = [each.refine(lows[0], WOMAN, 1) for each in (strong, other, both)]
    assert torch.allclose(highs[2], highs[1] + 3 * (highs[0] - highs[1]), atol=1e-3)
    assert float((highs[0] - highs[1]).abs().max()) > 0.01
    assert both.operations() == 2 * strong.operations()  # every evaluation is one of each


def test_a_guide_that_cannot_guide_is_refused(cascade, stage_files, tmp_path):
    guided = EULER | dict(guidance=2.0)
    with pytest.raises(InputError, match="guidance is 2 and global_guide is not given"):
        cascade(global_sampling=guided)
    with pytest.raises(InputError, match="guidance is 1 and global_guide is given"):
        cascade(global_guide=stage_files[0])
    with pytest.raises(InputError, match="does not sample what"):
        cascade(global_sampling=guided, global_guide=stage_files[1])
    other = load_weights(stage_files[0])[1]["data"] | dict(voxel_mm=3.0)
    alien = changed(stage_files[0], tmp_path / "alien.safetensors", dict(data=other))
    with pytest.raises(InputError, match=r"alien.safetensors: does not sample what"):
        cascade(global_sampling=guided, global_guide=alien)


def test_an_average_of_before_ranges_were_kept_may_guide(cascade, stage_files, tmp_path):
    newer = dict(load_weights(stage_files[0])[1]["data"], ranges=dict(age_years=[20, 90]))
    newer = changed(stage_files[0], tmp_path / "newer.safetensors", dict(data=newer))
    assert cascade(global_weights=newer, global_guide=stage_files[0], global_sampling=EULER | dict(guidance=2.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(global_sampling="heun"), "not a dict of settings"),
        (dict(global_sampling=EULER | dict(step=3)), 'Did you mean "steps"'),
        (dict(global_sampling=EULER | dict(sampler="milstein")), "unknown name"),
        (dict(global_sampling=EULER | dict(steps=0)), "steps is 0; allowed is from 1"),
        (dict(sr_sampling=EULER | dict(sigma_min=0)), "sigma_min is 0; allowed is above 0"),
        (dict(sr_sampling=EULER | dict(sigma_min=90)), "sigma_min 90 is not below sigma_max 80"),
        (dict(sr_sampling=EULER | dict(guidance="2")), "guidance is '2', not a number"),
        (dict(slab="abc"), "slab is 'abc', not a whole number"),
        (dict(slab=32, context=16), "not less than half of the slab"),
    ],
)
def test_what_cannot_be_sampled_is_refused(cascade, change, words):
    with pytest.raises(InputError, match=words):
        cascade(**change)


def test_stages_of_other_ranges_do_not_belong_together(cascade, stage_files, tmp_path):
    data = load_weights(stage_files[1])[1]["data"]
    hot = {name: asdict(code) for name, code in PET_CT.items()} | {"SUV": dict(kind="log", low=0.0, high=50.0)}
    other = changed(stage_files[1], tmp_path / "hot.safetensors", dict(data=data | dict(encodings=hot)))
    with pytest.raises(InputError, match=r"one learnt CT .*, SUV 0 to 25, the other .*SUV 0 to 50. Use two stages"):
        cascade(sr_weights=other)


@pytest.mark.parametrize("given", [dict(slab=32), dict(windows="fused", slab=16, width=16, overlap=4)])
def test_volumes_that_the_sr_stage_cannot_halve_are_refused_at_once(cascade, stage_file, given):
    small = dict(shape=(20, 20, 32), channels=4, blocks=1, attention=())
    low = stage_file(stage="global", multipliers=(1,), **small)
    deep = dict(stage="sr", patch=(16, 16, 16), multipliers=(1, 1, 1, 1), **small)
    with pytest.raises(InputError, match=r"20×20×32 voxels, which are not divisible by 8. .* any_shape=True"):
        cascade(global_weights=low, sr_weights=stage_file(**deep), **given)
    made = cascade(global_weights=low, sr_weights=stage_file(any_shape=True, **deep), **given)
    assert made.run(WOMAN, 1)["CT"].shape[:2] == (20, 20)


def test_more_steps_than_ddpm_has_are_refused(cascade):
    with pytest.raises(InputError, match="global_sampling: steps is 1001; DDPM has 1000"):
        cascade(global_sampling=EULER | dict(levels="ddpm", steps=1001))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPU")
def test_a_compiled_stage_samples_the_same(stage_files):
    noise = torch.randn(1, 2, 4, 4, 16, generator=torch.Generator().manual_seed(5))

    def sampled(compiled):
        stage = load_stage(stage_files[0], "global", compute=ComputeSettings("float32", compiled=compiled))
        sampler = WindowSampler(stage, SamplingSettings(**EULER), WindowSettings())
        return sampler.box([Person(WOMAN)], Box.whole((4, 4, 16)), noise)

    plain, compiled = sampled(False), sampled(True)
    assert torch.allclose(plain, compiled, atol=1e-4)


def test_operations_count_every_evaluation_of_every_window(cascade):
    low, high = (dict(in_channels=2 + n, out_channels=2, channels=4, multipliers=(1,), blocks=1, attention=())
                 for n in (4, 9))  # fmt: skip
    one, two = cost(low, (4, 4, 16))[1], cost(high, (16, 16, 32))[1]
    three = dict(sampler="heun", steps=2)  # three evaluations
    assert cascade(slab=32, global_sampling=three).operations() == 3 * one + 2 * two


def test_bfloat16_is_chosen_by_the_processor_and_can_be_asked_for(monkeypatch):
    device = torch.device("cpu")
    amd, intel = (dict(avx512_bf16=True, cpu_name=name) for name in ("AMD Zen4", "Intel Xeon"))
    half = [{"amx_bf16": True}, {"bf16": True}, amd, intel | {"amx_bf16": True}]
    plain = [{"avx2": True}, intel]
    for units, wanted in [*((u, torch.float32) for u in plain), *((u, torch.bfloat16) for u in half)]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units)
        with autocast(device):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted
        with autocast(device, "float32"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        with autocast(device, "bfloat16"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with pytest.raises(InputError, match='Did you mean "bfloat16"'):
        ComputeSettings(precision="bfloat")


def test_bfloat16_changes_a_sample_less_than_the_sampler_errs(stage_files):
    """The error of 8 Heun steps against 64 is larger than what bfloat16 does to them."""
    shape = (4, 4, 16)
    noise = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(5))

    def sampled(precision, steps):
        stage = load_stage(stage_files[0], "global", compute=ComputeSettings(precision=precision))
        sampler = WindowSampler(stage, SamplingSettings(sampler="heun", steps=steps), WindowSettings())
        return sampler.box([Person(WOMAN)], Box.whole(shape), noise)

    exact, short, rounded = sampled("float32", 64), sampled("float32", 8), sampled("bfloat16", 8)
    assert float((rounded - short).std()) < float((short - exact).std())


def test_what_is_generated_stays_what_it_was(cascade, smoke_files):
    """An untrained smoke network against a crop that commit 82f6948 generated, across a border of windows."""
    chosen = cascade(
        global_weights=smoke_files[0], sr_weights=smoke_files[1], slab=32, context=4, precision="float32",
        global_sampling=dict(sampler="euler", steps=3), sr_sampling=dict(sampler="euler", steps=2),
    )  # fmt: skip
    crop = chosen.refine(chosen.generate_low(WOMAN, 7), WOMAN, 7)[:, 12:18, 12:18, 25:31]
    stored = np.load(Path(__file__).with_name("stored_crop.npy"), allow_pickle=False)
    assert stored.std() > 0.05
    assert np.abs(crop.numpy() - stored).max() < 1e-3


@pytest.mark.parametrize("sampler", ["heun", "dpm_solver"])
def test_a_bar_counts_every_evaluation_of_both_stages(cascade, sampler):
    """One subject takes minutes: each stage shows how far it is, and ends its bar; SUV alone is estimated twice."""
    numbers, ended = [], []

    def bar(items):
        numbers.append(len(items))
        yield from items
        ended.append(len(items))

    made = cascade()
    made.run(WOMAN, 1, bar)
    each = [evaluations(s.sampler, s.steps) for s in (made.global_sampling, made.sr_sampling)]
    assert numbers == ended == [each[0], each[1] * len(made.tiles())]
    usual = dict(sampler=sampler, steps=5)
    plain, calmer = (cascade(sr_sampling=usual | more) for more in ({}, dict(time_shift=2.0, time_shift_of="SUV")))
    numbers.clear(), ended.clear()
    low = calmer.generate_low(WOMAN, 1)
    volume = calmer.refine(low, WOMAN, 1, bar)
    count = 2 * evaluations(sampler, 5) * len(calmer.tiles())
    assert numbers == ended == [count]
    assert calmer.operations() - plain.operations() == sum(
        evaluations(sampler, 5) * calmer.sr_stage.operations(made.sr_sampling, tile.box.shape)
        // evaluations(made.sr_sampling.sampler, made.sr_sampling.steps) for tile in calmer.tiles()
    )  # fmt: skip
    change = (volume - plain.refine(low, WOMAN, 1)).flatten(1).std(1) / volume.flatten(1).std(1)
    assert change[1] > 1.5 * change[0]  # CT changes only because it is estimated beside another SUV
    between = dict(time_shift=2.0, time_shift_sigma_min=0.01, time_shift_sigma_max=1.0, time_shift_of="SUV")
    begun, calls = cascade(sr_sampling=usual | between, self_start=2.0), []
    begun.sr_stage.denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    numbers.clear(), ended.clear()
    begun.refine(low, WOMAN, 1, bar)
    assert numbers == ended == [len(calls)]  # the grid of an early start has more levels below σ 1


def test_more_noise_is_told_of_a_target_that_is_made(cascade):
    with pytest.raises(InputError, match=r"sr_sampling: time_shift_of is MR.*Set it to CT or SUV, or leave it out"):
        cascade(sr_sampling=dict(steps=2, time_shift=2.0, time_shift_of="MR"))


@pytest.mark.parametrize("windows", ["slabs", "fused"])
def test_all_of_it_is_computed_where_the_weights_are(cascade, template_file, stage_files, elsewhere, windows):
    guided = dict(sampler="heun", steps=2, churn=1.0, guidance=1.5)
    made = cascade(
        elsewhere, global_weights=template_file, global_guide=template_file, sr_guide=stage_files[1],
        global_sampling=guided, sr_sampling=guided, calibration_slope=1.06, consistency=0.7, self_start=1.0,
        windows=windows, slab=32, overlap=8,
    )  # fmt: skip
    volumes = made.run(WOMAN, seed=1)
    assert {volume.shape[:2] for volume in volumes.values()} == {(16, 16)}
