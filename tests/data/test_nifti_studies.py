"""Cohorts that come as NIfTI and a table end where DICOM would, and what is missing or of another unit is named."""

import nibabel
import numpy as np
import pandas as pd
import pytest

from totalgen.data.demographics import Demographics
from totalgen.data.nifti_studies import person_of, read_people, read_study
from totalgen.data.organs import ORGANS
from totalgen.data.volume import Volume, read_labels, read_nifti, write_nifti
from totalgen.errors import InputError

TABLE = "Subject ID,Sex,Age,Height (cm),Weight\na,female,063Y,165,66\nb,M,50,180,80\n"
COLUMNS = {"subject": "Subject ID", "sex": "Sex", "age_years": "Age", "height_cm": "Height (cm)", "weight_kg": "Weight"}


def study(folder, factor=1.0, hu=0.0):
    """A body of 45 L with a liver and a heart: CT on 4×4×5 mm, PET on 8×8×5 mm, labels on the CT's grid."""
    for mm, name in ((8.0, "SUV"), (4.0, "CT")):
        shape = (round(480 / mm), round(480 / mm), 120)
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) + 0.5
        x, y, z = (index * [mm, mm, 5.0] - [240, 240, 0]).transpose(3, 0, 1, 2)
        body = (x / 180) ** 2 + (y / 130) ** 2 < 1
        affine = np.diag([mm, mm, 5.0, 1.0])
        affine[:2, 3] = mm / 2 - 240
        if name == "SUV":
            voxels = np.where(body, 0.85 * factor, 0.0)
            voxels[body & (abs(z - 50) < 20) & (x**2 + y**2 < 900)] *= 10  # a bladder
        else:
            voxels = np.where(body, 40.0, -1000.0) + hu
            labels = np.zeros(shape, np.uint8)
            labels[body & (z > 200) & (z < 300)] = ORGANS["liver"]
            labels[body & (z > 350) & (z < 420)] = ORGANS["heart"]
            write_nifti(folder / "organs.nii.gz", Volume(labels, affine))
        write_nifti(folder / f"{name}.nii.gz", Volume(voxels.astype(np.float32), affine))


def asked(tmp_path, *more):
    (tmp_path / "people.csv").write_text(TABLE)
    columns = [part for here, there in COLUMNS.items() for part in ("--column", f"{here}={there}")]
    patterns = ["--ct", f"{tmp_path}/data/{{}}/CT.nii.gz", "--suv", f"{tmp_path}/data/{{}}/SUV.nii.gz"]
    return (9, "--root", tmp_path / "out", "--table", tmp_path / "people.csv", *columns, *patterns, *more)


def test_a_ct_that_lies_elsewhere_is_no_wrong_dose(tmp_path):
    study(tmp_path)
    ct = read_nifti(tmp_path / "CT.nii.gz")
    ct.affine[1, 3] += 200
    write_nifti(tmp_path / "CT.nii.gz", ct)
    with pytest.raises(InputError, match="CT and PET do not lie on each other"):
        read_study(tmp_path / "CT.nii.gz", tmp_path / "SUV.nii.gz", None, Demographics("F", 60, 1.65, 66), 8.0)


def test_a_column_that_is_named_is_taken_before_one_of_that_name(tmp_path):
    (tmp_path / "people.csv").write_text("subject,Subject ID,sex,Age,age_years\n1,a,F,60,0\n2,b,M,50,0\n")
    found = read_people(tmp_path / "people.csv", {"subject": "Subject ID", "age_years": "Age"})
    assert found.to_dict("list") == {"subject": ["a", "b"], "sex": ["F", "M"], "age_years": [60, 50]}


