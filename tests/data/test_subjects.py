import pandas as pd
import pytest

from totalgen.data.subjects import for_each_subject, put_column, read_table, subjects_in
from totalgen.errors import InputError


@pytest.fixture
def loop(tmp_path):
    """loop(subjects, bad): a step that writes <subject>.txt and fails for the bad ones; loop.seen: who was tried."""

    def run(subjects, bad=()):
        run.seen = []

        def work(subject):
            run.seen.append(subject)
            if subject in bad:
                raise InputError(f"{subject} is bad. Cure it.")
            (tmp_path / f"{subject}.txt").write_text(subject)
            return dict(length=len(subject))

        for_each_subject(
            tmp_path, "step", subjects, work, lambda s: (tmp_path / f"{s}.txt").exists(), table=tmp_path / "table.csv"
        )

    return run


def failures(root):
    path = root / "failures.csv"
    return list(pd.read_csv(path)["subject"]) if path.exists() else []


def test_one_bad_subject_never_stops_the_others(loop, tmp_path, capsys):
    loop(["007", "b", "c"], bad=["b"])
    assert list(read_table(tmp_path / "table.csv")["subject"]) == ["007", "c"]
    assert failures(tmp_path) == ["b"]
    assert "1 of 3 subjects failed (b)" in capsys.readouterr().err


def test_a_second_run_does_only_what_is_left(loop, tmp_path):
    loop(["007", "b", "c"], bad=["b"])
    loop(["007", "b", "c"])
    assert loop.seen == ["b"]
    assert failures(tmp_path) == []


def test_the_table_keeps_the_order_of_the_cohort(loop, tmp_path):
    loop(["c", "b", "a"], bad=["c"])
    loop(["c", "b", "a"])
    assert list(read_table(tmp_path / "table.csv")["subject"]) == ["c", "b", "a"]


def test_a_kill_between_the_last_row_and_the_ordering_is_repaired(loop, tmp_path):
    loop(["b", "a"])
    loop(["a", "b"])
    assert loop.seen == []
    assert list(read_table(tmp_path / "table.csv")["subject"]) == ["a", "b"]


def test_an_output_without_its_row_is_done_again(loop, tmp_path):
    (tmp_path / "a.txt").write_text("written by a run that was killed before its row")
    loop(["a"])
    assert loop.seen == ["a"]
    assert list(read_table(tmp_path / "table.csv")["subject"]) == ["a"]


def test_when_nobody_succeeds_the_step_ends_with_an_error(loop, tmp_path):
    with pytest.raises(InputError, match=r"a is bad\. Cure it\..*all 2 subjects.*failures\.csv"):
        loop(["a", "b"], bad=["a", "b"])


def test_an_error_of_the_program_is_listed_with_its_line(tmp_path):
    with pytest.raises(InputError):
        for_each_subject(tmp_path, "step", ["a"], lambda s: 1 / 0, lambda s: False)
    assert "ZeroDivisionError" in (tmp_path / "failures.csv").read_text()


def test_subjects_are_folders_or_files_and_hidden_ones_are_not(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.1.nii.gz").touch()
    (tmp_path / ".b.part").mkdir()
    assert subjects_in(tmp_path, "cure") == ["a.1", "b"]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no subject. Run this"):
        subjects_in(tmp_path, "Run this.")
    with pytest.raises(InputError, match="no such folder. Run this"):
        subjects_in(tmp_path / "x", "Run this.")


def test_the_row_of_a_subject_that_is_tried_again_and_fails_does_not_stay(loop, tmp_path):
    loop(["a", "b"])
    (tmp_path / "a.txt").unlink()
    loop(["a", "b"], bad=["a"])
    assert list(read_table(tmp_path / "table.csv")["subject"]) == ["b"]


def test_a_row_stays_while_what_replaces_it_is_not_there(loop, tmp_path):
    """A step that is killed, or whose subject fails although its earlier output is there, loses no row."""
    loop(["a", "b"])
    table = tmp_path / "table.csv"
    before = table.read_text()

    def killed(subject):
        assert table.read_text() == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for_each_subject(tmp_path, "step", ["a", "b"], killed, lambda s: False, table)
    assert table.read_text() == before
    loop(["a", "b"])  # both outputs and both rows are there, but the rows may be older than the outputs
    assert loop.seen == ["a", "b"]
    loop(["a", "b"])
    assert loop.seen == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_work_may_return_several_rows_and_text_in_the_table_stays_as_it_is(tmp_path):
    (tmp_path / "table.csv").write_text("subject,factor\n007,0.10\n")
    rows = {"007": None, "b": [dict(factor=1), dict(factor=2)]}
    for_each_subject(tmp_path, "step", rows, rows.get, lambda s: s == "007", tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "subject,factor\n007,0.10\nb,1\nb,2\n"


def test_a_column_is_put_in_by_subject(tmp_path):
    (tmp_path / "cohort.csv").write_text("subject,sex\n007,F\nb,M\n")
    put_column(tmp_path / "cohort.csv", "covers_torso", {"b": True})
    assert (tmp_path / "cohort.csv").read_text() == "subject,sex,covers_torso\n007,F,\nb,M,True\n"
