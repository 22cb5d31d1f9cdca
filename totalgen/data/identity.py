"""What may leave the DICOM files: who a subject is, and how to describe files and errors without naming anybody.

A subject counts as de-identified when all its headers state so (Patient Identity Removed, DICOM PS3.3 C.7.1.1). It
keeps its Patient ID, and its folders and series are written as they are. Of every other subject only this is written:

    subject      "sub-" and 12 digits of a salted hash of Patient ID and Issuer of Patient ID
    series UID   "hash-" and 12 digits of a salted hash
    path         each folder or file as its place in the sorted list of its folder: dicom/#3/#1/#2

The salt, <root>/.salt, links ids to patients for anyone who also has the DICOM files: it is as private as they are.
"""

import ast
import contextlib
import functools
import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pydicom
import SimpleITK as sitk
from pydicom.datadict import DicomDictionary

from totalgen.data.files import atomic, error_text
from totalgen.data.text_files import text_of
from totalgen.errors import InputError

SUBJECT_IDS = ("auto", "patient-id", "hash")  # auto: hashed unless the headers state that they are de-identified
HASHED_SERIES = "hash-"  # no UID begins like this
NO_IDS = re.compile(  # what anonymisers and scanners write where there is no Patient ID
    r"(anon(ym(i[sz]ed?|ous|e|isiert)?)?|removed|redacted|de-?identified|unknown|none|null|nil|n/?a|no ?(id|name)|"
    r"patient|subject|test|dummy|default|id|x+|0+|1234(5(6(78?9?)?)?)?|[-._*?#]+)"
    r"([ _^-]*(anon\w*|id|patient|subject|name))?",
    re.IGNORECASE,
)
DIGITS = 12  # 48 bits: the chance that two of a million patients get the same ones is 0.2 %
HIDDEN = re.compile(rf"sub-[0-9a-f]{{{DIGITS}}}(?![0-9a-z])")
NAMED = {  # table → names in it that the salt beside it made; a manifest lists those of other cohorts, too
    "cohort.csv": HIDDEN,
    "manifest.csv": re.compile(rf"sub-[0-9a-f]{{{DIGITS}}}-[0-9a-f]{{6}}(?![0-9a-z])"),  # input_name
}
SALT = re.compile(r"[0-9a-f]{32}")
RESTORE = "Restore it, or use another folder."
SHORTEST = 4  # characters; shorter values of a header are not searched for in a text (names: 3)
TEXT = ("AE", "LO", "LT", "SH", "ST", "UC", "UT")  # value representations with free text
QUOTED_OR_TAG = re.compile(r'("[^"]*"|\([0-9A-Fa-f]{4},[0-9A-Fa-fx]{4}\))')  # parts of a message
WORDS = re.compile(r"[^\W\d_][^\W_]+")  # from a letter on
FIXED_WORDS = 3  # a piece of a message of so many words is ours, whatever a header contains
STANDARD_UID = "1.2.840.10008."  # names a kind of object, not an object
SAYABLE = {  # texts that reveal nothing about a person, and that reasons quote
    "CodeMeaning",
    "CodeValue",
    "CodingSchemeDesignator",
    "Manufacturer",
    "ManufacturerModelName",
    "Radiopharmaceutical",
}
DESCRIPTIONS = {"ProtocolName", "SeriesDescription", "StudyDescription"}  # a single word there, "Scout", is no name

Header = pydicom.Dataset | dict[str, str]
Scrub = Callable[[str], str]

# Both readers warn of odd values and quote them, with names of files, on the terminal.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def is_deidentified(header: Header) -> bool:
    """Whether Patient Identity Removed (0012,0062) is YES."""
    return str(header.get("PatientIdentityRemoved", "") or "").strip().upper() == "YES"


def file_name(name: str) -> str:
    """A subject id made of a Patient ID, or of the folder that stands for one, that can be a file name.

    A character that has no place in a file name becomes "_", and a short hash keeps two such ids apart.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def hidden_name(root: str | Path, name: str, issuer: str) -> str:
    """Subject id that hides a Patient ID and its issuer: see the module's docstring. Reads or makes the salt."""
    return f"sub-{hashed(root, name, issuer)}"


def is_hidden_name(name: str) -> bool:
    """Whether a name begins as those of ``hidden_name``."""
    return HIDDEN.match(name) is not None


def patient_id(header: Header) -> str:
    """Patient ID; "" for a placeholder, such as ANONYMOUS, that says nothing of who it is."""
    name = str(header.get("PatientID", "") or "").strip()
    return "" if NO_IDS.fullmatch(name) else name


