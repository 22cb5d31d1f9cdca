"""Checkpoints of a training run: all its tensors in one safetensors file, written whole, the newest intact one read."""

from pathlib import Path

from totalgen.errors import InputError
from totalgen.weights import load_weights, save_weights

KEEP = 2


def save_checkpoint(folder, step, tensors):
    """Write <folder>/step_########.safetensors and drop all but the newest KEEP."""
    folder = Path(folder)
    save_weights(folder / f"step_{step:08d}.safetensors", tensors, {"step": step})
    for old in sorted(folder.glob("step_*.safetensors"))[:-KEEP]:
        old.unlink()


def newest_checkpoint(folder):
    """(step, tensors) of the newest file that can be read, or None."""
    for path in sorted(Path(folder).glob("step_*.safetensors"), reverse=True):
        try:
            tensors, configuration = load_weights(path)
        except InputError:
            continue
        return configuration["step"], tensors
    return None


def flatten(**parts):
    """Nested state: name → dict of tensors, flattened to "name/key"."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def part(tensors, name, separator="/"):
    """The entries under ``name``, without that prefix."""
    prefix = name + separator
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
