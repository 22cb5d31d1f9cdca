"""Requests for people: one, a grid of demographics, or the subjects of a table, each with one or several samples."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from totalgen.data.demographics import Demographics, of_split, read_cohort
from totalgen.data.names import asked_name, sample_name
from totalgen.errors import InputError
from totalgen.generation.cohort import Request, matched_requests, study_seed

FIELDS = ("sex", "age", "height_cm", "weight_kg")


def requests_for(
    values: dict[str, Sequence[Any]], cohort: Path | None, split: str | None, seed: int, samples: int
) -> list[Request]:
    """Studies of every combination of ``values`` (field → values, see FIELDS), or of the subjects of a cohort table.

    samples: of each; the first has the seed that it would have alone.
    Raises InputError when both or neither are given, or a field is missing.
    """
    if (cohort is None) == (not values):
        raise InputError("give people (--sex, --age, --height-cm, --weight-kg, or --demographics) or a --cohort table.")
    if cohort is not None:
        requests = matched_requests(of_split(read_cohort(cohort), split, cohort), seed)
    else:
        missing = [f"--{field.replace('_', '-')}" for field in FIELDS if field not in values]
        if missing:
            raise InputError(f"{' and '.join(missing)} is missing. Give all four, or a table with --cohort.")
        requests = [_request(seed, *each) for each in itertools.product(*(values[field] for field in FIELDS))]
    return [_sample(request, seed, number) for request in requests for number in range(samples)]


def impossible(requests: Sequence[Request]) -> str:
    """A line for every request that is of nobody: what a dry run says before anything is generated."""
    lines = []
    for request in requests:
        try:
            Demographics.from_row(request.row)
        except InputError as error:
            lines.append(f"Warning: {request.name}: {error}")
    return "\n".join(lines)


def parsed(text: str) -> dict[str, list[Any]]:
    """"sex=F,M age=60 height_cm=165 weight_kg=54,66,80" → field → values. Raises InputError for anything else."""
    found: dict[str, list[Any]] = {}
    for part in text.split():
        field, equals, values = part.partition("=")
        if field not in FIELDS or not equals or not values:
            known = ", ".join(f"{name}=…" for name in FIELDS)
            raise InputError(f'--demographics "{part}" is none of {known}. Write it.')
        if field in found:
            raise InputError(f"--demographics names {field} twice. Write its values once: {field}=A,B.")
        try:
            found[field] = [value if field == "sex" else float(value) for value in values.split(",")]
        except ValueError:
            raise InputError(f'--demographics "{part}": a value is not a number. Correct it.') from None
    return found


def _request(seed, sex, age, height_cm, weight_kg):
    name = asked_name(sex, age, height_cm, weight_kg, seed)
    return Request(name, vars(Demographics(sex, age, height_cm / 100, weight_kg)), seed)


def _sample(request, seed, number):
    if number == 0:
        return request
    return Request(sample_name(request.name, number), request.row, study_seed(seed, request.name, number))
