"""From the headers below a folder to the tables of a cohort: who its subjects are, and which series are used."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydicom import Dataset

from totalgen.data import identity
from totalgen.data.choice import choose
from totalgen.data.demographics import COLUMNS, Demographics
from totalgen.data.dicom import Series, find_series, join, series_uid
from totalgen.data.dicom_files import Damaged, read_file, walk
from totalgen.data.files import error_text
from totalgen.data.header_person import NO_BIRTH_DATES, READERS, day, height_m, possible, sex
from totalgen.data.made_with import ENDS
from totalgen.data.names import first_of
from totalgen.data.parallel import spread
from totalgen.data.progress import progress
from totalgen.data.subjects import read_table
from totalgen.data.text_files import check_columns, read_text
from totalgen.errors import InputError

SAME_VALUE = 0.01  # relative; further apart, two series disagree about the patient
BY_HAND = f"Add the subject to cohort.csv by hand ({', '.join(COLUMNS)})"
HEIGHT_APART_M = 0.1  # between two studies: more than measuring explains
SERIES_COLUMNS = ("subject", "series", "path", "modality", "description", "slices", "chosen", "reason")
DEMOGRAPHICS_COLUMNS = ("subject", "field", "value", "source")
DIFFERS = "; differs: "  # in a source: before the series that state another value


def describe_cohort(
    dicom: str | Path, test_fraction: float, seed: int, subject_ids: str = "auto", workers: int = 1,
    scheduler: str | None = None, validation_fraction: float = 0.0,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[tuple[str, str]]]:  # fmt: skip
    """What lies below the folder ``dicom``.

    Returns (cohort, series, demographics, failures): the cohort table, the table of all series and the table of the
    sources of sex, age, height and weight, as DataFrames; failures a list of (subject, error). The split (train, test,
    validation) depends on seed and subject alone, so adding subjects does not change that of the others, and a subject
    is a patient, so all studies of one are in one split.
    The source of a subject is the manufacturer of the PET scanner; a phantom's files state there that they are one.
    A subject is a Patient ID; when it has several studies, the first that contains a PET and a CT is used.
    subject_ids: "auto" hides who a subject is (see ``identity``) unless all its headers state that they are
    de-identified, "hash" always, "patient-id" never.
    workers, scheduler: where the headers are read (parallel.spread), a folder of ``dicom`` at a time.
    Raises InputError when there is no DICOM at all, and when cohort.csv next to ``dicom`` names by its Patient ID
    a subject that is hidden now.
    """
    dicom = Path(dicom)
    unread = identity.scrubbed_errors(lambda: identity.scrubber(dicom, dicom.rglob("*")))
    with unread if subject_ids != "patient-id" else contextlib.nullcontext():
        found, damaged = scan(dicom, workers, scheduler)
    if not found and not damaged:
        raise InputError(f"{dicom}: holds no DICOM file. Put the studies below it, in folders of any depth.")
    subjects, hidden = by_subject(found, damaged, dicom, subject_ids)

    rows, listed, sources, failures = [], [], [], []
    for subject, (all_series, bad_files) in sorted(subjects.items()):
        disclosure = Disclosure.hiding(dicom, all_series, bad_files) if subject in hidden else Disclosure.openly(dicom)
        for file in bad_files:
            error = f"{file.path.relative_to(dicom.parent)}: {file.why}"
            failures.append((subject, disclosure.clean(error)))
        if not all_series:
            continue
        try:
            check_one_person(subject, all_series)
            pet, ct, reasons = choose(all_series)
            listed += [dict(subject=subject, **row) for row in series_rows(all_series, (pet, ct), reasons, disclosure)]
            values, sources_of = merge_demographics(study_of(all_series, pet, ct), disclosure.label)
            for field, value in values.items():
                shown = "" if value is None else value if isinstance(value, str) else round(value, 4)
                source = disclosure.clean(sources_of[field])
                sources.append(dict(subject=subject, field=field, value=shown, source=source))
            if pet is None or ct is None:
                raise unusable(subject, all_series, pet, reasons, disclosure.label)
            person = demographics(values, sources_of, f"{BY_HAND}, or the value to its headers.")
        except Exception as error:  # an odd header must not stop the others
            failures.append((subject, disclosure.clean(error_text(error).removeprefix(f"{subject}: "))))
            continue
        place = share(seed, subject)
        split = "test" if place < test_fraction else "train"
        if test_fraction <= place < test_fraction + validation_fraction:
            split = "validation"
        who = (subject, person.sex, round(person.age_years, 3), round(person.height_m, 4), person.weight_kg)
        maker = str(pet.header.get("Manufacturer", "") or "").strip()  # says who made the scanner, of nobody else
        rows.append(dict(zip(COLUMNS, (*who, split, maker or "unknown scanner"), strict=True)))
    tables = (rows, COLUMNS), (listed, SERIES_COLUMNS), (sources, DEMOGRAPHICS_COLUMNS)
    return *(pd.DataFrame(table, columns=columns) for table, columns in tables), failures


def check_one_person(subject: str, all_series: Sequence[Series]) -> None:
    """Raises InputError when the studies of a subject disagree on sex, birth date or height: an ID that several people
    share, such as an anonymiser's, would make one of them."""
    stated: dict[str, set[Any]] = {"sex": set(), "birth date": set(), "height": set()}
    for series in all_series:
        stated["sex"].add(sex(series.header)[0])
        stated["birth date"].add(day(series.header.get("PatientBirthDate")))
        stated["height"].add(height_m(series.header)[0])
    heights = stated.pop("height") - {None}
    differ = [name for name, values in stated.items() if len(values - {None, *NO_BIRTH_DATES}) > 1]
    differ += ["height"] if heights and max(heights) - min(heights) > HEIGHT_APART_M else []
    if len({series.study for series in all_series}) == 1:
        differ = [name for name in differ if name == "birth date"]  # sex and height may be mistyped in one series
    if differ:
        raise InputError(
            f"{subject}: its studies disagree on {' and '.join(differ)}, so they are of several people. Give each "
            "person a Patient ID of their own."
        )


