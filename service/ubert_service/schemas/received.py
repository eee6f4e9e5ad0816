"""Values of a request in messages to its caller: never the text of a review, which a value of any length may be."""

import json
from collections.abc import Mapping

_SHOWN_CHARACTERS = 40
_KINDS: Mapping[type, str] = {dict: "an object", list: "a list", str: "a string"}


def value_kind(value: object) -> str:
    """What kind of JSON value it is; a number, a boolean or null as it is."""
    return _KINDS.get(type(value)) or json.dumps(value)[:_SHOWN_CHARACTERS]


def shown(value: object) -> str:
    """As :func:`value_kind`, but also a short string as it is: where no text is expected."""
    if isinstance(value, str) and len(value) <= _SHOWN_CHARACTERS:
        return json.dumps(value, ensure_ascii=False)
    return value_kind(value)
