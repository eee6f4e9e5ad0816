"""Checks of settings, whose error names the field, its value and the remedy."""

from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

from ubert_model.errors import ConfigError


def require(condition: bool, field: str, value: object, remedy: str) -> None:
    """Raise ``ConfigError`` naming the field, its value and the remedy, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{field} = {value!r}: {remedy}")


def require_choice(field: str, value: object, kind: object) -> None:
    """Raise ``ConfigError`` unless ``value`` is one of the alternatives of a ``Literal``."""
    require(value in get_args(kind), field, value, f"use one of {', '.join(map(repr, get_args(kind)))}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}


def require_declared_types(config: object) -> None:
    """Raise ``ConfigError`` for a field of a dataclass whose value is not of the declared type, a union or a
    ``Literal``; its values may come from a file. A whole number is also a float, but a truth value is no number.
    """
    for field, declared in get_type_hints(type(config)).items():
        value = getattr(config, field)
        if get_origin(declared) is Literal:
            require_choice(field, value, declared)
            continue
        kinds = get_args(declared) or (declared,)
        fits = isinstance(value, (*kinds, int) if float in kinds else kinds)
        remedy = f"use {' or '.join(_KINDS.get(kind, kind.__name__) for kind in kinds)}"
        require(fits and (bool in kinds or not isinstance(value, bool)), field, value, remedy)
