"""Building validated dataclasses from untrusted mappings: manifests, command line, plugins."""

from __future__ import annotations

import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


class UsageError(ValueError):
    """Wrong input from a person; the message is one sentence naming the thing and the remedy."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """' (did you mean "x"?)' for the closest known name, else ' (known: ...)'."""
    known = sorted(known)
    plain = {word.lower(): word for word in known}
    close = difflib.get_close_matches(str(name).lower(), plain, n=1, cutoff=0.6)
    if close:
        return f' (did you mean "{plain[close[0]]}"?)'
    return f" (known: {', '.join(known)})" if known else ""


def check_name(name: object, known: Iterable[str], what: str, where: str = "") -> str:
    """Returns ``name`` if it is known.

    Raises:
        UsageError: with the closest known name.
    """
    known = list(known)
    if isinstance(name, str) and name in known:
        return name
    prefix = f"{where}: " if where else ""
    raise UsageError(f'{prefix}unknown {what} "{name}"{did_you_mean(name, known)}')


def check_label(label: object, where: str) -> None:
    """Refuses a label that cannot name a row and a folder.

    Raises:
        UsageError: naming it.
    """
    allowed = isinstance(label, str) and label.replace("_", "").replace("-", "").replace(".", "")
    if not allowed or not str(allowed).isalnum() or not str(label)[0].isalnum():
        raise UsageError(f"{where}: a label is made of letters, digits, _, - and ., not {label!r}")


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in arguments)
    if hint is type(None):
        return "null"
    if origin in (tuple, list):
        return f"a list of {_describe(arguments[0])} values" if arguments else "a list"
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return "a mapping"
    return str(getattr(hint, "__name__", hint))


def convert(value: Any, hint: Any, where: str) -> Any:
    """Converts one value to a type ("1e-3" is a float, 1.5 is no int, true is no number).

    Raises:
        UsageError: "<where> must be <type>, not <value>".
    """
    wants_number = bool({int, float} & {hint, *typing.get_args(hint)})
    try:
        if isinstance(value, bool) and wants_number:
            raise ValueError
        return _adapter(hint).validate_python(value)
    except (ValidationError, ValueError):
        shown = json.dumps(value, default=str)
        raise UsageError(f"{where} must be {_describe(hint)}, not {shown}") from None


def build(cls: type[T], mapping: Any, where: str) -> T:
    """Makes a dataclass from a mapping; unknown keys, missing keys and wrong types are refused.

    Args:
        cls: a dataclass type.
        mapping: field name -> value.
        where: names the place in messages, for example "suite.yaml: agents.iql".

    Raises:
        UsageError: one sentence naming the place, the key and the remedy.
    """
    if not isinstance(mapping, Mapping):
        raise UsageError(
            f"{where} must be a mapping of settings, not {json.dumps(mapping, default=str)}"
        )
    known = {f.name: f for f in fields(typing.cast(Any, cls)) if f.init}
    for key in mapping:
        check_name(key, known, "key", where)
    for name, spec in known.items():
        if name not in mapping and spec.default is MISSING and spec.default_factory is MISSING:
            raise UsageError(f'{where}: the key "{name}" is missing')
    hints = _hints(typing.cast(Any, cls))
    values = {key: convert(value, hints[key], f"{where}: {key}") for key, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def check_ranges(config: Any, **ranges: tuple[float, float]) -> None:
    """Refuses numbers outside their range; for a config's ``__post_init__``.

    Args:
        config: the dataclass instance.
        ranges: field name -> smallest and largest value allowed, of each number in a tuple.

    Raises:
        UsageError: naming the field and its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                allowed = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
                raise UsageError(f"{name} must be {allowed}, not {number:g}")
