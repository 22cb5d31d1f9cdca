"""Preset tables: plain dicts whose keys are the parameters of the function they feed."""

import ast
import inspect

from totalgen.errors import InputError, closest


def resolve(presets, name, changes, function):
    """The row ``name`` of ``presets``, changed by ``key=value`` texts, checked against the signature of ``function``.

    Raises InputError for an unknown preset or key, or a value that is no Python literal.
    """
    row = dict(closest(name, presets))
    known = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise InputError(f'--set "{change}" has no "=". Write --set key=value.')
        closest(key, known)
        row[key] = _literal(text)
    return row


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a bare word, such as a family