def study_of(all_series: Sequence[Series], pet: Series | None, ct: Series | None) -> list[Series]:
    """The series whose headers describe the person: the chosen ones first, then those of the PET's study; all of them
    when nothing was chosen."""
    if pet is None or ct is None:
        return list(all_series)
    return [pet, ct, *(series for series in all_series if series.study == pet.study)]


def series_of_one(folder: Path, what: str) -> list[Series]:
    """All series below ``folder``, which holds one patient. what: that is wanted, such as "study", for messages.

    Raises InputError for a damaged file, for none and for several patients.
    """
    found, damaged = scan(folder)
    for file in damaged:
        raise InputError(f"{file.path}: {file.why}")
    subjects = by_subject(found, damaged, folder, "patient-id")[0]
    if len(subjects) != 1:
        count = f"holds {len(subjects)} patients" if subjects else "holds no DICOM file"
        raise InputError(f"{folder}: {count}. Give the folder of one {what}.")
    ((all_series, _),) = subjects.values()
    return list(all_series)


def unusable(
    subject: str, all_series: Sequence[Series], pet: Series | None, reasons: dict[str, str],
    label: Callable[[Series], str],
) -> InputError:  # fmt: skip
    """The error of a subject without a PET, or without a CT, that can be used."""
    why = "; ".join(f"{label(series)}: {reasons[series.uid]}" for series in all_series)
    return InputError(f"{subject}: no {'CT' if pet else 'PET'} can be used ({why}).")


