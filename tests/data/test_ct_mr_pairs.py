"""CT and MR with different boxes become one grid on which the same place is the same voxel."""

import numpy as np
import pandas as pd
import pytest

from totalgen.data.ct_mr_pairs import pair
from totalgen.data.names import matching
from totalgen.data.volume import Volume, moved, read_nifti, resample, write_nifti
from totalgen.errors import InputError


def ball(low, high, edges, centre, inside, outside):
    """A ball of 30 mm about ``centre`` (mm) on a grid from ``low`` to ``high`` with voxels of ``edges``."""
    shape = [int((b - a) / edge) for a, b, edge in zip(low, high, edges, strict=True)]
    axes = [a + edge * (np.arange(n) + 0.5) for a, n, edge in zip(low, shape, edges, strict=True)]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    distance = np.sqrt(((at - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0))
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = np.array(low) + np.array(edges) / 2
    return Volume(np.where(distance < 30, inside, outside).astype(np.float32), affine)


CENTRE = (10.0, -5.0, 3.0)
CT = ball((-60, -60, -60), (70, 60, 70), (1.0, 1.0, 3.0), CENTRE, 40, -1000)
MR = ball((-45, -70, -40), (80, 50, 60), (2.0, 1.5, 2.5), CENTRE, 600, 20)


def test_the_common_box_is_kept_and_places_agree():
    ct, mr, report = pair(CT, MR, 2.0)
    assert ct.shape == mr.shape
    assert np.array_equal(ct.affine, mr.affine)
    low, high = ct.corners.min(0), ct.corners.max(0)
    assert (low >= np.array([-45, -60, -40]) - 1e-6).all()
    assert (high <= np.array([70, 50, 60]) + 1e-6).all()
    for made, inside in ((ct.voxels > -500, 40), (mr.voxels > 300, 600)):
        middle = np.argwhere(made).mean(0) @ ct.affine[:3, :3] + ct.affine[:3, 3]
        assert middle == pytest.approx(CENTRE, abs=0.5), inside
        assert made.sum() * 8 == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.05)
    assert report["overlap"] > 0.94
    assert report["mr_factor"] == 1


@pytest.mark.parametrize("tilted", ["MR", "CT"])
def test_a_tilted_image_says_nothing_of_what_lies_beside_it(tilted):
    """A slab about the ball, 48 mm thick and tilted by 15°: where only one image shows the ball is not in the pair."""
    sine, cosine = np.sin(np.radians(15)), np.cos(np.radians(15))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    affine = np.eye(4)
    affine[:3, :3] = 2 * turn
    affine[:3, 3] = np.array(CENTRE) - affine[:3, :3] @ ((np.array([50, 50, 12]) - 1) / 2)
    ct, mr = CT, MR
    if tilted == "MR":
        mr = resample(MR, (50, 50, 24), affine, fill=20)
    else:
        ct = resample(CT, (50, 50, 24), affine, fill=-1000)
    made_ct, made_mr, report = pair(ct, mr, 2.0)
    assert ((made_ct.voxels > -200) == (made_mr.voxels > 300)).mean() > 0.97
    assert report["overlap"] > 0.9
    assert min(made_ct.shape) >= 8
    distance = np.linalg.norm(made_ct.world(np.argwhere(made_ct.voxels > -200)) - CENTRE, axis=1)
    assert distance.max() < 31
    assert len(distance) * 8 > 0.5 * 4 / 3 * np.pi * 30**3
    thin = resample(MR, (50, 50, 4), affine, fill=20)
    if tilted == "MR":
        with pytest.raises(InputError, match="too small: one is tilted"):
            pair(ct, thin, 2.0)


def test_a_scaling_is_reported_and_can_be_undone():
    _, plain, _ = pair(CT, MR, 2.0)
    _, scaled, report = pair(CT, MR, 2.0, percentile=50)
    assert np.abs(scaled.voxels / report["mr_factor"] - plain.voxels).max() < 1e-2
    assert np.median(scaled.voxels[plain.voxels > 300]) == pytest.approx(1000, rel=0.01)


def test_what_is_no_pair_is_refused():
    far = Volume(MR.voxels, moved(MR.affine, (250, 0, 0)))
    with pytest.raises(InputError, match="in common, too little. Are they of one frame of reference"):
        pair(CT, far, 2.0)
    beside = ball((-60, -60, -60), (70, 60, 70), (2.0, 2.0, 2.0), (-20.0, 25.0, -25.0), 600, 20)
    with pytest.raises(InputError, match="overlap by 0.* only: different patients or frames of reference"):
        pair(CT, beside, 2.0)
    with pytest.raises(InputError, match="no magnitudes"):
        pair(CT, CT, 2.0)
    with pytest.raises(InputError, match="not a finite number"):
        pair(CT, Volume(np.full((20, 20, 20), np.nan, np.float32), MR.affine), 2.0)


