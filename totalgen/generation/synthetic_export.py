"""Generated studies as DICOM, beside their NIfTI files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from totalgen.data.synthetic_dicom import write_synthetic
from totalgen.data.volume import Volume, read_labels

Export = Callable[[Path, Any, dict[str, Volume], dict[str, Any]], object]


def with_dicom(before: Export | None) -> Export:
    """What ``generate_cohort`` calls to write <study>/dicom, after what ``before`` writes: its organs are included."""

    def export(folder, person, volumes, row):
        if before is not None:
            before(folder, person, volumes, row)
        organs = folder / "organs.nii.gz"
        found = volumes | ({"organs": read_labels(organs)} if organs.exists() else {})
        about = json.dumps(row, sort_keys=True)
        write_synthetic(folder / "dicom", found, person, row["subject"], about, row["totalgen"])

    return export
