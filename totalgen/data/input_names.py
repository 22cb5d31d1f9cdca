"""How the result of a file or folder is called, so that its name says no more of a patient than it may."""

from pathlib import Path

from totalgen.data.identity import hashed, hidden_name, whose
from totalgen.data.metadata import series_of_one
from totalgen.data.names import check_name


def input_name(path: Path, root: Path, keep_identity: bool = False) -> str:
    """A name for what is made of ``path``: its own without suffix; of a DICOM folder, unless its headers say that they
    are de-identified or ``keep_identity``, one hashed with the salt of ``root``."""
    if path.is_dir() and not keep_identity:
        all_series = series_of_one(path.resolve(), "PET series")
        if not all(series.deidentified for series in all_series):
            person = hidden_name(root, *whose(all_series[0].header))
            return f"{person}-{hashed(root, *sorted(series.uid for series in all_series))[:6]}"
    name = path.resolve().name
    return check_name(name.removesuffix(".gz").removesuffix(".nii").removesuffix(".npz") or "pet", path)
