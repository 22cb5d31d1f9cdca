import numpy as np
import pytest
from scipy import ndimage

from totalgen.data.demographics import Demographics
from totalgen.data.organs import MEASURED, ORGANS
from totalgen.errors import InputError
from totalgen.phantom import make_subject, sample_demographics
from totalgen.phantom.population import POPULATION, VOLUME_ML, sample_organs
from totalgen.phantom.uptake import TRACERS

COARSE_MM = 8.0
WOMAN = Demographics("F", 59, 1.65, 76)
MAN = Demographics("M", 58, 1.77, 83)


@pytest.fixture(scope="module")
def man():
    return make_subject(MAN, seed=5, voxel_mm=COARSE_MM)


@pytest.fixture(scope="module")
def woman():
    return make_subject(WOMAN, seed=6, voxel_mm=COARSE_MM)


@pytest.fixture(params=["man", "woman"])
def subject(request):
    return request.getfixturevalue(request.param)


def centre(subject, organ):
    """World coordinates (mm) of the centre of an organ."""
    return subject.organs.world(np.argwhere(subject.organs.voxels == ORGANS[organ])).mean(0)


def test_the_same_seed_gives_the_same_subject_bit_for_bit(man):
    again = make_subject(MAN, seed=5, voxel_mm=COARSE_MM)
    for name in ("ct", "suv", "organs"):
        assert np.array_equal(getattr(man, name).voxels, getattr(again, name).voxels)
        assert np.array_equal(getattr(man, name).affine, getattr(again, name).affine)
    assert man.truth == again.truth


def test_another_seed_gives_another_subject(man):
    other = make_subject(MAN, seed=8, voxel_mm=COARSE_MM)
    assert abs(other.truth["liver_volume_ml"] / man.truth["liver_volume_ml"] - 1) > 0.01


def test_another_voxel_size_shows_the_same_patient(man):
    other = make_subject(MAN, seed=5, voxel_mm=6.0)
    for organ in ("liver", "heart", "kidneys", "spleen"):
        assert other.truth[f"{organ}_volume_ml"] == pytest.approx(man.truth[f"{organ}_volume_ml"], rel=0.04)
        assert other.truth[f"{organ}_suv_mean"] == pytest.approx(man.truth[f"{organ}_suv_mean"], rel=0.04)
    assert centre(other, "liver") == pytest.approx(centre(man, "liver"), abs=4)  # half a voxel


def test_without_variability_the_seed_changes_noise_only():
    a = make_subject(WOMAN, seed=1, voxel_mm=COARSE_MM, variability=0)
    b = make_subject(WOMAN, seed=2, voxel_mm=COARSE_MM, variability=0)
    assert np.array_equal(a.organs.voxels, b.organs.voxels)
    assert not np.array_equal(a.ct.voxels, b.ct.voxels)
    # grown to the sampled volume, exact to one voxel; equal values in mirrored voxels can add a few
    assert a.truth["liver_volume_ml"] == pytest.approx(VOLUME_ML["F"]["liver"][0], rel=0.02)


def test_truth_is_what_is_measured_in_the_voxels(subject):
    for organ, ids in {**{name: (i,) for name, i in ORGANS.items()}, **MEASURED}.items():
        count = sum(np.count_nonzero(subject.organs.voxels == i) for i in ids)
        assert count > 0, organ
        assert subject.truth[f"{organ}_volume_ml"] == pytest.approx(count * COARSE_MM**3 / 1000)
        mask = np.isin(subject.organs.voxels, ids)
        assert subject.truth[f"{organ}_suv_max"] == pytest.approx(subject.suv.voxels[mask].max())


def test_measured_uptake_is_the_noiseless_one_within_noise(subject):
    for organ, ids in MEASURED.items():
        values = subject.suv.voxels[np.isin(subject.organs.voxels, ids)]
        error = 5 * values.std() / np.sqrt(len(values))  # noise is correlated over some voxels: five standard errors
        assert values.mean() == pytest.approx(subject.truth[f"{organ}_suv_mean"], abs=error)


