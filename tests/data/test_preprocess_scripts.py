"""Scripts 1 to 5 in order on small cohorts, and the error of each when its input is bad."""

import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest

from totalgen.data.volume import Volume, read_nifti, write_nifti
from totalgen.generation import segmenter


def error_line(result, code=2):
    """The one line of an error."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return line


def give_labels(root, subject):
    ct = read_nifti(root / "resampled" / subject / "CT.nii.gz")
    labels = np.zeros(ct.shape, np.uint8)
    labels[18:22, 18:22, :3] = 25
    labels[15:18, 20:22, -3:] = 73
    labels[22:25, 20:22, -3:] = 74
    write_nifti(root / "given" / subject / "organs.nii.gz", Volume(labels, ct.affine))


def test_from_dicom_to_the_axial_extent(dicom, script, tmp_path):
    for subject in ("A", "B"):
        dicom.study(tmp_path, subject, slices=40)  # as long as sacrum and clavicles are apart
    for name in "12":
        assert script(name, "--root", tmp_path, *(["--voxel-mm", 5] if name == "2" else [])).exit_code == 0
    cohort = pd.read_csv(tmp_path / "cohort.csv")
    assert list(cohort["subject"]) == ["A", "B"]
    suv = pd.read_csv(tmp_path / "suv.csv")
    assert suv["factor"].to_numpy() == pytest.approx(70000 / (350e6 * 2 ** (-3600 / 6586.2)), rel=1e-5)
    for subject in "AB":
        give_labels(tmp_path, subject)
    assert script("3", "--root", tmp_path, "--backend", "given").exit_code == 0
    assert script("4", "--root", tmp_path, "--field-mm", 300).exit_code == 0
    assert list(pd.read_csv(tmp_path / "cohort.csv")["covers_torso"]) == [False, False]  # they touch its ends
    shapes = {read_nifti(tmp_path / "cropped" / "A" / f"{n}.nii.gz").shape for n in ("CT", "SUV", "organs")}
    assert shapes == {(60, 60, 40)}
    fitted = script("5", "--root", tmp_path)
    assert fitted.exit_code == 0
    assert "published" in fitted.output
    assert (tmp_path / "axial_extent.json").exists()
    assert not (tmp_path / "failures.csv").exists()


def test_running_again_changes_nothing(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    script("1", "--root", tmp_path)
    script("2", "--root", tmp_path, "--voxel-mm", 5)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "resampled").rglob("*.nii.gz")}
    for name in "12":
        assert script(name, "--root", tmp_path, *(["--voxel-mm", 5] if name == "2" else [])).exit_code == 0
    assert len(before) == 2
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_another_voxel_size_in_one_cohort_is_refused(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    script("1", "--root", tmp_path)
    script("2", "--root", tmp_path, "--voxel-mm", 5)
    assert "holds voxels of 5 mm" in error_line(script("2", "--root", tmp_path, "--voxel-mm", 4))


@pytest.mark.parametrize("changed", ["weight", "series", "age"])
def test_a_study_made_for_another_weight_or_of_another_series_is_refused(dicom, script, tmp_path, changed):
    dicom.study(tmp_path, "A")
    script("1", "--root", tmp_path)
    script("2", "--root", tmp_path, "--voxel-mm", 5)
    table = tmp_path / ("series.csv" if changed == "series" else "cohort.csv")
    text = pd.read_csv(table, dtype=str)
    if changed == "series":
        text.loc[0, "series"] += ".1"
    else:
        column = dict(weight="weight_kg", age="age_years")[changed]
        text[column] = (text[column].astype(float) + 5).astype(str)
    text.to_csv(table, index=False)
    before = {p: p.read_bytes() for p in (tmp_path / "resampled").rglob("*.nii.gz")}
    result = script("2", "--root", tmp_path, "--voxel-mm", 5)
    if changed == "age":  # on which no SUV depends
        assert result.exit_code == 0
        assert "1 were done before" in result.output
    else:
        assert "(A) was made from other files or demographics than those given" in error_line(result)
    assert {p: p.read_bytes() for p in before} == before


def correct(root, modality, **tags):
    """Other values in the headers of files that stay where they are; dose: Radionuclide Total Dose."""
    dose = tags.pop("dose", None)
    for path in (root / "dicom").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        if dataset.Modality != modality:
            continue
        for name, value in tags.items():
            setattr(dataset, name, value)
        if dose is not None:
            dataset.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose = dose
        dataset.save_as(path)


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new))


REFUSED = {
    "dose": lambda root: correct(root, "PT", dose=150e6),
    "CT": lambda root: correct(root, "CT", RescaleIntercept=-1000),
    "one slice": lambda root: max((root / "dicom").rglob("*.dcm")).unlink(),
}
GO_ON = {
    "weight written 70": lambda root: rewrite(root / "cohort.csv", "70.0", "70"),
    "files gone": lambda root: shutil.rmtree(root / "dicom"),
    "folder renamed": lambda root: (root / "dicom" / "A" / "study").rename(root / "dicom" / "A" / "one"),
    "times": lambda root: [path.touch() for path in root.rglob("*.dcm")],
}


@pytest.mark.parametrize("identity", ["YES", "NO"])
@pytest.mark.parametrize("lie", ["folders", "flat"])
@pytest.mark.parametrize("name", [*REFUSED, *GO_ON])
def test_a_suv_is_of_the_headers_that_are_there(dicom, script, tmp_path, name, identity, lie):
    """Not of where files lie and how a table is saved; a subject whose files were removed after step 2 goes on."""
    dicom.study(tmp_path, "A", PatientIdentityRemoved=identity)
    if lie == "flat":  # a series is told from the other by its headers alone
        for path in list((tmp_path / "dicom").rglob("*.dcm")):
            path.rename(path.parents[1] / f"{path.parent.name}-{path.name}")
    script("1", "--root", tmp_path)
    assert script("2", "--root", tmp_path, "--voxel-mm", 5).exit_code == 0
    {**REFUSED, **GO_ON}[name](tmp_path)
    result = script("2", "--root", tmp_path, "--voxel-mm", 5)
    if name in REFUSED:
        assert "was made from other files or demographics than those given" in error_line(result)
    else:
        assert result.exit_code == 0, result.output
        assert "1 were done before" in result.output


def test_rows_added_by_hand_stay(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    row = dict(subject="Z", sex="M", age_years=50, height_m=1.8, weight_kg=80, split="test", source="hand")
    pd.DataFrame([row]).to_csv(tmp_path / "cohort.csv", index=False)
    assert script("1", "--root", tmp_path).exit_code == 0
    assert list(pd.read_csv(tmp_path / "cohort.csv")["subject"]) == ["A", "Z"]


def test_a_missing_or_empty_folder(script, tmp_path):
    for name in "12345":
        assert "no such" in error_line(script(name, "--root", tmp_path / "nowhere"))
    (tmp_path / "dicom").mkdir()
    assert "holds no DICOM file" in error_line(script("1", "--root", tmp_path))
    (tmp_path / "resampled").mkdir()
    assert "holds no subject" in error_line(script("3", "--root", tmp_path))
    assert "holds no subject" in error_line(script("4", "--root", tmp_path))


def test_an_empty_cohort(script, tmp_path):
    (tmp_path / "cohort.csv").write_text("subject,sex,age_years,height_m,weight_kg,split,source\n")
    assert "lists no subject" in error_line(script("2", "--root", tmp_path))
    assert "lists no subject" in error_line(script("5", "--root", tmp_path))


def test_a_file_cut_in_half_is_listed_and_the_other_subject_continues(dicom, script, tmp_path):
    dicom.study(tmp_path, "A")
    _, pet = dicom.study(tmp_path, "B")
    pet[-1].write_bytes(pet[-1].read_bytes()[: pet[-1].stat().st_size // 2])  # the others still form a volume
    assert script("1", "--root", tmp_path).exit_code == 0
    assert "0011.dcm" in (tmp_path / "failures.csv").read_text()
    result = script("2", "--root", tmp_path, "--voxel-mm", 5)
    assert result.exit_code == 0
    assert "1 of 2 subjects failed (B)" in result.output
    assert [p.parent.name for p in tmp_path.glob("resampled/*/CT.nii.gz")] == ["A"]
    failed = pd.read_csv(tmp_path / "failures.csv").query("step == 'resample'").iloc[0]
    assert failed["subject"] == "B"
    assert "0011.dcm" in failed["error"]


def test_the_only_subject_with_a_missing_slice(dicom, script, tmp_path):
    _, pet = dicom.study(tmp_path, "A")
    pet[5].unlink()
    line = error_line(script("1", "--root", tmp_path))
    assert "a slice is missing" in line
    assert "failures.csv" in line
    assert "a slice is missing" in (tmp_path / "series.csv").read_text()


def test_a_subject_whose_units_give_no_suv(dicom, script, tmp_path):
    dicom.study(tmp_path, "A", Units="PROPCNTS")
    assert "PROPCNTS" in error_line(script("1", "--root", tmp_path))


def test_a_nifti_without_its_partner(dicom, script, tmp_path):
    ct = Volume(np.full((20, 20, 20), 40, np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))
    for subject in "AB":
        write_nifti(tmp_path / "resampled" / subject / "CT.nii.gz", ct)
    write_nifti(tmp_path / "resampled" / "A" / "SUV.nii.gz", ct)
    assert "1 of 2 subjects failed (B)" in script("4", "--root", tmp_path).output
    shutil.rmtree(tmp_path / "resampled" / "A")
    assert "SUV.nii.gz: no such file" in error_line(script("4", "--root", tmp_path))
    assert (tmp_path / "cropped" / "A" / "CT.nii.gz").exists()


def test_a_network_without_weights(script, tmp_path):
    (tmp_path / "resampled" / "A").mkdir(parents=True)
    assert "--weights" in error_line(script("3", "--root", tmp_path, "--backend", "network"))


def test_the_network_backend_labels_on_the_grid_of_the_ct(script, tmp_path, monkeypatch):
    class Liver:
        load = staticmethod(lambda path, device: Liver)
        run = staticmethod(lambda ct: dict(organs=Volume(np.full(ct.shape, 5, np.uint8), ct.affine)))

    ct = Volume(np.full((20, 20, 20), 40, np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))
    write_nifti(tmp_path / "resampled" / "A" / "CT.nii.gz", ct)
    monkeypatch.setattr(segmenter, "Segmenter", Liver)
    monkeypatch.setattr(segmenter, "segmenter_of_process", Liver.load)
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    arguments = ("--root", tmp_path, "--backend", "network", "--weights", tmp_path / "w.safetensors")
    assert script("3", *arguments).exit_code == 0
    assert (read_nifti(tmp_path / "organs" / "A.nii.gz").voxels == 5).all()


@pytest.mark.parametrize("step", ["7", "8", "9", "9, organs"])
def test_inputs_that_results_would_replace_are_refused_and_stay(tmp_path, refused, step):
    """Where a step writes, no file that it reads is lost: not even by a link."""
    grid = np.diag([8.0, 8, 8, 1])
    for name in ("CT", "MR", "SUV", "organs"):
        for folder in ("resampled", "pairs", "doses"):
            write_nifti(tmp_path / folder / "p1" / f"{name}.nii.gz", Volume(np.ones((9, 9, 9), np.float32), grid))
        write_nifti(tmp_path / "organs" / "p1.nii.gz", Volume(np.ones((9, 9, 9), np.uint8), grid))
    (tmp_path / "linked").symlink_to(tmp_path / "pairs")
    (tmp_path / "people.csv").write_text("subject,sex,age_years,height_m,weight_kg\np1,F,60,1.65,66\n")
    pattern = f"{tmp_path}/{{}}/{{{{}}}}/{{}}.nii.gz".format
    table = ("--table", tmp_path / "people.csv", "--voxel-mm", 12)
    script, place, arguments = {
        "7": ("7_simulate_low_dose", "doses", ("--folder", "doses", "--dose", 0.1, "--voxel-mm", 20)),
        "8": ("8_pair_ct_mr", "pairs", ("--ct", pattern("linked", "CT"), "--mr", pattern("linked", "MR"))),
        "9": ("9_import_nifti", "resampled",
              ("--ct", pattern("resampled", "CT"), "--suv", pattern("resampled", "SUV"), *table)),
        "9, organs": ("9_import_nifti", "organs",
                      ("--ct", pattern("pairs", "CT"), "--suv", pattern("pairs", "SUV"), *table,
                       "--organs", f"{tmp_path}/organs/{{}}.nii.gz")),
    }[step]  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")}
    line = refused(f"0_Preprocess/{script}.py", "--root", tmp_path, *arguments)
    assert f"lies in {tmp_path / place}, where the results go" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.nii.gz")} == before