def scan(dicom: Path, workers: int = 1, scheduler: str | None = None) -> tuple[list[Series], list[Damaged]]:
    """(series, damaged) of everything below ``dicom`` (see dicom.find_series), in an order that no worker changes."""
    tops, parts = sorted(path for path in dicom.iterdir() if not path.name.startswith(".")), {}
    results = spread(find_series, tops, workers, scheduler)
    for top, part, error in progress(results, "headers", "folder", len(tops)):
        if error is not None:
            raise InputError(error)
        parts[top] = part
    return join(parts[top] for top in tops)


@dataclass(frozen=True)
class Disclosure:
    """How texts name a subject. Functions: label and uid of a Series, path of a folder, clean of a text."""

    label: Callable[[Series], str]
    uid: Callable[[Series], str]
    path: Callable[[Path], str]
    clean: Callable[[str], str]

    @classmethod
    def openly(cls, dicom: Path) -> "Disclosure":
        return cls(series_label, lambda series: series.uid, lambda path: path.relative_to(dicom.parent).as_posix(), str)

    @classmethod
    def hiding(cls, dicom: Path, all_series: Sequence[Series], bad_files: Sequence[Damaged]) -> "Disclosure":
        files = [file for series in all_series for file in series.files] + [file.path for file in bad_files]
        return cls(
            plain_label,
            lambda series: identity.written_uid(dicom.parent, series.uid),
            lambda path: identity.ordinals(path, dicom),
            identity.scrubber(dicom, files, [series.header for series in all_series]),
        )


def series_rows(
    all_series: Sequence[Series], chosen: Collection[Series | None], reasons: dict[str, str], disclosure: Disclosure
) -> list[dict[str, Any]]:
    """Rows (dicts, without the subject) of the table of series."""
    return [
        dict(
            series=disclosure.uid(series),
            path=disclosure.path(series.folder),
            modality=series.modality,
            description=disclosure.clean(disclosure.label(series)),
            slices=series.count,
            chosen="yes" if series in chosen else "no",
            reason=disclosure.clean(reasons[series.uid]),
        )
        for series in all_series
    ]


def by_subject(
    found: Sequence[Series], damaged: Sequence[Damaged], dicom: Path, subject_ids: str
) -> tuple[dict[str, tuple[list[Series], list[Damaged]]], set[str]]:
    """(subjects, hidden): dict of subject → (its series, its damaged files), and the set of subjects that are hidden.

    A Patient ID is hidden for all its series and issuers as soon as one header does not state that it is de-identified.
    A damaged file without a readable header belongs to the subject of the series in its folder.
    """
    things: list[tuple[Any, Path, Series | None, Damaged | None]] = [(s.header, s.files[0], s, None) for s in found]
    neighbours: dict[Path, list[Dataset]] = {}
    for each in found:
        for folder in {file.parent for file in each.files}:
            neighbours.setdefault(folder, []).append(each.header)
    for file in damaged:
        header: Any = read_file(file.path)[0]
        if not identity.patient_id(header or {}):
            near = neighbours.get(file.path.parent, [])
            header = near[0] if len({identity.patient(h, file.path, dicom) for h in near}) == 1 else {}
        things.append((header, file.path, None, file))

    patient = naming([(header, path) for header, path, *_ in things], dicom)
    seen = {patient(series.header, series.files[0])[0] for series in found}
    not_deidentified = set()
    for header, path, series, _ in things:
        name = patient(header, path)[0]
        silent = series is None and name in seen and "PatientIdentityRemoved" not in header  # cut before this element
        if not (silent or (series.deidentified if series else identity.is_deidentified(header))):
            not_deidentified.add(name)
    exposed = {"auto": not_deidentified, "patient-id": set(), "hash": None}[subject_ids]
    issuers: dict[str, set[str]] = {}
    for header, path, *_ in things:
        name, issuer = patient(header, path)
        issuers.setdefault(name, set()).update([issuer] if issuer else [])
    subjects: dict[str, tuple[list[Series], list[Damaged]]] = {}
    hidden, open_names = set(), set()
    shown: set[tuple[str, str]] = set()
    for header, path, series, bad in things:
        name, issuer = patient(header, path)
        subject = identity.file_name(name)
        if exposed is None or name in exposed:
            open_names.add(subject)
            if len(issuers[name]) == 1:  # some series of a patient state it, others do not
                (issuer,) = issuers[name]
            subject = identity.hidden_name(dicom.parent, name, issuer)
            hidden.add(subject)
        else:
            shown.update((name, each) for each in ("", *issuers[name]))
        of_series, of_files = subjects.setdefault(subject, ([], []))
        of_series.extend([series] if series else [])
        of_files.extend([bad] if bad else [])
    _refuse_two_names(dicom.parent / "cohort.csv", open_names, shown)
    return subjects, hidden


