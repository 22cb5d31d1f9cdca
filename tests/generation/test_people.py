"""Who is asked for: one person, a grid, or a table, each once or several times, always by the same names and seeds."""

import pytest

from totalgen.data.names import is_asked, person_of
from totalgen.errors import InputError
from totalgen.generation.people import parsed, requests_for

ONE = dict(sex=["F"], age=[60.0], height_cm=[165.0], weight_kg=[66.0])


def test_a_grid_has_every_combination():
    values = parsed("sex=F,M age=60 height_cm=165 weight_kg=54,66.5,80")
    requests = requests_for(values, None, None, seed=3, samples=1)
    assert len(requests) == 6
    assert requests[1].name == "F_60y_165cm_66.5kg_seed3"
    assert requests[1].row == dict(sex="F", age_years=60.0, height_m=1.65, weight_kg=66.5)
    assert {request.seed for request in requests} == {3}


def test_samples_have_seeds_of_their_own_and_the_first_is_what_it_was_alone():
    alone, several = (requests_for(ONE, None, None, seed=1, samples=n) for n in (1, 3))
    assert several[0] == alone[0]
    assert len({request.seed for request in several}) == len({request.name for request in several}) == 3


def test_the_subjects_of_a_table_may_have_several_samples_too(tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text("subject,sex,age_years,height_m,weight_kg,split\na,F,60,1.65,66,test\nb,M,50,1.8,80,train\n")
    requests = requests_for({}, table, "test", seed=1, samples=2)
    assert [request.name for request in requests] == ["a", "a_sample2"]
    assert {person_of(request.name) for request in requests} == {"a"}
    assert not any(is_asked(request.name) for request in requests)
    asked = requests_for(ONE | dict(weight_kg=[54.5, 66.0], age=[60.0]), None, None, seed=-3, samples=3)
    assert all(is_asked(request.name) for request in asked)
    assert len({person_of(request.name) for request in asked}) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sex=F age=60 height_cm=165", "--weight-kg is missing"),
        ("sex=F age=old height_cm=165 weight_kg=66", "a value is not a number"),
        ("size=3", "is none of sex="),
        ("sex=X age=60 height_cm=165 weight_kg=66", 'sex is "X"'),
        ("", "give people"),
    ],
)
def test_what_is_no_person_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        requests_for(parsed(text), None, None, 1, 1)


def test_people_or_a_table(tmp_path):
    with pytest.raises(InputError, match="give people"):
        requests_for(ONE, tmp_path / "cohort.csv", None, 1, 1)