def test_the_script_pairs_files_and_splits_by_patient(tmp_path, script):
    for name in ("a", "b", "c", "d"):
        write_nifti(tmp_path / name / "ct.nii.gz", CT)
        write_nifti(tmp_path / name / "mr {T1} [1].nii.gz", MR)  # braces and brackets that mean themselves
    (tmp_path / "d/mr {T1} [1].nii.gz").unlink()
    patterns = ("--ct", f"{tmp_path}/{{}}/ct.nii.gz", "--mr", f"{tmp_path}/{{}}/mr {{T1}} [1].nii.gz")
    asked = (8, "--root", tmp_path / "out", *patterns)
    result = script(*asked, "--voxel-mm", 4)
    assert result.exit_code == 0, result.output
    assert "1 of 4 patients have no MR" in result.stderr
    table = pd.read_csv(tmp_path / "out/cohort.csv")
    assert sorted(table["subject"]) == ["a", "b", "c"]
    assert (table["split"] == "test").sum() == 1
    assert read_nifti(tmp_path / "out/pairs/a/MR.nii.gz").voxel_mm == pytest.approx([4.0] * 3)
    assert "3 were done before" in script(*asked, "--voxel-mm", 4).output
    assert script(8, "--root", tmp_path, "--ct", "x/{}.nii.gz", "--mr", "y.nii.gz").exit_code == 2


def test_a_file_in_metres_is_a_failure_by_name(tmp_path, script):
    for name, factor in (("a", 1.0), ("b", 1e-3)):
        write_nifti(tmp_path / f"{name}_ct.nii.gz", CT)
        write_nifti(tmp_path / f"{name}_mr.nii.gz", Volume(MR.voxels, np.diag([factor] * 3 + [1]) @ MR.affine))
    patterns = [f"--{kind}={tmp_path}/{{}}_{kind}.nii.gz" for kind in ("ct", "mr")]
    assert script(8, "--root", tmp_path / "out", *patterns, "--voxel-mm", 4).exit_code == 0
    (failure,) = pd.read_csv(tmp_path / "out/failures.csv")["error"]
    assert "b_mr.nii.gz: its voxels have edges of 0.002 × 0.0015 × 0.0025 mm" in failure


@pytest.mark.parametrize("splits", [True, False])
def test_more_patients_join_the_table_and_nobody_in_it_changes(tmp_path, script, splits):
    def run(*names):
        for name in names:
            for kind, volume in (("ct", CT), ("mr", MR)):
                write_nifti(tmp_path / name / f"{kind}.nii.gz", volume)
        patterns = [f"--{kind}={tmp_path}/{{}}/{kind}.nii.gz" for kind in ("ct", "mr")]
        result = script(8, "--root", tmp_path / "out", *patterns, "--voxel-mm", 4, "--test-fraction", 0.5)
        assert result.exit_code == 0, result.output
        return pd.read_csv(tmp_path / "out" / "cohort.csv", dtype=str, keep_default_na=False)

    own = run("b", "e").assign(split=["validation", "test"], scanner="mine")
    (own if splits else own.drop(columns="split")).to_csv(tmp_path / "out" / "cohort.csv", index=False)
    added = run("a", "c", "d")
    assert added["subject"].tolist() == ["b", "e", "a", "c", "d"]
    assert added["scanner"].tolist() == ["mine", "mine", "", "", ""]
    assert "split" in added if splits else "split" not in added
    if splits:
        assert added["split"][:2].tolist() == ["validation", "test"]
        assert added["split"].tolist().count("test") == 3  # half of five
    assert run().equals(added)


def test_patients_of_other_files_join_but_not_with_other_settings(tmp_path, script):
    for name in ("a", "b"):
        for kind, volume in (("ct", CT), ("mr", MR)):
            write_nifti(tmp_path / f"of_{name}" / name / f"{kind}.nii.gz", volume)

    def run(name, *more):
        patterns = [f"--{kind}={tmp_path}/of_{name}/{{}}/{kind}.nii.gz" for kind in ("ct", "mr")]
        return script(8, "--root", tmp_path / "out", *patterns, "--voxel-mm", 4, *more)

    assert run("a").exit_code == 0
    assert "1 result (a) was made with percentile None, not with percentile 99" in run("b", "--percentile", 99).stderr
    assert not (tmp_path / "out" / "pairs" / "b").exists()
    for name in ("b", "a"):
        assert run(name).exit_code == 0
    assert pd.read_csv(tmp_path / "out" / "cohort.csv")["subject"].tolist() == ["a", "b"]


def test_names_are_found_on_both_sides_of_the_pattern(tmp_path):
    for name in ("scan_a_ct.nii", "scan_b_ct.nii", "scan_a_mr.nii", "other.nii"):
        (tmp_path / name).touch()
    found = matching(f"{tmp_path}/scan_{{}}_ct.nii", f"{tmp_path}/scan_{{}}_mr.nii")
    assert found == (["a"], ["b"])
    with pytest.raises(InputError, match="no subject has all files"):
        matching(f"{tmp_path}/none_{{}}.nii")


def test_a_ct_without_its_rescale_is_refused():
    for stored in (Volume(CT.voxels + 1024, CT.affine), Volume(CT.voxels[45:95, 30:80, 16:27] + 1024, CT.affine)):
        with pytest.raises(InputError, match="Export it in HU"):
            pair(stored, MR, 2.0)
