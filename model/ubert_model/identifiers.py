"""What can identify a user, an item or a review."""

from ubert_model.errors import InputError

MAX_IDENTIFIER_BYTES = 256


def identifier_bytes(identifier: str) -> bytes:
    """The 1 to 256 UTF-8 bytes of a review, user or item identifier. Raises ``InputError`` for any other."""
    try:
        encoded = identifier.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"identifier {identifier[:64]!r} is not valid Unicode: {error.reason}") from error
    if not 1 <= len(encoded) <= MAX_IDENTIFIER_BYTES:
        raise InputError(
            f"identifier {identifier[:64]!r} has {len(encoded)} UTF-8 bytes, allowed are 1 to {MAX_IDENTIFIER_BYTES}"
        )
    return encoded
