"""What any training begins with: the configuration that is kept with its weights, and the weights of another run."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from totalgen.checkpoints import checkpoints
from totalgen.data.demographics import ranges
from totalgen.data.recipes import LEARNT_FROM
from totalgen.errors import InputError
from totalgen.schema import Settings, build, to_dict
from totalgen.tasks.items import Items
from totalgen.tasks.systems import SYSTEMS
from totalgen.training.loop import read_configuration
from totalgen.weights import load_weights


def configure(items: Items, kind: str, preset: str, settings: Settings, **found: Any) -> dict[str, Any]:
    """What is kept with the weights: settings, channels, codec, and what the archive knows of its data.

    kind: of the weights;  found: what else is known of the data.
    """
    archive, task = items.archive, items.task
    if archive.recipe.person:
        found["ranges"] = ranges(archive.demographics(row) for row in items.subjects)
    return dict(
        kind=kind,
        preset=preset,
        settings=to_dict(settings),
        channels=dict(target=list(task.target), condition=list(task.given)),
        codec=task.codec.settings,
        dims=task.dims,
        data=dict(
            **archive.data, **task.measured, **found, **{LEARNT_FROM: archive.fingerprint(items.subjects)},
            subjects=len(items.subjects), sources=sorted({row.get("source", "unknown") for row in archive.subjects}),
        ),
    )  # fmt: skip


def initial_weights(
    path: Path | None, configuration: dict[str, Any], outdir: Path | None = None,
    decisive: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, torch.Tensor] | None:  # fmt: skip
    """Tensors of the weights file ``path``, or None without one; its hash goes into ``configuration``.

    outdir: of the run; where it goes on from its own checkpoint, ``path`` is not read, and the hash is the run's own.
    decisive: configuration → what both must share; default: what a stage of the cascade must.
    Raises InputError when the file is of another kind, or differs in what is decisive. Another family (a flow that
    begins with the layers of a diffusion) is said aloud.
    """
    if outdir and checkpoints(outdir / "checkpoints") and (outdir / "configuration.json").exists():
        begun = read_configuration(outdir)
        configuration |= {name: begun[name] for name in ("initialised_from",) if name in begun}
        return None
    if path is None:
        return None
    state, other = load_weights(path)
    if other.get("kind") != configuration["kind"]:
        raise InputError(f"{path}: holds no {configuration['kind']}. Give weights of the same training script.")
    theirs, ours = ((decisive or _decisive)(each) for each in (other, configuration))
    if decisive is None and (more := _added(*(each["channels"].get("condition", []) for each in (theirs, ours)))):
        click.echo(f"Warning: {path}: was not given {', '.join(more)}, which begin without weight.", err=True)
        theirs["channels"]["condition"] = ours["channels"]["condition"]
        ones = state["first.weight"][:, -1:]  # the network's own channel comes last
        new = torch.zeros_like(ones).repeat_interleave(len(more), dim=1)
        state["first.weight"] = torch.cat([state["first.weight"][:, :-1], new, ones], dim=1)
    if changed := [name for name in ours if theirs[name] != ours[name]]:
        raise InputError(f"{path}: differs in {', '.join(changed)} from what is trained. Give weights of the same.")
    families = [each["settings"].get("process", {}).get("family") for each in (other, configuration)]
    if families[0] != families[1]:
        said = f"Warning: {path}: of family {families[0]}, begins one of {families[1]}; what σ means is learnt anew."
        click.echo(said, err=True)
    configuration["initialised_from"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {name: value.float() for name, value in state.items()}


def _added(theirs, ours):
    """What follows in a list after all of another; nothing where it does not begin with that."""
    return ours[len(theirs) :] if ours[: len(theirs)] == theirs else []


def _decisive(configuration):
    """What weights must share with a training that starts from them; what was not a setting yet has its default."""
    settings = build(SYSTEMS[configuration["kind"]].settings, configuration["settings"])
    return dict(
        stage=getattr(settings, "stage", None),
        channels={name: list(each) for name, each in configuration["channels"].items()},
        target=settings.task.target, dims=configuration.get("dims", 3),
        network=dataclasses.replace(settings.network, any_shape=False),  # how it is computed, not what it holds
    )  # fmt: skip
