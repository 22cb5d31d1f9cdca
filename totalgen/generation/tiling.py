"""How a volume too large for one evaluation is cut along z."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The slices [start, stop) a window sees, and those [keep_start, keep_stop) of them whose result is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(size: int, length: int, context: int = 0) -> list[Window]:
    """Windows of ``length`` slices whose kept parts tile 0 … size; ``context`` slices are discarded at inner borders.

    context 0 gives the slabs of the paper; 8 the released variant. The last window is moved back to end at ``size``.
    A length of ``size`` or more gives one window.
    """
    if length >= size:
        return [Window(0, size, 0, size)]
    if not 0 <= 2 * context < length:
        raise ValueError(f"context {context} must be less than half of the window length {length}")
    result: list[Window] = []
    kept = 0
    while kept < size:
        start = min(max(kept - context, 0), size - length)
        stop = start + length
        keep_stop = size if stop == size else stop - context
        result.append(Window(start, stop, kept, keep_stop))
        kept = keep_stop
    return result
