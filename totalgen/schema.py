"""How settings are declared, checked and listed; the settings themselves are in settings.py.

A setting is a field of a small frozen dataclass, and a dataclass checks its values when it is made. Presets are plain
dicts of settings at the top of the scripts; ``resolve`` turns one of them, changed by ``--set``, into the dataclass.
"""

import ast
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from totalgen.errors import InputError, closest

S = TypeVar("S", bound="Settings")

NOUNS = {bool: "True or False", int: "a whole number", float: "a number", str: "a word", Path: "a path"}
PLURALS = {int: "whole numbers", float: "numbers", str: "words"}


@dataclass(frozen=True)
class Allowed:
    """What a value, or each entry of a tuple, may be.

    low, high: smallest and largest number;  above: a number that is just too small;  words: the only texts;
    length, least: number of entries of a tuple, or how many at least.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    words: tuple[str, ...] = ()
    length: int | None = None
    least: int = 0

    def accepts(self, number: float) -> bool:
        """Whether a number lies in the range."""
        try:
            finite = math.isfinite(number)
        except OverflowError:  # a whole number that no float can hold
            finite = False
        if not finite or (self.above is not None and number <= self.above):
            return False
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)

    def __str__(self) -> str:
        if self.words:
            return ", ".join(self.words)
        limits = (("above", self.above), ("from", self.low), ("up to", self.high))
        return " ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


def setting(default: Any, meaning: str, *, may_change: bool = False, words: Iterable[str] = (), **allowed: Any) -> Any:
    """A field of a Settings class: its default, one line of meaning, and what is allowed (the fields of Allowed).

    may_change: a run goes on although this setting differs from what it was begun with.
    """
    metadata = dict(meaning=meaning, may_change=may_change, allowed=Allowed(words=tuple(words), **allowed))
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Base class: every value is checked against the type and the range of its field when the object is made."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if "allowed" in item.metadata:
                value = _checked(item, _kinds(type(self))[item.name], getattr(self, item.name))
                object.__setattr__(self, item.name, value)


def _kinds(cls: Any) -> dict[str, Any]:
    """name → type of the fields of a class."""
    return typing.get_type_hints(cls)


def _checked(item, kind, value):
    """``value`` as the field stores it. Raises InputError when its type or its range is another."""
    allowed = item.metadata["allowed"]
    if isinstance(kind, types.UnionType):  # "X | None"
        if value is None:
            return None
        kind = next(part for part in kind.__args__ if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        kind = kind.__args__[0]
        entries = tuple(value) if isinstance(value, (tuple, list)) else None
        if entries is None or not all(_is_a(kind, entry) for entry in entries) or not _fits(len(entries), allowed):
            number = "" if allowed.length is None else f"{allowed.length} "
            raise InputError(f"{item.name} is {value!r}, not a tuple of {number}{PLURALS[kind]}. Change it.")
        value = entries
    else:
        value = Path(value) if kind is Path and isinstance(value, str) else value
        if not _is_a(kind, value):
            raise InputError(f"{item.name} is {value!r}, not {NOUNS[kind]}. Change it.")
        entries = (value,)
    if kind in (int, float) and not all(allowed.accepts(number) for number in entries):
        raise InputError(f"{item.name} is {value!r}; allowed is {str(allowed) or 'a finite number'}. Change it.")
    for word in entries if allowed.words else ():
        if word not in allowed.words:
            raise InputError(f"{item.name}: {_unknown(word, allowed.words)}")
    return value


def _is_a(kind, value):
    accepted = (int, float) if kind is float else kind
    return isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))


def _fits(count, allowed):
    return count >= allowed.least and allowed.length in (None, count)


def _unknown(word, words):
    try:
        closest(word, dict.fromkeys(words))
    except InputError as error:
        return str(error)


def flat(cls: type[Settings]) -> dict[str, dataclasses.Field]:
    """Full name, such as "run.items", → field of every setting of a class and of the groups in it, in order."""
    found: dict[str, dataclasses.Field] = {}
    for item in fields(cls):
        kind = _kinds(cls)[item.name]
        if _is_group(kind):
            found |= {f"{item.name}.{name}": inner for name, inner in flat(kind).items()}
        else:
            found[item.name] = item
    return found


def _is_group(kind):
    return isinstance(kind, type) and issubclass(kind, Settings)


def build(cls: type[S], row: dict[str, Any]) -> S:
    """An object of ``cls`` from a plain dict.

    Keys: a full name ("run.items"), its last part where no other setting has the same ("items"), or a group with a dict
    of its settings, which puts all others of the group to their defaults.
    Raises InputError for an unknown or ambiguous key, a missing setting and a value that is not allowed.
    """
    return _made(cls, _all_assigned(cls, row.items()))


def resolve(
    cls: type[S], presets: dict[str, dict], name: str, changes: Sequence[str] = (), given: dict[str, Any] | None = None
) -> S:
    """The row ``name`` of ``presets``, changed by ``key=value`` texts, as an object of ``cls`` (see ``build``).

    given: key → value of options of their own; None: not given. Raises InputError for an unknown preset too.
    """
    pairs = list(closest(name, presets).items())
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f'--set "{change}" has no "=". Write --set key=value.')
        pairs.append((key.strip(), _literal(text)))
    pairs += [(key, value) for key, value in (given or {}).items() if value is not None]
    return _made(cls, _all_assigned(cls, pairs))


def _all_assigned(cls, pairs):
    """Full name → value of pairs (key, value); a later one replaces an earlier one."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        values |= _assigned(cls, key, value)
    return values