def test_studies_come_onto_one_grid_with_their_people(tmp_path, script):
    for name in ("a", "b"):
        study(tmp_path / "data" / name)
    organs = f"{tmp_path}/data/{{}}/organs.nii.gz"
    arguments = asked(tmp_path, "--voxel-mm", 6, "--organs", organs, "--source", "AutoPET")
    result = script(*arguments)
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.output
    table = pd.read_csv(tmp_path / "out/cohort.csv").set_index("subject")
    assert list(table.loc["a", ["sex", "age_years", "height_m", "weight_kg"]]) == ["F", 63, 1.65, 66]
    assert set(table["source"]) == {"AutoPET"}
    ct, suv = (read_nifti(tmp_path / f"out/resampled/a/{name}.nii.gz") for name in ("CT", "SUV"))
    organs = read_labels(tmp_path / "out/organs/a.nii.gz")
    assert ct.shape == suv.shape == organs.shape
    assert ct.voxel_mm == pytest.approx([6, 6, 6])
    litres = (organs.voxels == ORGANS["liver"]).sum() * organs.voxel_ml / 1000
    assert litres == pytest.approx(np.pi * 1.8 * 1.3, rel=0.03)  # an ellipse, 1 dm high
    assert "2 were done before" in script(*arguments).output
    assert script(4, "--root", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (dict(factor=10_000), "no SUV but perhaps Bq/mL"),
        (dict(factor=10), "as by a dose 10 times too small"),
        (dict(hu=1024), "air is -1000 HU"),
    ],
)
def test_another_unit_is_refused_and_others_continue(tmp_path, script, made, words):
    study(tmp_path / "data" / "a", **made)
    study(tmp_path / "data" / "b")
    assert script(*asked(tmp_path, "--voxel-mm", 8)).exit_code == 0
    (failure,) = pd.read_csv(tmp_path / "out/failures.csv")["error"]
    assert words in failure
    assert list(pd.read_csv(tmp_path / "out/cohort.csv")["subject"]) == ["b"]


@pytest.mark.parametrize("name", ["CT", "SUV"])
def test_an_affine_in_metres_is_refused(tmp_path, name):
    study(tmp_path)
    volume = read_nifti(tmp_path / f"{name}.nii.gz")
    write_nifti(tmp_path / f"{name}.nii.gz", Volume(volume.voxels, np.diag([1e-3, 1e-3, 1e-3, 1]) @ volume.affine))
    with pytest.raises(InputError, match=f"{name}.nii.gz: .* Is its affine in metres"):
        read_study(tmp_path / "CT.nii.gz", tmp_path / "SUV.nii.gz", None, Demographics("F", 60, 1.65, 66), 8.0)


def test_a_person_who_is_not_stated_whole_is_named_with_where_it_is(tmp_path):
    (tmp_path / "t.csv").write_text("subject,sex,age_years,height_m\na,F,60,\nb,F,60,1.7\nb,F,61,1.7\n")
    people = read_people(tmp_path / "t.csv", {})
    with pytest.raises(InputError, match=r"height_m, weight_kg is not stated.*\(0010,1030\)"):
        person_of(people, "a")
    with pytest.raises(InputError, match="has 2 different rows"):
        person_of(people, "b")
    with pytest.raises(InputError, match="has no row"):
        person_of(people, "c")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"subject": "ID"}, 'has no column "ID". Its columns: subject'),
        ({"weight": "subject"}, "names here are subject, sex"),
        ({"age_years": "sex"}, 'age_years of a is "F", which is no number'),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns, words):
    (tmp_path / "t.csv").write_text("subject,sex\na,F\n")
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        read_people(tmp_path / "t.csv", columns)


def test_a_volume_without_orientation_is_a_failure_by_name(tmp_path, script):
    for name in ("a", "b"):
        study(tmp_path / "data" / name)
    path = tmp_path / "data/a/CT.nii.gz"
    image = nibabel.load(path)
    bare = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    bare.set_qform(None, code=0)
    bare.set_sform(None, code=0)
    nibabel.save(bare, path)
    assert script(*asked(tmp_path, "--voxel-mm", 8)).exit_code == 0
    assert "states no orientation" in pd.read_csv(tmp_path / "out/failures.csv")["error"][0]


