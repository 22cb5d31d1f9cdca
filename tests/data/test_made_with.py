"""Results of one step share their settings: others are named and refused, and nothing is skipped or overwritten."""

import gzip
import itertools
import re

import pytest

from totalgen.data.files import atomic
from totalgen.data.made_with import RECORD, MadeWith, differ, fingerprint, made_in, read_record, sources_of
from totalgen.data.subjects import for_each_subject
from totalgen.errors import InputError


@pytest.fixture
def step(tmp_path):
    """step(subjects, **settings): a step that writes results/<subject>."""

    def run(subjects, everyone=None, sources=None, **settings):
        def work(subject):
            with atomic(tmp_path / "results" / subject) as part:
                part.write_text(str(settings))

        def done(subject):
            return (tmp_path / "results" / subject).exists()

        record = MadeWith(tmp_path / "results" / RECORD, settings, "remove them", everyone, sources or {})
        return for_each_subject(tmp_path, "step", subjects, work, done, made_with=record)

    return run


def test_the_same_settings_go_on_and_others_are_refused_by_name(step, tmp_path):
    step(["a", "b"], field_mm=480.0, margin_mm=40.0)
    step(["a", "b", "c"], field_mm=480, margin_mm=40.0)
    with pytest.raises(InputError) as refusal:
        step(["a", "b", "c", "d"], field_mm=448.0, margin_mm=40.0)
    assert str(refusal.value) == (
        f"{tmp_path / 'results'}: 3 results (a, b, c) were made with field_mm 480, not with field_mm 448. Give the "
        "same again, or remove them."
    )
    assert sorted(path.name for path in (tmp_path / "results").iterdir() if path.name != RECORD) == ["a", "b", "c"]


def test_other_sources_are_refused_subject_by_subject_and_those_of_others_are_kept(step, tmp_path):
    step(["a", "b"], sources=dict(a="1", b="2"))
    step(["c"], sources=dict(c="3"))  # such as of another hospital
    with pytest.raises(InputError, match=r"1 result \(a\) was made from other files or demographics than those given"):
        step(["a", "b", "d"], sources=dict(a="4", b="2", d="5"))
    (tmp_path / "results" / "a").unlink()
    step(["a", "b"], sources=dict(a="4"))
    assert read_record(tmp_path / "results" / RECORD) == dict(sources=dict(a="4", b="2", c="3"))


def test_results_that_stay_when_a_run_fails_keep_their_record(tmp_path):
    """Such as step 7 with a further dose: what is there has its settings and its sources, whatever the run wanted."""

    def run(subjects, dose, noise, sources, work=None):
        def done(subject):
            return (tmp_path / "results" / subject / dose).exists()

        def write(subject):
            (tmp_path / "results" / subject / dose).mkdir(parents=True)

        made_with = made_in(tmp_path / "results", dict(noise=noise), sources=sources)
        return for_each_subject(tmp_path, "step", subjects, work or write, done, made_with=made_with)

    run(["a"], "0.1", 0.1, dict(a="1"))
    first = read_record(tmp_path / "results" / RECORD)
    with pytest.raises(InputError, match=r"1 result \(a\) was made with noise 0.1, not with noise 0.3"):
        run(["a", "b"], "0.2", 0.3, dict(a="1", b="2"))
    with pytest.raises(InputError, match="ZeroDivisionError"):
        run(["a", "b"], "0.2", 0.1, dict(a="3", b="2"), lambda subject: 1 / 0)
    assert read_record(tmp_path / "results" / RECORD) == first
    with pytest.raises(InputError, match="made from other files"):
        run(["a"], "0.1", 0.1, dict(a="3"))


def test_files_are_known_by_what_they_hold_and_not_by_where_they_lie(tmp_path):
    inside = b"1" * 100_000 + b"2" + b"1" * 99_999  # not compressed, and changed far from both ends
    files = dict(a=b"1", b=b"1", c=b"2", d=b"1" * 200_000, e=b"1" * 199_999 + b"2", f=inside, g=gzip.compress(inside))
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    found = sources_of({name: [tmp_path / name] for name in "abcdefgh"})
    assert not differ(found["a"], found["b"])
    assert all(differ(found[one], found[other]) for one, other in itertools.combinations("bcdefg", 2))
    assert "h" not in found


def test_a_source_is_compared_in_what_both_know(step, tmp_path):
    """An earlier version knew the ends of a file only; files may be gone."""
    step(["a"], sources=dict(a="1"))
    step(["a"], sources=dict(a="1 whole=2"))
    step(["a"], sources=dict(a="1"))
    with pytest.raises(InputError, match="made from other files"):
        step(["a"], sources=dict(a="1 whole=3"))


def test_without_results_settings_are_free(step, tmp_path):
    step(["a"], field_mm=480)
    (tmp_path / "results" / "a").unlink()
    step(["a"], field_mm=448)
    assert read_record(tmp_path / "results" / RECORD) == dict(field_mm=448)


def test_results_without_a_record_are_adopted_with_a_warning(step, tmp_path, capsys):
    step(["a"], field_mm=480)
    (tmp_path / "results" / RECORD).unlink()
    step(["a", "b"], field_mm=480)
    assert "1 result (a) was made without a note of the settings; taken to be made with field_mm 480" in (
        capsys.readouterr().err
    )
    with pytest.raises(InputError, match="were made with field_mm 480"):
        step(["a", "b"], field_mm=448)


def test_those_of_another_split_count_too(step):
    step(["a"], everyone=["a", "b"], weights="x")
    with pytest.raises(InputError, match=re.escape("1 result (a) was made with weights x, not with weights y")):
        step(["b"], everyone=["a", "b"], weights="y")


def test_a_setting_that_an_earlier_version_did_not_know_is_added(step, tmp_path):
    step(["a"], field_mm=480)
    step(["a"], field_mm=480, margin_mm=40)
    assert read_record(tmp_path / "results" / RECORD) == dict(field_mm=480, margin_mm=40)


def test_settings_of_the_step_before_are_settings_of_this_one(tmp_path):
    for backend in ("given", "network"):
        (tmp_path / "organs").mkdir(exist_ok=True)
        MadeWith(tmp_path / "organs" / RECORD, dict(backend=backend), "").check([])
        crop = made_in(tmp_path / "cropped", dict(field_mm=480), organs=tmp_path / "organs")
        if backend == "given":
            (tmp_path / "cropped").mkdir()
            crop.check([])
        else:
            with pytest.raises(InputError, match=r"made with organs\.backend given, not with organs\.backend network"):
                crop.check(["a"])


def test_a_damaged_record_is_named(step, tmp_path):
    step(["a"], field_mm=480)
    (tmp_path / "results" / RECORD).write_text("{")
    with pytest.raises(InputError, match=r"made-with.json: is no JSON .* Remove it"):
        step(["a"], field_mm=480)


def test_a_fingerprint_is_of_the_content(tmp_path):
    for name, text in dict(a="1", b="1", c="2").items():
        (tmp_path / name).write_text(text)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
