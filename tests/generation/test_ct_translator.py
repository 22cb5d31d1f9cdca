"""Any CT comes back as an MR on its own grid, stacked or refined; weights that do not belong together are refused."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from totalgen.data.ct_input import Ct
from totalgen.data.made_with import fingerprint
from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError
from totalgen.generation.ct_translator import CtSource, CtTranslator
from totalgen.generation.latent_volumes import LatentVolumes
from totalgen.models.networks import UNet
from totalgen.models.vqvae import VectorQuantised
from totalgen.schema import build, to_dict
from totalgen.settings import RefinementSettings, TranslationInferenceSettings, TranslationSettings, VqvaeSettings
from totalgen.weights import REFINER_KIND, TRANSLATOR_KIND, VQVAE_KIND, load_weights, network_arguments, save_weights

RESOURCE = Path(__file__).resolve().parents[2] / "Resource"
SCRIPT = "2_Tests/translate_ct_to_mr.py"
ENCODINGS = dict(CT=dict(kind="window", low=-1000.0, high=1000.0), MR=dict(kind="linear", low=0.0, high=1000.0))
SMALL = dict(channels=4, multipliers=(1, 2), blocks=1, attention=(), any_shape=True)


def network_file(path, settings, kind, channels, codec, data, gain):
    about = dict(kind=kind, preset="test", settings=to_dict(settings), dims=len(settings.task.patch),
                 channels=channels, codec=codec, data=dict(data, sources=["phantom"]))  # fmt: skip
    torch.manual_seed(0)
    network = UNet(**network_arguments(about))
    state = network.state_dict()
    state["out_gain"] = torch.full_like(state["out_gain"], gain)
    save_weights(path, state, about)
    return path


@pytest.fixture
def files(tmp_path):
    """files(gain, **settings of the slices) → name → path of untrained weights; with gain 0 networks predict 0.

    spread: standard deviation of the latents that the refiner knows; by default it makes next to none."""

    def make(gain=0.0, latents=2, spread=1e-6, **changes):
        asked = SMALL | dict(voxel_mm=4.0, patch=(8, 8), family="regression") | changes
        slices = build(TranslationSettings, asked)
        given = ["CT"] * (1 + 2 * slices.task.neighbours)
        statistics = dict(volumes_mean=[0.2, 0.3], volumes_std=[0.2, 0.3])
        data = dict(encodings=ENCODINGS, statistics=statistics)
        found = dict(
            slices_weights=network_file(
                tmp_path / "slices.safetensors", slices, TRANSLATOR_KIND, dict(target=["MR"], condition=given),
                dict(kind="standardise", mean=[0.25], std=[0.2]), data, gain,
            )
        )  # fmt: skip
        refiner = build(RefinementSettings, SMALL | dict(patch=(8, 8, 8), family="edm"))
        names = [f"{name}_{n}" for name in ("slices", "MR") for n in range(latents)]
        data = dict(
            encodings={name: dict(kind="linear", low=0.0, high=1.0) for name in names},
            statistics=dict(volumes_mean=[0.0] * 2 * latents, volumes_std=[1.0] * 2 * latents),
        )
        found["refiner_weights"] = network_file(
            tmp_path / "refiner.safetensors", refiner, REFINER_KIND,
            dict(target=names[latents:], condition=names[:latents]),
            dict(kind="standardise", mean=[0.0] * latents, std=[spread] * latents), data, gain,
        )  # fmt: skip
        vqvae = build(VqvaeSettings, dict(channels=(4, 8), residual_layers=1, codes=16, patch=(8, 8, 8)))
        codec = VectorQuantised(**vqvae.network)
        about = dict(kind=VQVAE_KIND, preset="test", settings=to_dict(vqvae), codec=codec.settings,
                     data=dict(encodings=ENCODINGS, sources=["phantom"]))  # fmt: skip
        save_weights(tmp_path / "vqvae.safetensors", codec.network.state_dict(), about)
        return found | dict(vqvae_weights=tmp_path / "vqvae.safetensors")

    return make


def translator(files, device="cpu", **changes):
    sampling = dict(sampler="euler", steps=1)
    asked = files | dict(slices_sampling=sampling, refiner_sampling=sampling, precision="float32") | changes
    return CtTranslator.load(build(TranslationInferenceSettings, asked), torch.device(device))


def ct(shape, affine=None, seed=0):
    voxels = np.random.default_rng(seed).uniform(-1000, 300, shape).astype(np.float32)
    return CtSource(Ct(Volume(voxels, np.diag([4.0] * 3 + [1.0]) if affine is None else affine)))


ORIENTATIONS = {
    "plain": np.diag([4.0, 4.0, 4.0, 1.0]),
    "another order": np.array([[0, 4.0, 0, 5], [0, 0, -4.0, 6], [4.0, 0, 0, 7], [0, 0, 0, 1]]),
    "thick slices": np.diag([3.0, 3.0, 7.0, 1.0]),
}


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 2), (17, 9, 12)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("stage", ["slices", "refined"])
def test_any_shape_and_orientation_comes_back_on_its_own_grid(files, shape, orientation, stage):
    source = ct(shape, ORIENTATIONS[orientation])
    made = translator(files(neighbours=1), stage=stage).run(source)
    assert set(made) == {"MR"}
    assert made["MR"].shape == shape
    assert np.array_equal(made["MR"].affine, source.ct.ct.affine)
    assert np.isfinite(made["MR"].voxels).all()
    if stage == "slices" and orientation != "thick slices":
        assert made["MR"].voxels == pytest.approx(250.0, abs=0.01)  # the codec's mean, in MR units


def test_a_network_of_volumes_takes_the_place_of_that_of_slices(files):
    made = translator(files(patch=(8, 8, 8)), stage="slices").run(ct((10, 11, 12)))["MR"]
    assert made.voxels == pytest.approx(250.0, abs=0.01)


def test_a_refinement_that_changes_nothing_gives_what_the_vq_vae_makes_of_the_slices(files):
    weights, source = files(), ct((12, 9, 14))
    stacked = translator(weights, stage="slices").run(source)["MR"]
    latent = LatentVolumes.load(weights["vqvae_weights"], torch.device("cpu"))
    channels = torch.stack([torch.from_numpy(each.voxels) for each in latent.encode(stacked)])
    again = latent.decode(channels, stacked)
    made = translator(weights).run(source)["MR"]
    assert np.abs(made.voxels - again.voxels).max() < 1e-2
    encoded = latent.encode(stacked)[0]
    assert encoded.shape == (3, 3, 4)
    assert encoded.affine[:3, 3] == pytest.approx([6.0, 6.0, 6.0])  # the middle of four voxels of 4 mm


@pytest.mark.parametrize("start", [0.0, 2.0])
def test_samples_differ_and_their_spread_is_given(files, start):
    weights = files(gain=1.0, family="edm", spread=1.0)
    made = translator(weights, samples=3, slices_start=start, refiner_start=start)
    found, again = (made.run(ct((9, 8, 6)), seed=1) for _ in range(2))
    assert set(found) == {"MR", "MR_std"}
    assert np.array_equal(found["MR"].voxels, again["MR"].voxels)
    assert found["MR_std"].voxels.max() > 1
    assert np.abs(found["MR"].voxels - made.run(ct((9, 8, 6)), seed=2)["MR"].voxels).max() > 1


def test_weights_that_do_not_belong_together_are_refused(files):
    weights = files()
    with pytest.raises(InputError, match="stage refined needs vqvae_weights and refiner_weights"):
        translator(weights | dict(refiner_weights=None))
    with pytest.raises(InputError, match="holds no VQ-VAE"):
        translator(weights | dict(vqvae_weights=weights["slices_weights"]))
    with pytest.raises(InputError, match="holds no CT-to-MR translator"):
        translator(weights | dict(slices_weights=weights["refiner_weights"]))
    with pytest.raises(InputError, match="refines 3 latent channels, the VQ-VAE has 2"):
        translator(files(latents=3))
    with pytest.raises(InputError, match="a regression has one result only"):
        translator(files(), samples=2, stage="slices")


def test_a_refiner_is_used_with_the_vqvae_whose_latents_it_learnt(files, tmp_path):
    weights = files()
    state, about = load_weights(weights["refiner_weights"])
    own = fingerprint(weights["vqvae_weights"])
    for noted, refused in ((own, False), ("sha256 of another", True)):
        save_weights(tmp_path / "refiner.safetensors", state, about | dict(data=about["data"] | dict(vqvae=noted)))
        with pytest.raises(InputError, match="learnt in the latents of another") if refused else nullcontext():
            translator(weights)


def test_the_shipped_refiner_says_whose_latents_it_learnt():
    data = load_weights(RESOURCE / "demo-mr-refiner.safetensors")[1]["data"]
    assert data["vqvae"] == fingerprint(RESOURCE / "demo-mr-vqvae.safetensors")


def test_coarse_slices_are_doubtful(files):
    made = translator(files(), stage="slices")
    assert made.doubts(ct((8, 8, 8))) == []
    assert "voxels of 7 mm are interpolated to 4 mm" in made.doubts(ct((8, 8, 8), ORIENTATIONS["thick slices"]))[0]


def test_a_file_is_translated_by_the_script(files, tmp_path, invoke):
    voxels = np.full((9, 11, 7), -1000, np.float32)
    voxels[2:7, 3:8] = 40
    write_nifti(tmp_path / "ct.nii.gz", Volume(voxels, np.diag([4.0] * 3 + [1.0])))
    weights = [part for name, path in files(family="edm").items() for part in ("--set", f"{name}={path}")]
    asked = [SCRIPT, "--preset", "smoke", "--input", tmp_path / "ct.nii.gz", "--outdir", tmp_path / "out", *weights]
    first = invoke(*asked, "--samples", 2)
    assert first.exit_code == 0, first.output
    assert {p.name for p in (tmp_path / "out/ct").iterdir()} >= {"MR.nii.gz", "MR_std.nii.gz", "preview.png"}
    assert "0 subjects done, 1 were done before" in invoke(*asked, "--samples", 2).output
    assert invoke(*asked, "--samples", 3).exit_code == 2
    voxels[2, 3, 2] += 1
    write_nifti(tmp_path / "other/ct.nii.gz", Volume(voxels, np.diag([4.0] * 3 + [1.0])))
    others = [tmp_path / "other/ct.nii.gz" if each == tmp_path / "ct.nii.gz" else each for each in asked]
    assert "made with another input of that name" in invoke(*others, "--samples", 2).stderr
    one = [*asked[:6], tmp_path / "one", *weights]
    assert invoke(*one).exit_code == 0
    assert not (tmp_path / "one/ct/MR_std.nii.gz").exists()
    assert "0 subjects done, 1 were done before" in invoke(*one).output


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_all_of_it_is_computed_where_the_weights_are(files, elsewhere, start):
    made = translator(files(family="edm", neighbours=1), elsewhere, samples=2, slices_start=start, refiner_start=start)
    assert {volume.shape for volume in made.run(ct((9, 8, 6))).values()} == {(9, 8, 6)}