def _refuse_two_names(cohort, open_names, shown):
    """Raises InputError where a table would have one patient under two names. open_names: subjects that are to be
    hidden, as they would be called openly;  shown: (Patient ID, issuer) of the others."""
    listed = set(read_table(cohort)["subject"])
    if open_names & listed:
        raise InputError(
            f"{cohort}: names subjects by their Patient IDs, which are to be hidden. Use a folder that contains "
            "only dicom/, or give --subject-ids patient-id."
        )
    if not any(map(identity.is_hidden_name, listed)):
        return  # there may be no salt, and none is made
    if same := listed & {identity.hidden_name(cohort.parent, *each) for each in shown}:
        raise InputError(
            f"{cohort}: hides the Patient ID of {first_of(sorted(same), 5)}, who would be named by it beside that row. "
            "Use a folder that contains only dicom/, or give --subject-ids hash."
        )


def naming(things: Sequence[tuple[Any, Path]], dicom: Path) -> Callable[[Any, Path], tuple[str, str]]:
    """A function (header, path) → (name of the patient, Issuer of Patient ID): see identity.patient.

    things: all headers with their files. Without a Patient ID that says who it is, a study is a patient's own: it is
    named after its first folder, and after itself where several studies have the same one.
    """
    folders: dict[str, str] = {}  # of studies without a Patient ID
    for header, path in things:
        study, folder = str(header.get("StudyInstanceUID", "") or ""), path.relative_to(dicom).parts[0]
        if study and not identity.patient_id(header):
            folders[study] = min(folder, folders.get(study, folder))

    def name(header: Any, path: Path) -> tuple[str, str]:
        own, issuer = identity.patient(header, path, dicom)
        study = str(header.get("StudyInstanceUID", "") or "")
        if study not in folders or identity.patient_id(header):
            return own, issuer
        own = folders[study]
        several = list(folders.values()).count(own) > 1
        return own + several * f"-{hashlib.sha256(study.encode()).hexdigest()[:6]}", issuer

    return name


def series_label(series: Series) -> str:
    """The description of a series; its plain label when there is none."""
    return series.description or plain_label(series)


def plain_label(series: Series) -> str:
    """A name of a series without any typed text: "PT series 4"."""
    return f"{series.modality} series {series.header.get('SeriesNumber', '') or ''}".strip()


def chosen_files(root: Path, series: pd.DataFrame, subject: str, modality: str) -> list[Path]:
    """Files of the subject's chosen series of a modality ("PT" or "CT"): list of Paths below ``root``.

    series: the table <root>/series.csv.
    Raises InputError when there is no such series, when it changed since step 1, or when a file of it is damaged.
    """
    rows = series[(series["subject"] == subject) & (series["modality"] == modality) & (series["chosen"] == "yes")]
    if rows.empty:
        raise InputError(f"{root / 'series.csv'}: {subject} has no chosen {modality} series. See its reasons there.")
    row = rows.iloc[0]
    found, damaged = find_series(_place(root, row))  # nothing, when the folder is gone
    matching = [s.files for s in found if _is_it(root, row, s.uid)]
    if len(matching) > 1:
        raise InputError(f"{root / row['path']}: series of several patients have one UID here. Give each a folder.")
    files = matching[0] if matching else []
    for file in damaged:
        if _is_it(root, row, file.series) if file.series else file.path.parent in {f.parent for f in files}:
            raise InputError(f"{file.path}: {file.why}")
    if not files:
        raise InputError(f"{root / row['path']}: changed since step 1. Run 1_dicom_to_metadata.py again.")
    return files