def _literal(text):
    try:
        value = ast.literal_eval(text)
        repr(value)  # some numbers can be read and not printed: a refusal could not name them
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text  # a bare word, such as a family, or what is refused by its type
    return value


def _assigned(cls, key, value):
    """Full name → value of all that ``key`` assigns."""
    known = flat(cls)
    group = {name.removeprefix(f"{key}."): name for name in known if name.startswith(f"{key}.")}
    if group:
        if not isinstance(value, dict):
            raise InputError(f"{key} is {value!r}, not a dict of settings. Write --set {key}.NAME=VALUE.")
        defaults = {name: known[name].default for name in group.values()}
        given = {closest(name, group): entry for name, entry in value.items()}
        return {n: v for n, v in (defaults | given).items() if v is not dataclasses.MISSING}
    matches = [name for name in known if key in (name, name.rpartition(".")[2])]
    if len(matches) > 1:
        raise InputError(f'"{key}" may be {" or ".join(matches)}. Write the full name.')
    if not matches:
        closest(key, {name.rpartition(".")[2]: name for name in known})
    return {matches[0]: value}


def _made(cls, values):
    """An object of ``cls`` from full name → value; what is not named has its default."""
    known = {}
    for item in fields(cls):
        kind = _kinds(cls)[item.name]
        if _is_group(kind):
            inside = [name for name in values if name.startswith(f"{item.name}.")]
            known[item.name] = _made(kind, {name.removeprefix(f"{item.name}."): values[name] for name in inside})
        elif item.name in values:
            known[item.name] = values[item.name]
        elif item.default is dataclasses.MISSING:
            raise InputError(f"{item.name} is not given. Write --set {item.name}=VALUE.")
    return cls(**known)


def to_dict(settings: Settings) -> dict[str, Any]:
    """Nested plain values, for JSON; ``build`` is the inverse."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {name: to_dict(value) if isinstance(value, Settings) else _plain(value) for name, value in values.items()}


def _plain(value):
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def fixed(settings: Settings) -> dict[str, Any]:
    """Full name → plain value of the settings that must stay the same while a run goes on."""
    names = [name for name, item in flat(type(settings)).items() if not item.metadata["may_change"]]
    return {name: _plain(functools.reduce(getattr, name.split("."), settings)) for name in names}


def listed(cls: type[Settings]) -> str:
    """One line per setting – name, default, meaning, what is allowed – for --help."""
    lines = ["Settings, for --set NAME=VALUE (a unique last part of NAME is enough) [where a preset sets none: this]:"]
    for name, item in flat(cls).items():
        default = "" if item.default is dataclasses.MISSING else f"[{_short(item.default)}]"
        allowed = f" ({item.metadata['allowed']})" if str(item.metadata["allowed"]) else ""
        lines.append(f"  {name:27} {default:14} {item.metadata['meaning']}{allowed}")
    return "\n".join(lines)


def _short(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
