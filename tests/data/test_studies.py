import json

import pandas as pd
import pytest

from totalgen.data.archive import Archive
from totalgen.data.axial_extent import PUBLISHED
from totalgen.data.studies import read_studies
from totalgen.errors import InputError
from totalgen.generation.people import requests_for


def test_a_cohort_and_a_generated_folder_are_read_by_one_function(cohort, generated):
    for root in (cohort, generated):
        studies = read_studies(root)
        assert len(studies) == 4
        assert all((folder / "CT.nii.gz").exists() for folder in studies["folder"])


def test_a_split_filters_only_tables_that_have_one(cohort, generated):
    assert list(read_studies(cohort, "test")["subject"]) == ["s3"]
    assert len(read_studies(generated, "test")) == 4


def test_an_empty_split_is_train_as_trainings_take_it(cohort, invoke):
    """One rule for step 5, step 6, evaluations and matched studies; step 6 names splits that nothing learns from."""
    (cohort / "axial_extent.json").write_text(json.dumps(PUBLISHED.to_dict()))
    table = pd.read_csv(cohort / "cohort.csv").assign(split=["train", None, "Train", "test"])
    table.to_csv(cohort / "cohort.csv", index=False)
    assert list(read_studies(cohort, "train")["subject"]) == ["s0", "s1"]
    requests = requests_for({}, cohort / "cohort.csv", None, 1, 1)
    assert [request.split for request in requests] == ["train", "train", "Train", "test"]
    result = invoke("0_Preprocess/6_pack_training_set.py", "--root", cohort, "--shape", 24, 20, 28)
    assert "Splits: 2 train, 1 Train, 1 test; trainings learn from train." in result.stdout
    assert "split Train is none of train, validation, test" in result.stderr
    assert Archive(cohort / "training.zarr").indices("train") == [0, 1]


def test_a_folder_that_is_neither_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(InputError, match=r"neither cohort\.csv nor manifest\.csv"):
        read_studies(tmp_path)
