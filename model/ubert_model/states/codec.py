"""The byte format of one review's encoder states.

Little-endian throughout::

    offset  0  magic "UBRS"
            4  format version, u8
            5  codec number, u8
            6  D, u16
            8  state version, 8 bytes
           16  L, u32
           20  n, u32: bytes of the encoded matrix
           24  the encoded matrix, by the codec
       24 + n  crc32 of everything before it, u32

The checksum finds every single wrong byte, so damaged bytes raise and never become a wrong array.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import ConfigError, CorruptStateError, ForeignStateError, StateError
from ubert_model.states.keys import version_bytes
from ubert_model.states.quantize import CODECS, StateCodec
from ubert_model.states.review import FloatMatrix

_MAGIC = b"UBRS"
_FORMAT = 1
_HEADER = struct.Struct("<4sBBH8sII")
_CHECKSUM = struct.Struct("<I")
_BY_NAME = {codec.name: codec for codec in CODECS}
_BY_NUMBER = {codec.number: codec for codec in CODECS}


class _Frame(NamedTuple):
    """A state whose bytes are proved whole, not yet decoded."""

    codec: StateCodec
    tokens: int
    state_dim: int
    encoded: memoryview


def codec_names() -> tuple[str, ...]:
    """The codecs that ``encode_states`` accepts."""
    return tuple(_BY_NAME)


def encode_states(values: FloatMatrix, *, codec: str, version: str) -> bytes:
    """Encode the states of one review, (L, D) float32; L may be 0.

    Raises ``ConfigError`` for an unknown codec, ``InputError`` for a malformed version and ``StateError`` for
    a wrong shape or dtype, a non-finite value, or one beyond what the codec can hold.
    """
    if codec not in _BY_NAME:
        raise ConfigError(f"unknown state codec {codec!r}: choose one of {', '.join(_BY_NAME)}")
    chosen = _BY_NAME[codec]
    if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] > 0xFFFF:
        raise StateError(f"states must be float32 (L, D ≤ 65535), not {values.dtype} {values.shape}")
    peak = float(np.abs(values).max(initial=0.0))
    if not peak <= chosen.largest:  # also true of a NaN, which any maximum carries along
        raise StateError(
            f"states reach {peak}, but codec {codec} holds finite values up to {chosen.largest:g}: "
            "check the review encoder, or choose another codec"
        )
    encoded = chosen.encode(values)
    header = _HEADER.pack(
        _MAGIC, _FORMAT, chosen.number, values.shape[1], version_bytes(version), len(values), len(encoded)
    )
    body = header + encoded
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode_states(payload: bytes, *, version: str) -> FloatMatrix:
    """The (L, D) float32 states of one review, in an array of their own.

    Raises ``CorruptStateError`` (truncated, magic, format, length, checksum, codec) and ``ForeignStateError``
    (another state version).
    """
    frame = _frame(payload, version_bytes(version))
    states = np.empty((frame.tokens, frame.state_dim), dtype=np.float32)
    frame.codec.decode(frame.encoded, states)
    return states


def decode_many(payloads: Sequence[bytes], *, version: str, state_dim: int) -> tuple[FloatMatrix, NDArray[np.int64]]:
    """The states of R reviews, concatenated: (T, D) float32, and offsets (R + 1,).

    Review r has rows ``offsets[r]`` to ``offsets[r + 1]``. Raises as ``decode_states`` does, and ``StateError``
    if a review has another dimension than ``state_dim``.
    """
    wanted = version_bytes(version)
    frames = [_frame(payload, wanted) for payload in payloads]
    offsets = np.zeros(len(frames) + 1, dtype=np.int64)
    np.cumsum([frame.tokens for frame in frames], out=offsets[1:])
    states = np.empty((int(offsets[-1]), state_dim), dtype=np.float32)
    for frame, start, end in zip(frames, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if frame.state_dim != state_dim:
            raise StateError(f"state has dimension {frame.state_dim}, its namespace says {state_dim}")
        frame.codec.decode(frame.encoded, states[start:end])
    return states, offsets


def _frame(payload: bytes, wanted: bytes) -> _Frame:
    if len(payload) < _HEADER.size + _CHECKSUM.size:
        raise CorruptStateError(f"truncated state: {len(payload)} bytes are fewer than a header")
    magic, form, number, state_dim, version, tokens, size = _HEADER.unpack_from(payload)
    if magic != _MAGIC:
        raise CorruptStateError(f"wrong magic {magic!r}: these bytes are not a state")
    if form != _FORMAT:
        raise CorruptStateError(f"unknown state format {form}: this program reads format {_FORMAT}")
    end = _HEADER.size + size
    if len(payload) != end + _CHECKSUM.size:
        raise CorruptStateError(f"wrong length: {len(payload)} bytes, the header says {end + _CHECKSUM.size}")
    view = memoryview(payload)
    if (zlib.crc32(view[:end]),) != _CHECKSUM.unpack_from(payload, end):
        raise CorruptStateError("wrong checksum: the bytes of this state were changed after it was written")
    if version != wanted:
        raise ForeignStateError(
            f"state of version {version.hex()} where {wanted.hex()} is served: precompute it with this bundle"
        )
    codec = _BY_NUMBER.get(number)
    if codec is None:
        raise CorruptStateError(f"unknown codec {number}: this program knows {', '.join(_BY_NAME)}")
    if size != codec.size(tokens, state_dim):
        raise CorruptStateError(f"wrong size: {size} bytes for ({tokens}, {state_dim}) in {codec.name}")
    return _Frame(codec, tokens, state_dim, view[_HEADER.size : end])