def test_a_second_import_adds_to_the_cohort_and_labels_may_come_later(tmp_path, script):
    for name in ("a", "b"):
        study(tmp_path / "data" / name)
    (tmp_path / "data" / "b").rename(tmp_path / "b")
    assert script(*asked(tmp_path, "--voxel-mm", 8)).exit_code == 0
    (tmp_path / "data" / "a").rename(tmp_path / "a")
    (tmp_path / "b").rename(tmp_path / "data" / "b")
    assert script(*asked(tmp_path, "--voxel-mm", 8)).exit_code == 0
    assert list(pd.read_csv(tmp_path / "out/cohort.csv")["subject"]) == ["a", "b"]
    assert script(*asked(tmp_path, "--voxel-mm", 8, "--organs", f"{tmp_path}/data/{{}}/organs.nii.gz")).exit_code == 0
    assert (tmp_path / "out/organs/b.nii.gz").exists()
    result = script(*asked(tmp_path, "--voxel-mm", 6))
    assert result.exit_code == 2
    assert "holds voxels of 8 mm. Remove it, or use that size" in result.output


def test_a_second_import_may_name_the_new_people_only(tmp_path, script):
    """Those of the first stay in cohort.csv; who is imported and in no table is named."""
    study(tmp_path / "data" / "a")
    assert script(*asked(tmp_path, "--voxel-mm", 8)).exit_code == 0
    study(tmp_path / "data" / "b")
    arguments = asked(tmp_path, "--voxel-mm", 8)
    head, *rows = TABLE.splitlines()
    (tmp_path / "people.csv").write_text("\n".join([head, *(row for row in rows if not row.startswith("a,"))]) + "\n")
    assert script(*arguments).exit_code == 0
    assert list(pd.read_csv(tmp_path / "out/cohort.csv")["subject"]) == ["a", "b"]
    (tmp_path / "out/cohort.csv").unlink()
    result = script(*arguments)
    assert result.exit_code == 0, result.output
    assert "Warning: a is not added to cohort.csv: has no row in the table of people. Give it one." in result.stderr
    assert list(pd.read_csv(tmp_path / "out/cohort.csv")["subject"]) == ["b"]


def test_the_table_of_step_1_states_people_whose_table_lacks_height_and_weight(dicom, tmp_path, script):
    """AutoPET's height and weight are in the DICOM headers of its PET alone."""
    dicom.study(tmp_path, subject="a")
    assert script(1, "--root", tmp_path).exit_code == 0
    person = person_of(read_people(tmp_path / "cohort.csv", {}), "a")
    assert (person.sex, person.age_years, person.height_m, person.weight_kg) == ("F", 60.0, 1.7, 70.0)


@pytest.mark.parametrize(("columns", "rows", "height"), [
    (dict(height_m="size"), "size,height_cm\n{},1.65,185", 1.65),  # what is named wins over a column of that name
    (dict(height_cm="size"), "height_m,size\n{},1.85,165", 1.65),
    ({}, "height_m,height_cm\n{},1.65,", 1.65),  # what is empty says nothing
    ({}, "height_m,height_cm\n{},,165", 1.65),
    ({}, "height_m,height_cm\n{},1.65,165.3", 1.653),
    ({}, "height_cm,height_m\n{},165,1.85", None),
])  # fmt: skip
def test_two_columns_of_a_height_agree_or_are_refused(tmp_path, columns, rows, height):
    (tmp_path / "people.csv").write_text("subject," + rows.format("a") + "\n")
    if height is None:
        with pytest.raises(InputError, match="height_m of a is 1.85 and height_cm 165. Correct one"):
            read_people(tmp_path / "people.csv", columns)
    else:
        assert read_people(tmp_path / "people.csv", columns)["height_m"].tolist() == [height]


def test_a_correction_in_the_cohort_that_is_taken_back_is_said(tmp_path, script):
    study(tmp_path / "data" / "a")
    arguments = asked(tmp_path, "--voxel-mm", 8)
    assert "cohort.csv said" not in script(*arguments).output
    path = tmp_path / "out" / "cohort.csv"
    path.write_text(path.read_text().replace("66.0", "61.5"))
    assert "cohort.csv said weight_kg 61.5 of a, and now 66.0, as the table of people does" in script(*arguments).stderr
    assert "cohort.csv said" not in script(*arguments).output
