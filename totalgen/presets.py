"""Preset tables: plain dicts whose keys are the parameters of the function they feed."""

import ast
import inspect

from totalgen.errors import InputError, closest


def resolve(presets, name, changes, function):
    """The row ``name`` of ``presets``, changed by ``key=value`` texts, checked against the signature of ``function``.

    Keys are its keyword-only parameters. A dict changes only those of the row's entries that it names.
    Raises InputError for an unknown preset or key, and for anything but True or False where that is asked.
    """
    row = dict(closest(name, presets))
    known = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f'--set "{change}" has no "=". Write --set key=value.')
        closest(key, known)
        value = _literal(text)
        if isinstance(known[key].default, bool) and not isinstance(value, bool):
            raise InputError(f"--set {change}: {key} is True or False. Write --set {key}=True.")
        row[key] = row[key] | value if isinstance(value, dict) and isinstance(row.get(key), dict) else value
    return row


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a bare word, such as a family