def patient(header: Header, path: Path, dicom: Path) -> tuple[str, str]:
    """(Patient ID, Issuer of Patient ID); without an ID, the first folder below ``dicom`` is used."""
    issuer = str(header.get("IssuerOfPatientID", "") or "").strip()
    return patient_id(header) or path.relative_to(dicom).parts[0], issuer


def whose(header: Header) -> tuple[str, str]:
    """(Patient ID, Issuer of Patient ID) of one series; without an ID that says who it is, its study, or else the
    series itself, stands for the patient: two people without an ID are not one."""
    study, series = (str(header.get(f"{level}InstanceUID", "") or "").strip() for level in ("Study", "Series"))
    return patient_id(header) or study or series, str(header.get("IssuerOfPatientID", "") or "").strip()


def hashed(root: str | Path, *texts: str) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the cohort's salt and some texts."""
    return hashlib.sha256("\0".join((salt(root), *texts)).encode()).hexdigest()[:DIGITS]


def salt(root: str | Path) -> str:
    """32 hexadecimal digits, made at random once for a cohort and kept in <root>/.salt, which only its owner may read.

    Raises InputError when the file is damaged, or gone though a table contains names that were made with it.
    """
    path = Path(root) / ".salt"
    if not path.exists():
        for name, made in NAMED.items():
            table = path.with_name(name)
            if table.exists() and any(made.match(line) for line in text_of(table).splitlines()):
                raise InputError(f"{path}: is gone, and subjects of {name} are named with it. {RESTORE}")
        with atomic(path, keep=True) as part:  # that of a process that was faster
            part.touch(mode=0o600)
            part.write_text(secrets.token_hex(16))
    found = text_of(path, RESTORE).strip()
    if not SALT.fullmatch(found):
        raise InputError(f"{path}: is damaged: it holds no 32 hexadecimal digits. {RESTORE}")
    return found


def written_uid(root: str | Path, uid: str) -> str:
    """The hash by which a series UID of a subject that is not de-identified is written."""
    return f"{HASHED_SERIES}{hashed(root, uid)}"


def ordinals(path: str | Path, dicom: str | Path) -> str:
    """``path`` below ``dicom`` as dicom/#3/#1: each part is its place, from 1, among the sorted names of its folder.

    Names are compared character by character (as ``LC_ALL=C ls`` does), hidden ones come last.
    """
    parts, place = [Path(dicom).name], Path(dicom)
    for name in Path(path).relative_to(dicom).parts:
        names = _names(place)
        parts.append(f"#{names.index(name) + 1}" if name in names else "#?")
        place /= name
    return "/".join(parts)


def resolve(root: str | Path, written: str) -> Path:
    """The Path below ``root`` that ``ordinals`` wrote. Raises InputError when there is no such place any more."""
    place = Path(root)
    for part in Path(written).parts:
        if not part.startswith("#"):
            place /= part
            continue
        names = _names(place)
        if int(part[1:]) > len(names):
            raise InputError(f"{Path(root) / written}: changed since step 1. Run 1_dicom_to_metadata.py again.")
        place /= names[int(part[1:]) - 1]
    return place


def _names(folder):
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(names, key=lambda name: (name.startswith("."), name))


def scrubber(dicom: str | Path, files: Iterable[Path] = (), headers: Iterable[pydicom.Dataset] = ()) -> Scrub:
    """A function text → text that removes what would identify a subject.

    files: the subject's files below ``dicom``; they, their folders and their names become ordinals.
    headers: pydicom Datasets; names, identifiers, free texts, UIDs and dates in them become "[removed]": wherever they
    are quoted, and elsewhere unless they are made of the words of our own messages, which say nothing of anybody
    (a station called SERIES). Tags, such as (0054,1001), and the fixed parts of our messages stay as they are: values
    are looked for between them, where something was inserted.
    """
    dicom, files = Path(dicom), list(files)
    below = {path for file in files for path in (file, *file.parents) if dicom in path.parents}
    paths = [(path, error_text(path.relative_to(dicom.parent).as_posix())) for path in below]
    paths.sort(key=lambda item: -len(item[1]))
    names = sorted({error_text(file.name): file for file in reversed(files)}.items(), key=lambda item: -len(item[0]))
    values = sorted({value for header in headers for value in identifiers(header)}, key=len, reverse=True)
    left_over = re.compile(rf"(\b{spelled(dicom.name)}/(?:#\d+/)*)(?!#\d)(?=[^\s,;)]).*", re.DOTALL)

    def scrub(text):
        text = _replaced(spelled(str(dicom.resolve())), text, str(dicom))
        for path, written in paths:
            if written in error_text(text):
                text = _replaced(rf"{spelled(written)}(?!\w)", text, ordinals(path, dicom))
        text = left_over.sub(r"\1…", text)  # a path that was cut short, or spelled differently
        parts = fixed_texts().split(text)
        parts[::2] = [_without(values, without_names(part)) for part in parts[::2]]  # the others are ours, word by word
        return "".join(parts)

    def without_names(text):
        for name, file in names:
            if name and name in error_text(text) and (len(name) >= SHORTEST or not name.isdigit()):
                text = _replaced(_alone(name), text, ordinals(file, dicom).rpartition("/")[2])
        return text

    return scrub


