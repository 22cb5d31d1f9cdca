"""Names from tables never leave their folder, and never take the place of other files."""

from pathlib import Path

import pandas as pd
import pytest

from totalgen.data.demographics import read_cohort
from totalgen.data.names import check_masks, check_subjects, fault, file_of, matching
from totalgen.data.subjects import read_table
from totalgen.errors import InputError

PLAIN = ("a", "NA", "nan", "PETCT_0a1b", "sub-01", "Müller 3", "患者1", "1.2.840.113619", "x" * 100, "00012")
BAD = (
    "", " ", ".", "..", "../x", "a/b", "/etc", "a\\b", "..\\x", "C:\\x", ".hidden", "a.", " a", "a ", "a\n", "a\tb",
    "a\0b", "\x7f", "a\u202eb", "\ud800", "x" * 101, "é" * 51, "CON", "nul.txt", "com1", "manifest.csv", "study.json",
    "training.zarr",
)  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_is_a_name(name):
    assert fault(name) is None


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_a_path_or_no_name_is_refused_with_its_table_and_row(tmp_path, name):
    with pytest.raises(InputError, match=r"cohort.csv, row 3: subject .* Give it a plain name") as refusal:
        check_subjects(["a", name], tmp_path / "cohort.csv")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("subjects", [["p1", "../x"], ["p1", None], ["p1", "."], ["p1", "p1"]])
def test_a_cohort_table_is_checked_where_it_is_read(tmp_path, subjects):
    rows = [dict(subject=s, sex="F", age_years=60, height_m=1.65, weight_kg=66) for s in subjects]
    pd.DataFrame(rows).to_csv(tmp_path / "cohort.csv", index=False)
    with pytest.raises(InputError, match="cohort.csv, row 3: subject"):
        read_cohort(tmp_path / "cohort.csv")
    if subjects[1] == "p1":
        assert len(read_table(tmp_path / "cohort.csv")) == 2  # tables of series and organs have several rows
    else:
        with pytest.raises(InputError, match="cohort.csv, row 3: subject"):
            read_table(tmp_path / "cohort.csv")


SPECIAL = ("{}/{CT,ct}.nii", "CT_{} [a].nii", "{}*.nii", "[v2]_{}/CT?.nii", "x/{0}{}{name}/CT.nii", "{}}/CT.nii")


@pytest.mark.parametrize("text", SPECIAL)
def test_braces_and_wildcards_of_a_pattern_are_those_of_names(tmp_path, text):
    for subject in ("p1", "p2"):
        path = Path(file_of(f"{tmp_path}/{text}", subject))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "CT_p3 a.nii").touch()
    assert matching(f"{tmp_path}/{text}", f"{tmp_path}/{text}") == (["p1", "p2"], [])


def test_na_is_the_name_of_a_subject(tmp_path):
    (tmp_path / "cohort.csv").write_text("subject,sex,age_years,height_m,weight_kg\nNA,F,60,1.65,66\n")
    assert list(read_cohort(tmp_path / "cohort.csv")["subject"]) == ["NA"]


@pytest.mark.parametrize("name", ["cohort", "manifest", "truth", "crop", "CT", "suv", "Failures", "../../x", "", "a/b"])
def test_masks_have_no_name_of_other_files(name):
    with pytest.raises(InputError, match="Give a name such as segmented"):
        check_masks(name)


@pytest.mark.parametrize("name", ["organs", "segmented"])
def test_masks_may_be_called_otherwise(name):
    assert check_masks(name) == name
