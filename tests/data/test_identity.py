"""What may leave the DICOM files: planted identifiers are searched in everything that is written or printed."""

import ast
import gzip
import hashlib
import re
import shutil
import stat
from pathlib import Path

import pandas as pd
import pydicom
import pytest

from totalgen.data import identity, metadata
from totalgen.data.dicom import find_series
from totalgen.errors import InputError

PLANTED = dict(
    PatientName="Musterfrau^Wilhelmine",
    PatientID="MRN7730915",
    IssuerOfPatientID="QuelltalMRN",
    OtherPatientIDs="ALT4466881",
    OtherPatientNames="Geborenstein^W",
    PatientBirthDate="19471123",
    PatientAge="",  # so that the age must come from the birth date
    StudyDate="20230817",
    SeriesDate="20230818",
    AcquisitionDate="20230819",
    AccessionNumber="ACC5519027",
    ReferringPhysicianName="Zuweiser^Ottokar",
    PerformingPhysicianName="Befunder^Kunigunde",
    OperatorsName="Knopfdruck^Hans",
    InstitutionName="Klinikum Quelltal",
    InstitutionAddress="Bergweg 17, Quellingen",
    StationName="QTPETCT3",
    DeviceSerialNumber="SN8842017",
    StudyInstanceUID="1.2.826.5551.1",
    FrameOfReferenceUID="1.2.826.5554.1",
    StudyID="STU90417",
    StudyDescription="Staging lymphoma Prof. Zuweiser",
    PatientAddress="Rosenpfad 4",
    PatientTelephoneNumbers="0555-123987",
    PatientComments="is the mayor's sister",
    ImageComments="seen by Befunder",
    PatientIdentityRemoved=None,
)
PRIVATE = "kept-by-nobody-9071"
FOLDERS = ("Musterfrau_Wilhelmine_{n}", "Quelltal 2023-08-17")
WORDS = [  # as bytes that may be nowhere, compared without case
    *("Musterfrau", "Wilhelmine", "MRN77309", "QuelltalMRN", "ALT4466881", "Geborenstein", "ACC5519027", "Zuweiser"),
    *("Ottokar", "Befunder", "Kunigunde", "Knopfdruck", "Quelltal", "Bergweg", "Quellingen", "QTPETCT3", "SN8842017"),
    *("1.2.826.555", "STU90417", "lymphoma", "Rosenpfad", "0555-123987", "mayor", PRIVATE, "WB-fancy", "imgfile"),
    *(day for d in ("19471123", "20230817", "20230818", "20230819") for day in (d, f"{d[:4]}-{d[4:6]}-{d[6:]}")),
]
BIRTH_YEAR = re.compile(rb"(?<![\d.])1947(?!\d)")


def plant(paths, n, series, **tags):
    """Rewrite the files of a series as a hospital's: planted values in every place, in folders and files with names."""
    folder = paths[0].parents[3] / FOLDERS[0].format(n=n) / FOLDERS[1] / f"WB-fancy {series}"
    folder.mkdir(parents=True)
    for k, path in enumerate(paths):
        header = pydicom.dcmread(path)
        values = dict(PLANTED, PatientID=f"MRN7730915{n}", SeriesDescription=f"WB-fancy {series} Musterfrau", **tags)
        values |= dict(StudyInstanceUID=f"1.2.826.5551.{n}", SeriesInstanceUID=f"1.2.826.5552.{n}.{series}")
        values |= dict(SOPInstanceUID=f"1.2.826.5553.{n}.{series}.{k}", SeriesNumber=series)
        for name, value in values.items():
            if value is None:
                header.pop(name, None)
            else:
                setattr(header, name, value)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.private_block(0x0099, "QUELLTAL", create=True).add_new(1, "LO", PRIVATE)
        header.save_as(folder / f"imgfile{k:03}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


@pytest.fixture
def hospital(dicom, tmp_path):
    """hospital(n, **tags of the PET) writes a study of a named patient; returns the files of its CT and its PET."""

    def write(n, **tags):
        ct, pet = dicom.study(tmp_path, f"plain{n}")
        written = plant(ct, n, 3), plant(pet, n, 4, **tags)
        shutil.rmtree(tmp_path / "dicom" / f"plain{n}")
        return written

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 100])


