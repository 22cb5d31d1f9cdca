"""A generated cohort is complete, resumable and reads like a real one."""

import imageio.v3 as imageio
import pytest

from totalgen.data.demographics import Demographics, read_cohort
from totalgen.data.volume import read_nifti
from totalgen.errors import InputError
from totalgen.generation.cohort import generate_cohort, matched_subjects

SUBJECTS = [("a", Demographics("F", 60, 1.65, 66), 1), ("b", Demographics("M", 50, 1.8, 90), 2)]


def test_every_subject_gets_its_folder_and_its_row(cascade, tmp_path):
    table = generate_cohort(cascade(), SUBJECTS, tmp_path, "tiny")
    assert list(table["subject"]) == ["a", "b"]
    assert set(table["source"]) == {"generated, trained on phantom data"}
    for name in ("a", "b"):
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {"CT.nii.gz", "SUV.nii.gz", "preview.png", "mip.gif", "study.json"}
    assert read_nifti(tmp_path / "a" / "CT.nii.gz").shape == read_nifti(tmp_path / "a" / "SUV.nii.gz").shape
    assert len(imageio.imread(tmp_path / "a" / "mip.gif")) == 24  # frames of one turn
    again = matched_subjects(read_cohort(tmp_path / "manifest.csv"), seed=1)
    assert again == SUBJECTS  # the manifest is a cohort table


def test_running_again_makes_only_what_is_missing(cascade, tmp_path):
    generate_cohort(cascade(), SUBJECTS, tmp_path, "tiny")
    kept = (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns
    before = read_nifti(tmp_path / "b" / "CT.nii.gz").voxels
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    (tmp_path / "b").rmdir()
    generate_cohort(cascade(), SUBJECTS, tmp_path, "tiny")
    assert (tmp_path / "a" / "CT.nii.gz").stat().st_mtime_ns == kept
    assert (read_nifti(tmp_path / "b" / "CT.nii.gz").voxels == before).all()


def test_processes_share_a_cohort_and_change_nothing(cascade, tmp_path):
    for ranks in (1, 2):
        for rank in range(ranks):
            generate_cohort(cascade(), SUBJECTS, tmp_path / str(ranks), "tiny", rank, ranks)
    assert len(read_cohort(tmp_path / "2" / "manifest.csv")) == 2
    for name in ("a", "b"):
        for file in ("CT.nii.gz", "SUV.nii.gz"):
            alone, shared = (read_nifti(tmp_path / ranks / name / file).voxels for ranks in ("1", "2"))
            assert (alone == shared).all()


def test_a_split_that_is_not_there_is_refused(cascade, tmp_path):
    generate_cohort(cascade(), SUBJECTS, tmp_path, "tiny")
    with pytest.raises(InputError, match="no subject of split validation"):
        matched_subjects(read_cohort(tmp_path / "manifest.csv"), 1, "validation")