def sources_of_studies(root: Path, series: pd.DataFrame, cohort: pd.DataFrame) -> dict[str, str]:
    """subject → what tells its PET and CT from those of another choice, with other headers, or with another SUV: for
    made_with.MadeWith. Files that are gone, as those that were removed after step 2, have no part in it.

    series: the table <root>/series.csv;  cohort: that of the subjects, by subject.
    """
    chosen = dict(iter(series[series["chosen"] == "yes"].sort_values("series").groupby("subject")))
    found: dict[str, str] = {}
    for subject, person in progress(list(cohort.iterrows()), "sources", "subject"):
        rows = chosen.get(subject, series[:0])
        known = [*rows[["series", "slices"]].to_numpy().ravel(), *person[["sex", "height_m", "weight_kg"]]]
        told = " ".join(str(v) if isinstance(v, str) else f"{v:g}" for v in known)  # SUV does not depend on the age
        found[subject] = f"study={hashlib.sha256(told.encode()).hexdigest()[:16]}"
        for _, row in rows.iterrows():
            with contextlib.suppress(InputError, OSError):
                found[subject] += f" {row['modality']}={headers_of(_files_of(root, series, row))}"
    return found


def headers_of(files: Sequence[Path]) -> str:
    """What tells DICOM files from others by size and beginning, where their headers are; not their names and order."""
    found = []
    for path in files:
        with path.open("rb") as file:
            found.append(hashlib.sha256(f"{path.stat().st_size} ".encode() + file.read(ENDS)).digest())
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()[:16]


def _files_of(root, series, row):
    """Those of a chosen series. Where its folder holds as many files as it has slices, one of them tells that they are
    its own: a cohort has half a million."""
    files = walk(_place(root, row))[0]
    header = read_file(files[0])[0] if len(files) == row["slices"] else None
    if header is not None and _is_it(root, row, series_uid(header, files[0])):
        return files
    return chosen_files(root, series, row["subject"], row["modality"])


def is_hidden(row: pd.Series) -> bool:
    """Whether a row of the table of series is of a subject whose identity is hidden."""
    return row["series"].startswith(identity.HASHED_SERIES)


def _is_it(root, row, uid):
    return (identity.written_uid(root, uid) if is_hidden(row) else uid) == row["series"]


def _place(root, row):
    return identity.resolve(root, row["path"]) if is_hidden(row) else root / row["path"]


def discreet(
    root: Path, series: pd.DataFrame, subject: str
) -> contextlib.AbstractContextManager[None]:
    """A context in which errors name no file and no header value of a subject whose identity is hidden.

    series: the table <root>/series.csv.
    """
    rows = [row for _, row in series[series["subject"] == subject].iterrows() if is_hidden(row)]

    def scrubber():
        folders = set()
        for row in rows:
            with contextlib.suppress(InputError):  # a folder that is gone has no names to hide
                folders.add(_place(root, row))
        files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
        headers = [s.header for folder in folders for s in find_series(folder)[0]]
        return identity.scrubber(root / "dicom", sorted(files), headers)

    return identity.scrubbed_errors(scrubber) if rows else contextlib.nullcontext()


