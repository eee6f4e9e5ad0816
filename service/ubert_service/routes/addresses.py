"""Identifiers as the last part of a path, of any characters."""

from starlette.convertors import PathConvertor, register_url_convertor

_CONVERTOR = "identifier"


class _Identifier(PathConvertor):
    """Starlette's own ``path`` drops a trailing line break, and so would name another review."""

    regex = r"[\s\S]*"


register_url_convertor(_CONVERTOR, _Identifier())


def identifier(parameter: str) -> str:
    """The placeholder of an identifier that takes the rest of a route's path, slashes included."""
    return f"{{{parameter}:{_CONVERTOR}}}"