def _without(values, text):
    """A text without values: anywhere in quotes, elsewhere unless they are words of ours; tags stay as they are."""
    parts = QUOTED_OR_TAG.split(text)
    for k, part in enumerate(parts):
        quoted = part.startswith('"')
        for value in () if part.startswith("(") and k % 2 else values:
            if value.lower() in error_text(part).lower() and (quoted or not _is_own(value)):
                part = re.sub(_alone(value), "[removed]", part, flags=re.IGNORECASE)
        parts[k] = part
    return "".join(parts)


def _is_own(value):
    """Whether all words of a value are words of our own messages, and it has one."""
    words = WORDS.findall(value.lower())
    return bool(words) and own_words().issuperset(words) and not re.sub(r"[\W_]", "", WORDS.sub("", value.lower()))


@functools.cache
def own_words() -> frozenset[str]:
    """Words, in lower case, of the messages in this folder's sources and of the names of DICOM elements."""
    texts = [entry[2] for entry in DicomDictionary.values()]
    return frozenset(WORDS.findall(" ".join([*texts, *own_texts()]).lower()))


@functools.cache
def fixed_texts() -> re.Pattern[str]:
    """Pattern of what our own messages contain word for word, numbers and names of files, too, in a group."""
    pieces = {piece for text in own_texts() for piece in text.split('"') if len(piece.split()) >= FIXED_WORDS}
    return re.compile(f"({'|'.join(re.escape(piece) for piece in sorted(pieces, key=len, reverse=True))})")


@functools.cache
def own_texts() -> frozenset[str]:
    """The texts in this folder's sources, without docstrings; what is inserted into one parts it."""
    texts: set[str] = set()
    for path in Path(__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, documented)}
        constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
        texts |= {text for text in constants - docstrings if isinstance(text, str)}
    return frozenset(texts)


def identifiers(dataset: pydicom.Dataset) -> set[str]:
    """Set of texts in a pydicom Dataset, nested ones too, that may identify a person or a date: see ``scrubber``."""
    found = set()
    for tag in dataset.keys():  # noqa: SIM118 – iterating a Dataset reads its values, and a broken one would end it
        try:
            element = dataset[tag]
            values = element.value if element.VM > 1 or element.VR == "SQ" else [element.value]
        except Exception:  # pydicom raises many kinds for a value that is not what its tag promises
            continue
        for value in values or ():
            text = error_text(str(value))  # with its white space as errors have it
            if element.VR == "SQ":
                found |= identifiers(value)
            elif element.VR == "PN":
                found |= {word for word in re.split(r"[\W\d_]+", text) if len(word) >= SHORTEST - 1}
            elif element.VR in ("DA", "DT") and re.match(r"\d{8}", text):
                found |= {text, text[:8], f"{text[:4]}-{text[4:6]}-{text[6:8]}"}
            elif element.VR == "UI":
                found |= set() if text.startswith(STANDARD_UID) or len(text) < SHORTEST else {text}
            elif element.VR in TEXT and len(text) >= SHORTEST and element.keyword not in SAYABLE:
                found |= set() if element.keyword in DESCRIPTIONS and text.isalpha() else {text}
    return found


def _replaced(pattern, text, by):
    return re.sub(pattern, lambda _: by, text)  # a function: "\" in ``by`` has no meaning


def _alone(text):
    """Pattern of ``text`` where it is not part of a longer word."""
    return rf"(?<!\w){spelled(text)}(?!\w)"


def spelled(text: str) -> str:
    """Pattern of ``text`` with any white space where it has some: an error on one line has one blank there."""
    return r"\s+".join(re.escape(word) for word in text.split())


@contextlib.contextmanager
def scrubbed_errors(scrubber: Callable[[], Scrub]) -> Iterator[None]:
    """An exception raised inside becomes an InputError whose text went through ``scrubber()``, a text → text.

    The scrubber is made only when it is needed: it may have to look at many files.
    """
    try:
        yield
    except Exception as error:
        try:
            text = scrubber()(error_text(error))
        except Exception:  # the disk that failed once may fail again, with the name of a folder in the error
            text = f"{type(error).__name__}, whose text is withheld, since it may name the patient. Look at the files."
        raise InputError(text) from None