def leaks(root, *printed):
    """The planted values in names and contents of all files below ``root`` but dicom/, and in the texts ``printed``."""
    texts = [text.replace(str(root), "").encode() for text in printed]
    for path in root.rglob("*"):
        below = path.relative_to(root)
        if below.parts[0] == "dicom":
            continue
        texts.append(str(below).encode())
        if path.is_file():
            texts.append(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    everything = b"\n".join(texts).lower()
    return {word for word in WORDS if word.lower().encode() in everything} | set(BIRTH_YEAR.findall(everything))


def test_no_planted_identifier_is_in_any_output_of_any_step(hospital, script, tmp_path, capfd, recwarn):
    hospital(1)
    _, broken_inside = hospital(2)
    cut(broken_inside[5])
    _, broken_at_the_end = hospital(3)
    cut(broken_at_the_end[-1])
    hospital(4, RadiopharmaceuticalInformationSequence=None)
    hospital(5, PatientSex="O")
    hospital(6, Units="PROPCNTS")
    loose = hospital(7)[1][0]
    loose.write_bytes(loose.read_bytes()[:100])  # not even a header
    for path in sum(hospital(8, PatientSex="MUSTERFRAU"), []):  # a name in the wrong field
        path.write_bytes(path.read_bytes().replace(b"1.2.826.5551.8", b"1.2.826.5551.X"))  # readers warn of such a UID
    recwarn.clear()
    printed = []
    for name, *arguments in (
        ("1", "--test-fraction", 0),
        ("2", "--voxel-mm", 5),
        ("4", "--field-mm", 300),
        ("5",),
        ("6", "--shape", 16, 16, 16),
    ):
        result = script(name, "--root", tmp_path, *arguments)
        assert result.exit_code == 0, result.output
        printed.append(result.output)
    printed += [*capfd.readouterr(), *(str(warning.message) for warning in recwarn)]
    assert leaks(tmp_path, *printed) == set()

    cohort = pd.read_csv(tmp_path / "cohort.csv").set_index("subject")
    failures = pd.read_csv(tmp_path / "failures.csv")
    resampled = [path.name for path in (tmp_path / "resampled").iterdir() if not path.name.startswith(".")]
    assert len(cohort) == 4  # 1, 3, 4 and 7, which lacks its first PET slice
    assert set(cohort["age_years"]) == {75}  # not yet 76
    assert sorted(failures["step"]) == ["metadata"] * 7 + ["resample"] * 3
    assert len(resampled) == 1
    assert (tmp_path / "training.zarr" / resampled[0]).is_dir()
    errors = "\n".join(failures["error"])
    for expected in (
        "dicom/#2/#1/#2/#6: is cut",
        "a slice is missing",
        "dicom/#3/#1/#2/#12: is cut",
        "(0054,0016) is missing",
        'Patient\'s Sex is "O" in PT series 4',
        'Patient\'s Sex is "[removed]" in PT series 4',
        "PROPCNTS",
        "dicom/#7/#1/#2/#1: is no DICOM file",
    ):
        assert expected in errors


def test_the_search_for_planted_values_finds_them_when_they_are_written(hospital, script, tmp_path):
    hospital(1)
    result = script("1", "--root", tmp_path, "--subject-ids", "patient-id")
    assert {"MRN77309", "Musterfrau", "Quelltal", "WB-fancy", "1.2.826.555", "2023-08-17"} <= leaks(tmp_path)
    assert leaks(tmp_path / "nothing", "born in 1947 on 1947-11-23") == {b"1947", "1947-11-23"}
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("part", "leaked"),
    [
        ("label", {"WB-fancy"}),  # the name in the description is removed by the second search
        ("uid", {"1.2.826.555"}),
        ("path", {"WB-fancy", "Musterfrau", "Wilhelmine", "Quelltal", "2023-08-17"}),
    ],
)
def test_the_search_fails_for_each_part_that_is_written_openly(hospital, script, tmp_path, monkeypatch, part, leaked):
    hospital(1)
    hiding = metadata.Disclosure.hiding

    def open_part(dicom, *arguments):
        careful, openly = hiding(dicom, *arguments), metadata.Disclosure.openly(dicom)
        parts = {name: getattr(careful, name) for name in ("label", "uid", "path", "clean")}
        return metadata.Disclosure(**{**parts, part: getattr(openly, part), "clean": str})

    monkeypatch.setattr(metadata.Disclosure, "hiding", open_part)
    assert script("1", "--root", tmp_path).exit_code == 0
    assert leaked <= leaks(tmp_path)


