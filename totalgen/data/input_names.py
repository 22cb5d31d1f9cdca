"""How the result of a file or folder is called, and what errors call it, so that neither says more of a patient than it
may."""

import contextlib
import re
from pathlib import Path

from totalgen.data.dicom import find_series
from totalgen.data.identity import (
    hashed,
    hidden_name,
    is_hidden_name,
    ordinals,
    scrubbed_errors,
    scrubber,
    spelled,
    whose,
)
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


def discreet_input(path: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """A context in which errors, which are kept beside the results, name neither the folder ``path`` nor a file or a
    value of a header in it, where its ``name`` hides whom it shows. Within it the path is to be given resolved."""
    if not (path.is_dir() and is_hidden_name(name)):
        return contextlib.nullcontext()
    folder = path.resolve()

    def nameless():
        found, damaged = find_series(folder)
        files = [*(file for series in found for file in series.files), *(file.path for file in damaged)]
        below = {each for file in files for each in (file, *file.parents) if folder in each.parents}
        places = {str(each): ordinals(each, folder).partition("/")[2] for each in below}
        scrub = scrubber(folder, files, [series.header for series in found])

        def without_names(text):
            for each in sorted(places, key=len, reverse=True):
                text = re.sub(spelled(each), f"the input/{places[each]}", text)
            return scrub(re.sub(spelled(str(folder)), "the input", text))

        return without_names

    return scrubbed_errors(nameless)
