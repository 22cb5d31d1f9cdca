import pytest

from totalgen.data.studies import read_studies
from totalgen.errors import InputError


def test_a_cohort_and_a_generated_folder_are_read_by_one_function(cohort, generated):
    for root in (cohort, generated):
        studies = read_studies(root)
        assert len(studies) == 4
        assert all((folder / "CT.nii.gz").exists() for folder in studies["folder"])


def test_a_split_filters_only_tables_that_have_one(cohort, generated):
    assert list(read_studies(cohort, "test")["subject"]) == ["s3"]
    assert len(read_studies(generated, "test")) == 4


def test_a_folder_that_is_neither_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(InputError, match=r"neither cohort\.csv nor manifest\.csv"):
        read_studies(tmp_path)