def test_uptake_is_calibrated_to_the_sampled_values():
    seed = 5
    anatomy = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    sampled = sample_organs(MAN, anatomy)
    truth = make_subject(MAN, seed=seed, voxel_mm=COARSE_MM).truth
    for organ, suv in sampled.suv_mean.items():
        assert truth[f"{organ}_suv_mean"] == pytest.approx(suv, rel=0.03)
    for organ in MEASURED:
        assert truth[f"{organ}_volume_ml"] == pytest.approx(sampled.volume_ml[organ], rel=0.04)


def test_the_liver_is_on_the_patients_right_and_the_spleen_on_the_left(subject):
    assert centre(subject, "liver")[0] > 30  # RAS+: x grows to the patient's right
    assert centre(subject, "spleen")[0] < -60
    assert centre(subject, "heart")[0] < -5
    for organ in ("kidney", "scapula", "clavicula", "hip"):
        assert centre(subject, f"{organ}_right")[0] > 40
        assert centre(subject, f"{organ}_left")[0] < -40


def test_organs_are_stacked_from_the_bladder_to_the_clavicles(subject):
    order = ["urinary_bladder", "sacrum", "kidney_right", "liver", "heart", "clavicula_right"]
    heights = [centre(subject, organ)[2] for organ in order]
    assert heights == sorted(heights)
    assert centre(subject, "kidney_left")[2] > centre(subject, "kidney_right")[2]
    assert centre(subject, "sacrum")[1] < centre(subject, "urinary_bladder")[1]  # y grows to the front


def test_organs_lie_within_the_body_and_air_holds_no_tracer(subject):
    body = np.stack([ndimage.binary_fill_holes(s) for s in np.moveaxis(subject.ct.voxels > -500, 2, 0)], -1)
    assert body[subject.organs.voxels > 0].all()
    far = ~ndimage.binary_dilation(body, iterations=3)
    assert subject.suv.voxels[far].max() < 0.05
    assert subject.ct.voxels[far].mean() == pytest.approx(-1000, abs=5)


