"""From the headers of a study to who it is of, and to the PET and the CT that are used."""

import hashlib
import re
from datetime import date
from pathlib import Path

import pandas as pd

from totalgen.data.demographics import COLUMNS, HEIGHT_M, Demographics
from totalgen.data.dicom import Series, find_series
from totalgen.data.suv import SUVError, check_units
from totalgen.errors import InputError

FEWEST_SLICES = 10  # fewer is a scout or a key image, not a torso
AGE_UNIT_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
SCOUT = re.compile(r"scout|topogram|localizer|scanogram|surview|\bscano", re.IGNORECASE)
UNCORRECTED = re.compile(r"\bNAC\b|_NAC|non?[ -]?AC\b|uncorrected|no[nt]?[ -]?att", re.IGNORECASE)
SERIES_COLUMNS = ("subject", "series", "path", "modality", "description", "slices", "chosen", "reason")


def describe_cohort(dicom, test_fraction, seed):
    """What lies below the folder ``dicom``.

    Returns (cohort, series, failures): the cohort table and the table of all series as DataFrames, failures a list of
    (subject, error). The split depends on seed and subject alone, so further subjects move no-one.
    The source of a subject is the maker of the PET scanner, which a phantom's files use to say that they are one.
    A subject is a Patient ID; when it has several studies, the first that holds a PET and a CT is used.
    Raises InputError when there is no DICOM at all.
    """
    dicom = Path(dicom)
    found, damaged = find_series(dicom, show=True)
    if not found and not damaged:
        raise InputError(f"{dicom}: holds no DICOM file. Put the studies below it, in folders of any depth.")
    subjects = {}
    for series in found:
        subjects.setdefault(subject_name(series.header, series.files[0], dicom), []).append(series)
    failures = []
    for file in damaged:
        patient = {"PatientID": file.patient} if file.patient else {}
        error = f"{file.path.relative_to(dicom.parent)}: {file.why}. Restore the file."
        failures.append((subject_name(patient, file.path, dicom), error))

    rows, listed = [], []
    for subject, all_series in sorted(subjects.items()):
        pet, ct, reasons = choose(all_series)
        for series in all_series:
            listed.append(
                dict(
                    subject=subject,
                    series=series.uid,
                    path=series.folder.relative_to(dicom.parent).as_posix(),
                    modality=series.modality,
                    description=series.description,
                    slices=len(series.files),
                    chosen="yes" if series in (pet, ct) else "no",
                    reason=reasons[series.uid],
                )
            )
        try:
            if pet is None or ct is None:
                missing = "PET" if pet is None else "CT"
                why = "; ".join(f"{s.description or s.uid}: {reasons[s.uid]}" for s in all_series)
                raise InputError(f"{subject}: no {missing} can be used ({why}).")
            person = merge_demographics([pet, ct, *[s for s in all_series if s.study == pet.study]])
        except InputError as error:
            failures.append((subject, error))
            continue
        split = "test" if share(seed, subject) < test_fraction else "train"
        values = (subject, person.sex, round(person.age_years, 3), round(person.height_m, 4), person.weight_kg)
        maker = str(pet.header.get("Manufacturer", "") or "").strip()
        rows.append(dict(zip(COLUMNS, (*values, split, maker or "unknown scanner"), strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(listed, columns=SERIES_COLUMNS), failures


def subject_name(header, path, dicom):
    """Subject id that can be a file name: the Patient ID, or the first folder below ``dicom`` when it has none.

    A character that has no place in a file name becomes "_", and a short hash keeps two such ids apart.
    """
    name = str(header.get("PatientID", "") or "").strip() or path.relative_to(dicom).parts[0]
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def share(seed, subject):
    """A number in [0, 1) that depends on seed and subject alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8]) / 2**64


def choose(all_series):
    """(pet, ct, reasons) among the series of one subject; pet or ct is None when there is none to use.

    reasons: dict of series UID → why it was chosen or not.
    PET: units that can become SUV, corrected for attenuation; then original over derived, most slices, lowest number.
    CT: no scout, same study and frame of reference as the PET; then the largest overlap with it.
    """
    reasons, pets = {}, []
    for series in all_series:
        reason = refusal(series)
        if reason:
            reasons[series.uid] = reason
        elif series.modality == "PT":
            pets.append(series)
    pets.sort(key=pet_rank)
    taken = None, None
    for pet in pets:
        cts = [s for s in all_series if s.uid not in reasons and s.modality == "CT" and s.study == pet.study]
        sharing = [s for s in cts if s.header.get("FrameOfReferenceUID") == pet.header.get("FrameOfReferenceUID")]
        sharing = [s for s in sharing if overlap_ml(s, pet) > 0]
        if sharing:
            taken = pet, max(sharing, key=lambda s: (round(overlap_ml(s, pet)), len(s.files), s.uid))
            break
    pet, ct = taken if taken[0] else (pets[0] if pets else None, None)
    for series in all_series:
        if series.uid in reasons:
            continue
        if series is pet:
            reasons[series.uid] = f"PET corrected for attenuation, {series.header.Units}"
        elif series is ct:
            reasons[series.uid] = f"CT that overlaps the PET by {overlap_ml(series, pet) / 1000:.1f} L"
        elif pet is not None and series.study != pet.study:
            reasons[series.uid] = "another study of the subject is used"
        elif series.modality == "PT":
            reasons[series.uid] = "another PET of the study is original, larger or earlier"
        elif pet is None:
            reasons[series.uid] = "no PET to go with"
        elif series.header.get("FrameOfReferenceUID") != pet.header.get("FrameOfReferenceUID"):
            reasons[series.uid] = "not in the PET's frame of reference"
        else:
            reasons[series.uid] = "another CT overlaps the PET more" if ct else "does not overlap the PET"
    return pet, ct, reasons


def refusal(series: Series):
    """Why a series can be neither the PET nor the CT, or "" when it can."""
    header = series.header
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        return "multi-frame object; export it with one frame per file"
    if not series.is_image:
        return "not a stack of CT or PET images"
    kind = " ".join(str(v) for v in header.get("ImageType", ()) or ())
    if series.modality == "CT" and (SCOUT.search(kind) or SCOUT.search(series.description)):
        return "scout"
    if len(series.files) < FEWEST_SLICES:
        return f"only {len(series.files)} slices"
    if series.modality == "PT":
        try:
            check_units(header)
        except SUVError as error:
            return str(error)
        corrected = header.get("CorrectedImage", None)
        if corrected and "ATTN" not in corrected:
            return "not corrected for attenuation: Corrected Image lacks ATTN"
        if UNCORRECTED.search(series.description):
            return "not corrected for attenuation, by its description"
    return ""


def pet_rank(series):
    """Sort key of PET series, best first: earliest study, original, most slices, lowest number."""
    header = series.header
    when = f"{header.get('StudyDate', '') or ''}{header.get('StudyTime', '') or ''}"
    derived = "DERIVED" in (header.get("ImageType", ()) or ())
    return when, series.study, derived, -len(series.files), int(header.get("SeriesNumber", 0) or 0), series.uid


def overlap_ml(a, b):
    """Volume in mL of the box that two series share."""
    (low_a, high_a), (low_b, high_b) = a.box, b.box
    edges = [max(min(ha, hb) - max(la, lb), 0.0) for la, ha, lb, hb in zip(low_a, high_a, low_b, high_b, strict=True)]
    return edges[0] * edges[1] * edges[2] / 1000


def merge_demographics(all_series):
    """Demographics of a study out of the headers of all its series; the first that states a value wins.

    Raises InputError naming what none states, what two series contradict (sex), or what no patient has.
    """
    headers = [series.header for series in all_series]
    read = {"sex": sex, "age": age_years, "height": height_m, "weight": weight_kg}
    values = {}
    for name, reader in read.items():
        stated = [value for header in headers if (value := reader(header)) is not None]
        if not stated:
            raise InputError(
                f"{name} stands in none of its {len({s.uid for s in all_series})} series. Add the subject "
                "to cohort.csv by hand."
            )
        values[name] = stated[0]
        if name == "sex" and len(set(stated)) > 1:
            raise InputError("sex is F in one series and M in another. Add the subject to cohort.csv by hand.")
    return Demographics(values["sex"], values["age"], values["height"], values["weight"])


def sex(header):
    """ "F" or "M", or None."""
    value = str(header.get("PatientSex", "") or "").strip().upper()
    return value if value in ("F", "M") else None


def age_years(header):
    """Age in years from Patient's Age ("069Y", "018M", "006W", "030D"), else from birth and study date; or None."""
    match = re.fullmatch(r"\s*(\d{1,3})([YMWD])\s*", str(header.get("PatientAge", "") or ""))
    if match and int(match[1]) > 0:
        return int(match[1]) * AGE_UNIT_YEARS[match[2]]
    born, studied = (_date(header.get(tag)) for tag in ("PatientBirthDate", "StudyDate"))
    return (studied - born).days / 365.25 if born and studied else None


def height_m(header):
    """Patient's Size in m; a value that can only be centimetres is divided by 100; None when absent or 0."""
    value = float(header.get("PatientSize", 0) or 0)
    if HEIGHT_M[0] * 100 <= value <= HEIGHT_M[1] * 100:
        value /= 100
    return value if value > 0 else None


def weight_kg(header):
    """Patient's Weight in kg; None when absent or 0."""
    value = float(header.get("PatientWeight", 0) or 0)
    return value if value > 0 else None


def _date(value):
    try:
        return date(int(str(value)[:4]), int(str(value)[4:6]), int(str(value)[6:8]))
    except ValueError:
        return None