def subjects(root, script, *arguments):
    result = script("1", "--root", root, *arguments)
    assert result.exit_code == 0, result.output
    return list(pd.read_csv(root / "cohort.csv")["subject"])


def test_the_subject_is_a_salted_hash_of_patient_id_and_issuer(hospital, script, tmp_path):
    hospital(1)
    (found,) = subjects(tmp_path, script)
    salt = (tmp_path / ".salt").read_text()
    assert re.fullmatch("[0-9a-f]{32}", salt)
    assert stat.S_IMODE((tmp_path / ".salt").stat().st_mode) == 0o600
    digest = hashlib.sha256(f"{salt}\0MRN77309151\0QuelltalMRN".encode()).hexdigest()
    assert found == f"sub-{digest[:12]}"


def test_ids_stay_when_subjects_are_added_and_differ_under_another_salt(hospital, script, tmp_path):
    hospital(1)
    (first,) = subjects(tmp_path, script)
    assert subjects(tmp_path, script) == [first]
    hospital(2)
    both = subjects(tmp_path, script)
    assert first in both
    assert len(both) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "dicom").rename(tmp_path / "other" / "dicom")
    assert not set(both) & set(subjects(tmp_path / "other", script))


def test_a_lost_salt_is_an_error_and_is_not_replaced(hospital, script, tmp_path):
    hospital(1)
    subjects(tmp_path, script)
    (tmp_path / ".salt").unlink()
    result = script("1", "--root", tmp_path)
    assert result.exit_code == 2
    assert ".salt: is gone" in result.output
    assert not (tmp_path / ".salt").exists()


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe\xfa", b"0123", b"z" * 32])
def test_a_damaged_salt_names_nobody(tmp_path, damaged):
    (tmp_path / ".salt").write_bytes(damaged)
    with pytest.raises(InputError, match=r"\.salt: .*Restore it, or use another folder\.$"):
        identity.hidden_name(tmp_path, "MRN1", "")
    (tmp_path / ".salt").write_text(f"{'0f' * 16}\n")
    assert identity.salt(tmp_path) == "0f" * 16


@pytest.mark.parametrize(("table", "name"), [("cohort.csv", "sub-{}"), ("manifest.csv", "sub-{}-0123ab")])
def test_a_salt_is_not_made_beside_a_table_that_another_one_named(tmp_path, table, name):
    (tmp_path / table).write_text(f"subject,source\n{name.format('0a' * 6)},CT\n")
    with pytest.raises(InputError, match=rf"\.salt: is gone, and subjects of {table} are named with it"):
        identity.salt(tmp_path)
    assert not (tmp_path / ".salt").exists()
    (tmp_path / "manifest.csv").write_text(f"subject,source\nsub-{'0a' * 6},CT\n")  # of a cohort elsewhere
    (tmp_path / "cohort.csv").unlink(missing_ok=True)
    assert identity.salt(tmp_path) == (tmp_path / ".salt").read_text()


