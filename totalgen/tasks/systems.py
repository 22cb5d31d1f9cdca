"""The systems that learn by diffusion: the kind of their weights, their settings, and which task these describe."""

from collections.abc import Callable
from typing import Any, NamedTuple

from totalgen.errors import InputError
from totalgen.settings import (
    DiffusionSettings,
    PetDenoisingSettings,
    RefinementSettings,
    TrainingSettings,
    TranslationSettings,
)
from totalgen.tasks.pet_denoising import PetDenoisingTask
from totalgen.tasks.petct import TASKS
from totalgen.tasks.refinement import RefinementTask
from totalgen.tasks.task import Task
from totalgen.tasks.translation import TranslationTask
from totalgen.weights import PET_DENOISER_KIND, REFINER_KIND, STAGE_KIND, TRANSLATOR_KIND


class System(NamedTuple):
    """settings: class of a training's settings;  archive: name of what it learns from;
    task: (settings, Archive.data) → Task;  script: that trains it.
    """

    settings: type[DiffusionSettings]
    archive: str
    task: Callable[[Any, dict[str, Any]], Task]
    script: str


SYSTEMS = {
    STAGE_KIND: System(
        TrainingSettings, "training", lambda s, data: TASKS[s.stage](s.task, data), "train_totalgen.py"
    ),
    PET_DENOISER_KIND: System(
        PetDenoisingSettings, "doses", lambda s, data: PetDenoisingTask(s.task, data), "train_pet_denoising.py"
    ),
    TRANSLATOR_KIND: System(
        TranslationSettings, "pairs", lambda s, data: TranslationTask(s.task, data), "train_ct_to_mr.py"
    ),
    REFINER_KIND: System(
        RefinementSettings, "latents", lambda s, data: RefinementTask(s.task, data), "train_ct_to_mr.py"
    ),
}


def kind_of(settings: DiffusionSettings) -> str:
    """The kind of the weights that a training with these settings makes."""
    return next(kind for kind, system in SYSTEMS.items() if type(settings) is system.settings)


def system_of(configuration: dict[str, Any], path: Any, kinds: tuple[str, ...] = tuple(SYSTEMS)) -> System:
    """The system that weights are of. Raises InputError, naming ``path``, when it is none of ``kinds``."""
    kind = configuration.get("kind")
    if kind not in kinds:
        scripts = " or ".join(SYSTEMS[wanted].script for wanted in kinds)
        raise InputError(f"{path}: holds no {' or '.join(kinds)}. Give weights of {scripts}.")
    return SYSTEMS[kind]