def share(seed: int, subject: str) -> float:
    """A number in [0, 1) that depends on seed and subject alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8]) / 2**64


def merge_demographics(
    all_series: Sequence[Series], label: Callable[[Series], str] = series_label
) -> tuple[dict[str, Any], dict[str, str]]:
    """(values, sources) of a study out of the headers of all its series: dicts over the columns of a cohort table.

    values: None for what is not known;  sources: in words, where a value comes from or why there is none.
    PET before CT before others: the first that states a possible value is used, so the weight is the one
    the dose was given for.
    A series with another value is named in the source; if two disagree about the sex, it counts as not known.
    label: series → what to call it.
    """
    order = sorted(all_series, key=lambda series: {"PT": 0, "CT": 1}.get(series.modality, 2))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field, (reader, unit) in READERS.items():
        read = [(label(series), *reader(series.header)) for series in order]
        stated = [(name, value, words) for name, value, words in read if value is not None]
        # Stable: the first possible one. A birth date may be a placeholder that is not known as one, a stated age not.
        stated.sort(key=lambda each: (not possible(field, each[1]), each[2].startswith("birth")))
        unusable = list(dict.fromkeys(f"{words} in {name}" for name, value, words in read if value is None and words))
        if not stated:
            count = len({series.uid for series in order})
            values[field], sources[field] = None, "; ".join(unusable) or f"not stated in {count} series"
            continue
        first, values[field], words = stated[0]
        sources[field] = "; ".join([f"{words} of {first}", *unusable])
        others = [(name, value) for name, value, _ in stated[1:] if _differ(value, values[field])]
        shown = dict.fromkeys(f"{name} states {v if unit is None else f'{v:g} {unit}'}" for name, v in others)
        if shown:
            sources[field] += DIFFERS + ", ".join(shown)
        if field == "sex" and (others or unusable):
            sources[field] = f"{values[field]} by {sources[field]}"
            values[field] = None
    return values, sources


def _differ(a, b):
    return a != b if isinstance(a, str) else abs(a - b) > SAME_VALUE * abs(b)


def demographics(
    values: dict[str, Any], sources: dict[str, str], cure: str = "Add the value to its headers."
) -> Demographics:
    """Demographics from what ``merge_demographics`` returns. Raises InputError naming what is missing, with its cure,
    or impossible."""
    missing = [f"{field}: {sources[field]}" for field, value in values.items() if value is None]
    if missing:
        raise InputError(f"{'. '.join(missing)}. {cure}")
    return Demographics(**values)


def contradictions(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """In words, which of the ``values`` that are used of a person another series contradicts.

    sources: of a study, as ``merge_demographics`` gives them.
    """
    return [
        f"{_shown(field, values[field])} is used: {source}"
        for field, source in sources.items()
        if DIFFERS in source and values[field] is not None
    ]


def read_stated(root: Path) -> pd.DataFrame:
    """The table <root>/demographics.csv of step 1 as text; an empty one where there is none: subjects by hand."""
    path = root / "demographics.csv"
    if not path.exists():
        return pd.DataFrame(columns=DEMOGRAPHICS_COLUMNS)
    table = read_text(path)
    check_columns(table, DEMOGRAPHICS_COLUMNS, path, "Run 1_dicom_to_metadata.py again.")
    return table


def told_otherwise(person: Demographics, stated: pd.DataFrame, subject: str) -> list[str]:
    """In words, which values of a subject of the cohort table the headers contradict, or one of several series.

    stated: the table of the sources (DEMOGRAPHICS_COLUMNS), in which not every subject has rows.
    """
    rows = stated[stated["subject"] == subject].drop_duplicates("field").set_index("field")
    values, sources, doubts = vars(person), {}, []
    for field in (field for field in READERS if field in rows.index):
        text, sources[field] = rows.loc[field, ["value", "source"]]
        with contextlib.suppress(ValueError):  # nothing was stated, or several: in the source
            value = text if field == "sex" else float(text)
            if text and _differ(value, values[field]):
                used = f"{_shown(field, values[field])} of cohort.csv is used"
                doubts.append(f"{used}; {_shown(field, value)} by headers")
    return doubts + contradictions(values, sources)


def _shown(field, value):
    unit = READERS[field][1]
    return f"{field.split('_')[0]} {value if unit is None else f'{value:g} {unit}'}"