@pytest.mark.parametrize("slices", [slice(None), slice(7, 8)], ids=["a series", "one slice"])
def test_one_header_that_is_not_deidentified_hides_the_whole_subject(dicom, script, tmp_path, slices):
    dicom.study(tmp_path, "open")
    ct, _ = dicom.study(tmp_path, "mixed")
    for path in ct[slices]:
        header = pydicom.dcmread(path)
        header.PatientIdentityRemoved = "NO"
        header.save_as(path)
    found = subjects(tmp_path, script)
    assert found[0] == "open"
    assert found[1].startswith("sub-")
    series = pd.read_csv(tmp_path / "series.csv").set_index("subject")
    assert set(series.loc["open", "path"]) == {"dicom/open/study/ct", "dicom/open/study/pet"}
    assert set(series.loc[found[1], "path"]) == {"dicom/#1/#1/#1", "dicom/#1/#1/#2"}


def test_a_file_cut_before_that_element_hides_nobody_who_is_deidentified(dicom, script, tmp_path):
    _, pet = dicom.study(tmp_path, "open")
    data = pet[-1].read_bytes()
    pet[-1].write_bytes(data[: data.index(b"Doe^Jane") + 8 + 8 + 4])  # name, 8 bytes of tag and length, ID
    assert subjects(tmp_path, script) == ["open"]
    assert pd.read_csv(tmp_path / "failures.csv").loc[0, "subject"] == "open"
    assert "dicom/open/study/pet/0011.dcm" in pd.read_csv(tmp_path / "failures.csv").loc[0, "error"]
    assert not (tmp_path / ".salt").exists()


def test_the_user_may_ask_for_patient_ids_or_for_hashes(dicom, hospital, script, tmp_path):
    hospital(1)
    dicom.study(tmp_path, "open")
    assert len([s for s in subjects(tmp_path, script, "--subject-ids", "hash") if s.startswith("sub-")]) == 2
    (tmp_path / "cohort.csv").unlink()
    assert subjects(tmp_path, script, "--subject-ids", "patient-id") == ["MRN77309151", "open"]
    result = script("1", "--root", tmp_path)  # would leave the Patient ID in the table
    assert result.exit_code == 2
    assert "names subjects by their Patient IDs" in result.output
    assert "MRN" not in result.output


def test_a_patient_who_is_hidden_is_not_shown_beside_it(dicom, hospital, script, tmp_path):
    hospital(1)
    dicom.study(tmp_path, "open")
    hidden = subjects(tmp_path, script, "--subject-ids", "hash")
    table = (tmp_path / "cohort.csv").read_text()
    result = script("1", "--root", tmp_path, "--subject-ids", "patient-id")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in hidden)
    assert "MRN" not in result.output
    assert (tmp_path / "cohort.csv").read_text() == table


def test_hidden_names_that_no_header_has_any_more_are_said(hospital, script, tmp_path):
    """As after another salt: nothing tells that they are the same patients."""
    hospital(1)
    (before,) = subjects(tmp_path, script)
    (tmp_path / ".salt").write_text("0123456789abcdef" * 2)
    result = script("1", "--root", tmp_path)
    assert result.exit_code == 0
    assert f"Warning: of these {before} have hidden names" in result.stderr


def test_a_hidden_study_that_changed_since_step_1_is_refused(hospital, script, tmp_path):
    hospital(1)
    hospital(2)
    subjects(tmp_path, script)
    series = pd.read_csv(tmp_path / "series.csv")
    (tmp_path / "dicom" / "A newcomer").mkdir()  # comes first in the folder: all places move
    for subject in set(series["subject"]):
        with pytest.raises(InputError, match="changed since step 1. Run 1_dicom_to_metadata.py again"):
            metadata.chosen_files(tmp_path, series, subject, "PT")
    (tmp_path / "dicom" / "A newcomer").rename(tmp_path / "dicom" / ".hidden")
    for subject in set(series["subject"]):
        assert len(metadata.chosen_files(tmp_path, series, subject, "PT")) == 12


