"""Whole-body FDG PET/CT by cascaded 3-D diffusion: from demographics to CT (HU) and PET (SUV), and what it takes.

    from totalgen import Cascade, Demographics, read_study

The names below are what a program needs; everything else is in the modules.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totalgen.data.demographics import Demographics
    from totalgen.data.study import read_study
    from totalgen.data.volume import Volume, read_nifti, write_nifti
    from totalgen.errors import InputError
    from totalgen.generation.cascade import Cascade

__version__ = importlib.metadata.version("totalgen")
__all__ = ["Cascade", "Demographics", "InputError", "Volume", "read_nifti", "read_study", "write_nifti"]

_MODULES = {  # imported when first used: torch takes a second
    "Cascade": "generation.cascade",
    "Demographics": "data.demographics",
    "InputError": "errors",
    "Volume": "data.volume",
    "read_nifti": "data.volume",
    "read_study": "data.study",
    "write_nifti": "data.volume",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'totalgen' has no attribute {name!r}")
    return getattr(importlib.import_module(f"totalgen.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
