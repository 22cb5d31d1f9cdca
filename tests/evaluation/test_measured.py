"""The table of a cohort is measured once, again when its files are others, and reads with its demographics."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from totalgen.data.measures import measure_study
from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.errors import InputError
from totalgen.evaluation import measured as module
from totalgen.evaluation.measured import measure_bodies, measure_cohort, read_bodies, read_measured
from totalgen.evaluation.measured_cohort import load_cohort
from totalgen.evaluation.reference_ranges import measure_quality

REPOSITORY = Path(__file__).parents[2]


def scale(path, factor):
    """Other values in a volume, with the time of the last change that it had: as a file that is put in its place."""
    times = path.stat()
    volume = read_nifti(path)
    write_nifti(path, Volume(volume.voxels * np.float32(factor), volume.affine))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def described(root, split=None):
    spec = importlib.util.spec_from_file_location("fidelity", REPOSITORY / "3_Evaluations" / "7_fidelity.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.described(root, split, None, None, 1, None)


TABLES = {  # table → (what measures it, a split of it)
    "organs.csv": measure_cohort,
    "bodies.csv": measure_bodies,
    "volume_features.csv": described,
    "organs_quality.csv": lambda root, split=None: measure_quality(root),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("split", [None, "test"])
def test_a_row_is_of_the_files_that_are_there(cohort, table, split, capsys):
    """Whatever their times are, and whoever else was measured since; touched files are the same."""
    measure, path = TABLES[table], cohort / table
    measure(cohort)
    first = path.read_text()
    for file in cohort.glob("cropped/*/*.nii.gz"):
        file.touch()
    measure(cohort)
    assert "0 subjects done, 4 were done before" in capsys.readouterr().out
    scale(cohort / "cropped" / "s0" / "SUV.nii.gz", 2)
    measure(cohort, split=split)
    measure(cohort)
    rows, before = (pd.read_csv(text, dtype=str) for text in (path, io.StringIO(first)))
    same = [rows[rows["subject"] == s].equals(before[before["subject"] == s]) for s in ("s0", "s1", "s2", "s3")]
    assert same == [False, True, True, True]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_an_earlier_version_goes_by_times(cohort, table, capsys):
    TABLES[table](cohort)
    record = cohort / f".{table}.made-with.json"
    record.unlink()
    written = (cohort / table).stat().st_mtime
    os.utime(cohort / "cropped" / "s1" / "SUV.nii.gz", (written + 5, written + 5))
    capsys.readouterr()
    TABLES[table](cohort)
    assert "1 subjects done, 3 were done before" in capsys.readouterr().out
    assert set(json.loads(record.read_text())["sources"]) == {"s0", "s1", "s2", "s3"}


def test_comparing_says_when_a_table_is_of_other_masks(cohort, capsys):
    measure_cohort(cohort)
    load_cohort("R", cohort)
    assert capsys.readouterr().err == ""
    scale(cohort / "cropped" / "s0" / "SUV.nii.gz", 2)
    (cohort / "cropped" / "s1" / "SUV.nii.gz").unlink()  # to save space: no other file
    load_cohort("R", cohort)
    assert "organs.csv: 1 of its subjects (s0) were measured in other files than are there now" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("column", "value", "words"), [("sex", "f", "sex is .f."), ("weight_kg", "", "weight")])
def test_who_no_column_of_table_1_would_count_is_named(cohort, column, value, words):
    measure_cohort(cohort)
    table = pd.read_csv(cohort / "cohort.csv", dtype=str)
    table.loc[table["subject"] == "s3", column] = value
    table.to_csv(cohort / "cohort.csv", index=False)
    for split in (None, "test"):
        with pytest.raises(InputError, match=f"cohort.csv, row 5, subject s3: {words}"):
            load_cohort("R", cohort, split)


def test_a_cohort_is_measured_once_and_again_when_a_mask_is_another(cohort, monkeypatch):
    path = measure_cohort(cohort)
    table = pd.read_csv(path)
    assert len(table) == 4 * 4
    liver = table[(table["subject"] == "s2") & (table["organ"] == "liver")].iloc[0]
    assert liver["volume_l"] == pytest.approx(7 * 8 * 8 * 1.728 / 1000, rel=1e-5)
    assert liver["suv_mean"] == pytest.approx(2.2 * 1.2, rel=1e-5)

    measured = []
    monkeypatch.setattr(module, "measure_study", lambda *a: measured.append(1) or measure_study(*a))
    measure_cohort(cohort)
    assert measured == []
    scale(cohort / "cropped" / "s1" / "organs.nii.gz", 0)
    measure_cohort(cohort)
    assert len(measured) == 1
    assert len(pd.read_csv(path)) == 4 * 4


def test_measuring_a_split_keeps_the_rows_of_others_but_not_old_ones(cohort):
    path = measure_cohort(cohort)
    scale(cohort / "cropped" / "s0" / "organs.nii.gz", 0)
    measure_cohort(cohort, split="test")
    assert set(pd.read_csv(path)["subject"]) == {"s1", "s2", "s3"}  # s0 is measured again by the next run of all
    assert len(pd.read_csv(measure_cohort(cohort))) == 4 * 4
    path.unlink()
    assert set(pd.read_csv(measure_cohort(cohort, split="test"))["subject"]) == {"s3"}


def test_one_bad_subject_is_listed_and_the_others_are_measured(cohort):
    (cohort / "cropped" / "s1" / "organs.nii.gz").write_bytes(b"not a NIfTI")
    (cohort / "cropped" / "s2" / "SUV.nii.gz").unlink()
    path = measure_cohort(cohort)
    assert set(pd.read_csv(path)["subject"]) == {"s0", "s3"}
    failures = pd.read_csv(cohort / "failures.csv")
    assert set(failures["subject"]) == {"s1", "s2"}
    assert set(failures["step"]) == {"measure"}


def test_a_measured_split_is_read_with_its_demographics(cohort):
    measure_cohort(cohort)
    table = read_measured(cohort, split="test")
    assert set(table["subject"]) == {"s3"}
    assert {"sex", "age_years", "volume_l", "flag"} <= set(table)
    with pytest.raises(InputError, match=r'split "val".*test, train'):
        read_measured(cohort, split="val")


def test_a_column_of_the_manifest_gives_way_to_what_was_measured(cohort):
    """A generated study that was checked has a mass_kg in its manifest, too."""
    table = pd.read_csv(cohort / "cohort.csv").assign(mass_kg=1.0, volume_l=2.0)
    table.to_csv(cohort / "cohort.csv", index=False)
    measure_cohort(cohort)
    measure_bodies(cohort)
    assert (read_bodies(cohort)["mass_kg"] > 10).all()
    assert (read_measured(cohort)["volume_l"] != 2.0).all()


def test_a_subject_may_be_called_na(cohort):
    path = cohort / "cohort.csv"
    path.write_text(path.read_text().replace("s0", "NA"))
    (cohort / "cropped" / "s0").rename(cohort / "cropped" / "NA")
    measure_cohort(cohort)
    assert set(read_measured(cohort)["subject"]) == {"NA", "s1", "s2", "s3"}


def test_bad_folders_end_in_one_line_and_code_2(invoke, tmp_path, generated):
    script = "3_Evaluations/2_measure_organs.py"
    for root, words in [(tmp_path / "nowhere", "no such folder"), (tmp_path, "neither cohort.csv nor manifest.csv")]:
        result = invoke(script, "--root", root)
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: ")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    result = invoke(script, "--root", generated)  # every study lacks its organs
    assert result.exit_code == 2
    assert "Step measure failed for all 4 subjects" in result.stderr


def test_the_command_itself_prints_one_line_and_exits_with_code_2(tmp_path):
    script = REPOSITORY / "3_Evaluations" / "2_measure_organs.py"
    result = subprocess.run([sys.executable, script, "--root", tmp_path], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