def test_ordinals_name_a_place_that_resolve_finds_again(tmp_path):
    for name in ("b/x", "a/y", "a/.z", "a/Y", ".c/w"):
        (tmp_path / "dicom" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dicom" / name).write_text("")
    dicom = tmp_path / "dicom"
    written = {name: identity.ordinals(dicom / name, dicom) for name in ("b/x", "a/y", ".c/w")}
    assert written == {"b/x": "dicom/#2/#1", "a/y": "dicom/#1/#2", ".c/w": "dicom/#3/#1"}
    for name, ordinals in written.items():
        assert identity.resolve(tmp_path, ordinals) == dicom / name
    with pytest.raises(InputError, match="changed since step 1"):
        identity.resolve(tmp_path, "dicom/#4")


def test_a_text_is_scrubbed_of_paths_names_and_values(hospital, tmp_path):
    _, pet = hospital(1)
    below = tmp_path / "dicom"
    (series,) = find_series(pet[0].parent)[0]
    scrub = identity.scrubber(below, pet, [series.header])
    assert scrub(f"{pet[2]} and {pet[3].name}: one place") == f"{below}/#1/#1/#2/#3 and #4: one place"
    assert scrub(f"in {pet[0].parent}: 11 of 12") == f"in {below}/#1/#1/#2: 11 of 12"
    for cut_short, place in ((12, "#1/#1/#2/…"), (18, "#1/#1/…")):  # within the names of the file and of its folder
        assert scrub(f"broken ({str(pet[0])[:-cut_short]}") == f"broken ({below}/{place}"
    assert scrub("MUSTERFRAU, born 1947-11-23 (19471123), of 1.2.826.5551.1") == (
        "[removed], born [removed] ([removed]), of [removed]"
    )
    for harmless in ("only 3 slices", "Units (0054,1001) is PROPCNTS; SUV needs BQML", "a slice is missing before it"):
        assert scrub(harmless) == harmless


def test_what_is_written_with_two_blanks_is_found_on_one_line(dicom, tmp_path):
    """An error is one line with single blanks, whatever folders, files and headers contain."""
    folder = tmp_path / "of  June" / "Miller  Ada"
    folder.mkdir(parents=True)
    file = folder / "Ada\u00a0 of June.dcm"
    file.touch()
    header = dicom.dataset(SeriesDescription="Report  Dr\tQuiller 7.11.1949", PatientComments="seen\n by Quiller")
    scrub = identity.scrubber(tmp_path / "of  June", [file], [header])
    for text in (
        f"in {folder}: seen", f"{file} is cut", f"{folder}/Ad", f"{file.name} is cut",
        'a "Report  Dr\tQuiller 7.11.1949"', "Report Dr Quiller 7.11.1949, seen by Quiller",
    ):  # fmt: skip
        for written in (text, " ".join(text.split())):
            said = scrub(written)
            assert not [word for word in ("Miller", "Ada", "Quiller", "1949") if word in said], said
    (tmp_path / "link").symlink_to(folder)
    scrub = identity.scrubber(tmp_path / "link")
    assert scrub(f"{tmp_path}/of June/Miller Ada: is gone") == f"{tmp_path}/link: is gone"


def test_an_unforeseen_error_of_a_hidden_subject_keeps_its_kind_and_loses_its_names(hospital, script, tmp_path):
    _, pet = hospital(1)
    (subject,) = subjects(tmp_path, script)
    series = pd.read_csv(tmp_path / "series.csv")
    with pytest.raises(InputError) as caught, metadata.discreet(tmp_path, series, subject):
        raise OSError(5, "Input/output error", str(pet[0]))
    assert f"OSError: [Errno 5] Input/output error: '{tmp_path}/dicom/#1/#1/#2/#1'" in str(caught.value)
    assert "test_identity.py:" in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_error_of_an_open_subject_is_left_as_it_is(dicom, script, tmp_path):
    _, pet = dicom.study(tmp_path, "A")
    subjects(tmp_path, script)
    series = pd.read_csv(tmp_path / "series.csv")
    with pytest.raises(OSError, match=pet[0].name), metadata.discreet(tmp_path, series, "A"):
        raise OSError(str(pet[0]))


def test_subject_names_are_file_names_and_stay_apart():
    names = [identity.file_name(name) for name in ("A/1", "A 1", "A_1", "../x")]
    assert len(set(names)) == 4
    assert all("/" not in name and not name.startswith(".") for name in names)
    assert names[2] == "A_1"


def test_a_patient_whose_issuer_only_some_series_state_is_one_subject(dicom, script, tmp_path):
    ct, pet = dicom.study(tmp_path, "P1", PatientIdentityRemoved=None)
    for path in pet:
        header = pydicom.dcmread(path)
        header.IssuerOfPatientID = "Hospital"
        header.save_as(path)
    assert len(subjects(tmp_path, script)) == 1


def test_when_even_the_scrubber_fails_nothing_is_revealed():
    def broken():
        raise PermissionError(13, "Permission denied", "dicom/Musterfrau/study")

    expected = pytest.raises(InputError, match="PermissionError, whose text is withheld")
    with expected as caught, identity.scrubbed_errors(broken):
        raise PermissionError(13, "Permission denied", "dicom/Musterfrau/study")
    assert "Musterfrau" not in str(caught.value)


HOSTILE = dict(
    AccessionNumber="1001", StationName="SERIES", StudyID="BQML", InstitutionName="Export the series again",
    ProtocolName="Phantom: not evidence about patients", PatientComments="attenuation", PerformedStationName="Units",
)  # fmt: skip


def messages():
    """The fixed parts of the messages of the package's data folder: texts of three words or more."""
    for path in sorted(Path(identity.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and "append" in ast.dump(node.func)):
                for text in texts_in(node):
                    if len(text.split()) > 2:
                        yield text


def texts_in(node):
    """Whole texts below a node of a syntax tree, "…" for what is inserted."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts_in(child)


def test_our_own_messages_stay_whole_whatever_the_headers_contain(dicom, tmp_path):
    fixed = list(messages())
    assert len(fixed) > 100
    words = sorted({word for text in fixed for word in re.findall(r"[A-Za-z]{4,}", text)})
    header = dicom.dataset(**HOSTILE, PatientName="^".join(words[::7][:5]), PhysiciansOfRecord="\\".join(words))
    header.OtherPatientIDs = words
    header.InstanceCreatorUID = ""
    scrub = identity.scrubber(tmp_path / "dicom", (), [header])
    header.StudyComments = [word for text in fixed for word in text.split() if len(word) > 3]  # numbers, files, …
    numbers = {number for text in fixed for number in re.findall(r"[\w.-]*\d[\w.-]*", text) if len(number) > 3}
    assert {"1000", "1_dicom_to_metadata.py"} <= {number.strip("-.") for number in numbers}
    header.OtherPatientIDs = [*words, *numbers, *(number.strip("-.") for number in numbers)]
    scrub = identity.scrubber(tmp_path / "dicom", (), [header])
    damaged = [text for text in fixed if scrub(text) != text]
    assert not damaged
    said = "CT: its darkest values are {}; air is -1000 HU. Export it in HU, with its rescale."
    assert scrub(said.format(1000)) == said.format("[removed]")
    assert scrub("Units (0054,1001) is BQML, 1001") == "Units (0054,1001) is BQML, [removed]"
    assert scrub('its description is "Units"') == 'its description is "[removed]"'