def test_measured_organs_are_in_one_piece(subject):
    for organ in ("liver", "heart", "spleen", "kidney_left", "kidney_right"):
        pieces, count = ndimage.label(subject.organs.voxels == ORGANS[organ], np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() / sizes.sum() > 0.97, organ


@pytest.mark.parametrize(("sex", "height_m"), [("F", 1.52), ("M", 1.95)])
def test_length_follows_the_published_line(sex, height_m):
    weight = 24 * height_m**2
    subject = make_subject(Demographics(sex, 60, height_m, weight), seed=3, voxel_mm=COARSE_MM)
    labels = subject.organs.voxels
    clavicles = np.argwhere(np.isin(labels, [ORGANS["clavicula_left"], ORGANS["clavicula_right"]]))[:, 2].max()
    sacrum = np.argwhere(labels == ORGANS["sacrum"])[:, 2].min()
    extent_mm = (clavicles - sacrum + 1) * COARSE_MM + 2 * 40
    assert extent_mm == pytest.approx((146.629 * height_m + 110.419) * 2, rel=0.06)  # scatter 2 %, warp, one voxel
    assert labels.shape[2] * COARSE_MM > extent_mm  # the margins are inside the field


@pytest.mark.parametrize("weight_kg", [50, 80, 125])
def test_trunk_mass_follows_body_mass(weight_kg):
    subject = make_subject(Demographics("M", 50, 1.75, weight_kg), seed=4, voxel_mm=COARSE_MM)
    z = subject.ct.world(np.stack([np.zeros(subject.ct.shape[2])] * 2 + [np.arange(subject.ct.shape[2])], -1))[:, 2]
    length = subject.truth["length_mm"]
    trunk = subject.ct.voxels[:, :, (z > -0.03 * length) & (z < 0.97 * length)]
    density = np.clip(1 + trunk[trunk > -900] / 1000, 0, None)  # g/mL, water 1
    mass_kg = density.sum() * COARSE_MM**3 / 1e6
    assert 0.48 < mass_kg / weight_kg < 0.66  # trunk with shoulders: 0.5–0.6 of the body


@pytest.mark.slow
def test_a_sampled_cohort_has_the_published_organ_volumes():
    rng = np.random.default_rng(11)
    rows = []
    while len(rows) < 40:
        d = sample_demographics(rng)
        rows.append((d.sex, make_subject(d, seed=len(rows), voxel_mm=COARSE_MM).truth))
    for sex in POPULATION:
        truths = [truth for s, truth in rows if s == sex]
        for organ in ("liver", "heart", "kidneys", "spleen"):
            mean, std = VOLUME_ML[sex][organ]
            volumes = np.array([t[f"{organ}_volume_ml"] for t in truths])
            assert abs(volumes.mean() - mean) < 4 * std / np.sqrt(len(truths))  # four standard errors
            assert 0.5 < volumes.std() / std < 1.6


def test_options_of_scanner_tracer_and_spheres_leave_the_rest_as_it_was():
    plain = make_subject(WOMAN, seed=4, voxel_mm=10.0)
    hot = make_subject(WOMAN, seed=4, voxel_mm=10.0, spheres=6)
    labels = hot.spheres.voxels
    assert np.array_equal(plain.organs.voxels, hot.organs.voxels)
    assert np.array_equal(plain.ct.voxels, hot.ct.voxels)
    assert not plain.spheres.voxels.any()
    far = ndimage.distance_transform_edt(labels == 0) > 3
    assert np.allclose(plain.noise_free.voxels[far], hot.noise_free.voxels[far], atol=1e-3)
    for number in range(1, labels.max() + 1):
        inside = labels == number
        volume_ml = np.pi / 6 * hot.truth[f"sphere_{number}_mm"] ** 3 / 1000
        assert abs(np.count_nonzero(inside) - volume_ml) <= max(3, 0.6 * volume_ml)  # voxels of 1 mL
        assert hot.noise_free.voxels[inside].mean() > 1.2 * plain.noise_free.voxels[inside].mean()


def test_noise_is_unbiased_before_it_is_cut_and_biased_after():
    made = make_subject(WOMAN, seed=4, voxel_mm=10.0)
    assert np.array_equal(made.suv.voxels, np.maximum(made.unclipped.voxels, 0))
    cold = (made.noise_free.voxels > 0.02) & (made.noise_free.voxels < 0.3)
    assert made.unclipped.voxels[cold].mean() == pytest.approx(made.noise_free.voxels[cold].mean(), rel=0.02)


def test_tracers_differ_where_they_should():
    subjects = {name: make_subject(WOMAN, seed=4, voxel_mm=10.0, tracer=name) for name in TRACERS}
    mean = {name: {organ: s.truth[f"{organ}_suv_mean"] for organ in ("kidneys", "spleen", "sacrum")}
            for name, s in subjects.items()}  # fmt: skip
    assert mean["psma"]["kidneys"] > 4 * mean["fdg"]["kidneys"]
    assert mean["dotatate"]["spleen"] > 4 * mean["fdg"]["spleen"]
    assert mean["fluoride"]["sacrum"] > 3 * mean["fdg"]["sacrum"]
    with pytest.raises(InputError, match='Did you mean "psma"'):
        make_subject(WOMAN, seed=4, voxel_mm=12.0, tracer="psmaa")


def test_a_wider_blur_lowers_small_hot_things():
    narrow, wide = (make_subject(WOMAN, seed=4, voxel_mm=8.0, spheres=3, fwhm_mm=mm) for mm in (4.0, 9.0))
    inside = narrow.spheres.voxels == 1
    assert wide.noise_free.voxels[inside].mean() < 0.9 * narrow.noise_free.voxels[inside].mean()
