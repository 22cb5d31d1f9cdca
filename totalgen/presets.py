"""Preset tables: plain dicts whose keys are the parameters of the function they feed."""

import ast
import inspect

from totalgen.errors import InputError, closest


def _numbers(value, usual):
    return isinstance(value, (tuple, list)) and all(_number(item, usual[0] if usual else 0) for item in value)


def _number(value, usual):
    return isinstance(value, type(usual) if isinstance(usual, int) else (int, float)) and not isinstance(value, bool)


KINDS = {  # of a value: whether another one is of the same kind, and in words
    bool: (lambda value, usual: isinstance(value, bool), "True or False"),
    int: (_number, "a whole number"),
    float: (_number, "a number"),
    str: (lambda value, usual: isinstance(value, str), "a word"),
    dict: (lambda value, usual: isinstance(value, dict), "a dict"),
    tuple: (_numbers, "a tuple of numbers"),
}


def resolve(presets, name, changes, function):
    """The row ``name`` of ``presets``, changed by ``key=value`` texts, checked against the signature of ``function``.

    Keys are its keyword-only parameters. A dict changes only those of the row's entries that it names.
    Raises InputError for an unknown preset or key, and for a value of another kind than the row's or the default.
    """
    row = dict(closest(name, presets))
    known = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    known.pop("dry_run", None)  # an option of the scripts
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f'--set "{change}" has no "=". Write --set key=value.')
        closest(key, known)
        value, usual = _literal(text), row.get(key, known[key].default)
        if type(usual) in KINDS and not KINDS[type(usual)][0](value, usual):
            raise InputError(f"--set {change}: {key} is {KINDS[type(usual)][1]}, such as {usual!r}.")
        row[key] = row[key] | value if isinstance(value, dict) and isinstance(row.get(key), dict) else value
    return row


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a bare word, such as a family
