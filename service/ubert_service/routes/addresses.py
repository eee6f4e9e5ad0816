"""Identifiers as the last part of an address: of any characters, as anywhere else."""

from starlette.convertors import Convertor, register_url_convertor

_CONVERTOR = "identifier"


class _Identifier(Convertor[str]):
    """Starlette's own ``path`` leaves off a line break at the end, and so names another review."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor(_CONVERTOR, _Identifier())


def identifier(parameter: str) -> str:
    """What stands for the rest of an address in a route: an identifier, slashes and all."""
    return f"{{{parameter}:{_CONVERTOR}}}"
