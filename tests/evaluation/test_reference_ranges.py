"""The reference of a cohort: a regression that is known, ranges that are counted, and who of the others passes."""

import json

import numpy as np
import pandas as pd
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.quality import Reference
from totalgen.evaluation import reference_ranges
from totalgen.evaluation.reference_ranges import fitted, measure_quality, write_reference


def people(n, seed=0):
    """Rows whose mass follows a line with residuals of at most 1 kg, and whose livers are of 1 000 to 2 000 mL."""
    random = np.random.default_rng(seed)
    height, weight = random.uniform(1.5, 2.0, n), random.uniform(50, 100, n)
    mass = 3 + 10 * height + 0.4 * weight + random.uniform(-1, 1, n)
    liver = {"liver.volume": np.linspace(1000, 2000, n), "liver.hu": 60.0, "liver.suv": np.linspace(1, 3, n)}
    spleen = {"spleen.volume": np.where(np.arange(n) == 0, 0, 200.0), "spleen.hu": 50.0, "spleen.suv": 2.0}
    rows = pd.DataFrame(dict(height_m=height, weight_kg=weight, mass_kg=mass, sex="F", age_years=60) | liver | spleen)
    rows.loc[0, ["spleen.hu", "spleen.suv"]] = np.nan
    return rows


def test_a_line_that_is_known_is_found_with_its_residuals():
    known = fitted(people(400))
    assert known.mass["per_m"] == pytest.approx(10, abs=0.7)  # the standard error is 0.2
    assert known.mass["per_kg"] == pytest.approx(0.4, abs=0.01)
    assert known.mass["residual"] == pytest.approx((-1, 1), abs=0.15)
    assert known.organs["liver"] == dict(volume=(1000, 2000), hu=(60, 60), suv=(1, 3))
    assert known.organs["spleen"]["volume"][0] == 0  # one had none: it may be empty


def test_everybody_of_whom_a_reference_was_made_passes_it(tmp_path):
    rows = people(40)
    reference = Reference({"F": fitted(rows)}, (-500.0, 500.0))
    assert not any(reference.faults(Demographics.from_row(row), row) for row in rows.to_dict("records"))


def test_only_complete_torsos_of_the_split_count_and_the_others_are_held_against_them(tmp_path, monkeypatch):
    rows = people(40).assign(split=["train"] * 20 + ["test"] * 20, source="phantom", covers_torso=True)
    rows.loc[0, ["covers_torso", "mass_kg"]] = [False, 0.0]  # of train
    rows.loc[39, "mass_kg"] = 0.0  # of test
    rows["liver.volume"] = 1500.0
    rows.loc[25, "liver.volume"] = 0.0
    monkeypatch.setattr(reference_ranges, "measure_quality", lambda *_: rows)
    said = write_reference(tmp_path, tmp_path / "reference.json")
    about = json.loads((tmp_path / "reference.json").read_text())
    assert about["sexes"]["F"]["subjects"] == 19
    assert about["others"]["subjects"] == 20
    assert about["others"]["passed"] <= 18
    assert said.endswith(f"of 20 other subjects {about['others']['passed']} pass it")
    assert Reference.load(tmp_path / "reference.json").sexes["F"].subjects == 19


def test_what_is_measured_is_kept_until_it_is_outdated(cohort, capsys):
    first = measure_quality(cohort)
    assert len(first) == 4
    assert first["liver.volume"].tolist() == pytest.approx([448 * 1.728] * 4)  # 7×8×8 voxels of 12 mm
    assert first["mass_kg"].between(10, 25).all()
    assert measure_quality(cohort).equals(first)
    assert "0 subjects done, 4 were done before" in capsys.readouterr().out
    measure_quality(cohort, window_hu=(-1000.0, 1000.0))
    assert "4 subjects done, 0 were done before" in capsys.readouterr().out


def test_a_generated_folder_whose_manifest_has_the_mass_is_measured(cohort):
    table = pd.read_csv(cohort / "cohort.csv")
    for path in (cohort / "cropped").iterdir():
        path.rename(cohort / path.name)
    table.assign(mass_kg=1.0).to_csv(cohort / "manifest.csv", index=False)
    (cohort / "cohort.csv").unlink()
    assert measure_quality(cohort)["mass_kg"].between(10, 25).all()


@pytest.mark.parametrize("window", [(500, -500), (40, 40)])
def test_a_window_that_is_none_is_refused(cohort, tmp_path, refused, window):
    line = refused(
        "3_Evaluations/6_reference_ranges.py", "--root", cohort, "--window-hu", *window, "--out", tmp_path / "r.json"
    )
    assert "--window-hu" in line
    assert not (cohort / "organs_quality.csv").exists()


TAKEN = {"a table": "cohort.csv", "other JSON": "other.json", "a folder": "cropped", "a picture": "p.png"}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_no_reference_is_not_replaced_by_one(cohort, refused, kind):
    (cohort / "other.json").write_text('{"format_version": 1}')
    (cohort / "p.png").write_bytes(b"\x89PNG")
    before = {path: path.read_bytes() for path in cohort.rglob("*") if path.is_file()}
    line = refused("3_Evaluations/6_reference_ranges.py", "--root", cohort, "--out", cohort / TAKEN[kind])
    assert TAKEN[kind] in line
    assert {path: path.read_bytes() for path in cohort.rglob("*") if path.is_file()} == before


def test_a_reference_is_replaced_by_one(tmp_path, monkeypatch):
    rows = people(40).assign(split="train", source="phantom", covers_torso=True)
    monkeypatch.setattr(reference_ranges, "measure_quality", lambda *_: rows)
    for _ in range(2):
        write_reference(tmp_path, tmp_path / "reference.json")


def test_a_cohort_that_is_too_small_has_no_ranges(cohort, tmp_path, invoke):
    result = invoke("3_Evaluations/6_reference_ranges.py", "--root", cohort, "--out", tmp_path / "reference.json")
    assert result.exit_code == 2
    assert "fewer than 10 complete subjects of each sex in split train" in result.output
    assert not (tmp_path / "reference.json").exists()
