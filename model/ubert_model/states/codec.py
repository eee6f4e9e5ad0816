"""The codecs of a review's encoder states, and the byte format that they share.

A codec's name is a precision and, after a slash, how many neighbouring rows it pools into one: ``int8``, ``pq2/pool2``.
The first row ([CLS]) always stays alone. Little-endian throughout::

    offset  0  magic "UBRS"
            4  format version, u8
            5  codec, u8: the precision's number in the low four bits, the pooling less one in the high four
            6  D, u16
            8  state version, 8 bytes
           16  L, u32: rows of the review before pooling; 1 + ⌈(L − 1) / pooled⌉ are stored, or none
           20  n, u32: bytes of the encoded matrix
           24  the encoded matrix, in the format of its precision
       24 + n  crc32 of everything before it, u32

The checksum detects any single wrong byte, so damaged bytes raise and never decode to a wrong array. The state version
covers encoder, codec and, for product codes, the codebook, so that no state is ever read with the wrong codebook.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import ConfigError, CorruptStateError, ForeignStateError, StateError
from ubert_model.rows import pooled_rows
from ubert_model.states.keys import version_bytes
from ubert_model.states.pooling import FloatMatrix, pool_neighbours
from ubert_model.states.product_code import PRODUCT_BITS, Codebooks, ProductCode, group_shape
from ubert_model.states.quantize import QUANTIZERS, Quantizer
from ubert_model.states.store import Namespace

DEFAULT_CODEC = "int8"
"""The smallest codec that surely changes MSE by less than 0.1% on both corpora of the README (`ubert bench states`)."""
POOLINGS = (1, 2, 3)
"""How many neighbouring rows a codec pools into one."""
_MAGIC = b"UBRS"
_FORMAT = 1
_HEADER = struct.Struct("<4sBBH8sII")
_CHECKSUM = struct.Struct("<I")
_UNTRAINED = {quantizer.name: quantizer for quantizer in QUANTIZERS}


class _Frame(NamedTuple):
    """A state whose checksum has been verified, not yet decoded."""

    number: int
    rows: int
    state_dim: int
    encoded: memoryview


def codec_names() -> tuple[str, ...]:
    """All codecs, by precision and then by pooling."""
    return tuple(
        precision if pooled == 1 else f"{precision}/pool{pooled}"
        for precision in (*_UNTRAINED, *PRODUCT_BITS)
        for pooled in POOLINGS
    )


def require_codec(name: str) -> None:
    """Raise ``ConfigError`` unless there is a codec of that name."""
    if name not in codec_names():
        precisions = ", ".join((*_UNTRAINED, *PRODUCT_BITS))
        raise ConfigError(f"codec = {name!r}: use one of {precisions}, alone or with /pool2 or /pool3")


def is_trained(name: str) -> bool:
    """Does the codec need a codebook? Raises ``ConfigError`` for an unknown name."""
    return _parts(name)[0] in PRODUCT_BITS


def stored_rows(name: str, rows: int) -> int:
    """How many of a review's L rows are left under a codec. Raises ``ConfigError`` for an unknown codec."""
    return pooled_rows(rows, _parts(name)[1])


def stored_bytes(name: str, rows: int, state_dim: int) -> int:
    """Size of a stored review of L rows under a codec, header and checksum included; needs no codebook.

    Raises ``ConfigError`` for an unknown codec.
    """
    stored = stored_rows(name, rows)
    precision, _ = _parts(name)
    if precision in PRODUCT_BITS:
        encoded = stored * group_shape(state_dim, PRODUCT_BITS[precision])[0]
    else:
        encoded = _UNTRAINED[precision].size(stored, state_dim)
    return _HEADER.size + encoded + _CHECKSUM.size


def make_codec(namespace: Namespace, codebooks: Codebooks | None = None) -> "StateCodec":
    """The codec of a namespace. ``Bundle.codec`` supplies the namespace and the codebooks.

    Raises ``ConfigError`` for an unknown codec or a product code without codebooks, and ``InputError`` for a malformed
    version.
    """
    precision, pooled = _parts(namespace.codec)
    version_bytes(namespace.version)
    if precision in _UNTRAINED:
        return StateCodec(namespace=namespace, quantizer=_UNTRAINED[precision], pooled=pooled)
    if codebooks is None:
        raise ConfigError(f"codec = {namespace.codec!r}: it needs the codebooks of a bundle")
    return StateCodec(namespace=namespace, quantizer=ProductCode(precision, codebooks.of[precision]), pooled=pooled)


def state_shape(payload: bytes, *, version: str) -> tuple[int, int]:
    """(L, D) of a stored review before pooling, without decoding it: needs no codebook. Raises as decoding does."""
    frame = _frame(payload, version_bytes(version))
    return frame.rows, frame.state_dim


@dataclass(frozen=True, kw_only=True)
class StateCodec:
    """Writes and reads the states of one namespace. Thread-safe. Made by :func:`make_codec`."""

    namespace: Namespace
    quantizer: Quantizer
    pooled: int

    @property
    def name(self) -> str:
        return self.namespace.codec

    def encode(self, values: FloatMatrix) -> bytes:
        """The bytes of one review's states, (L, D) float32; L may be 0.

        Raises ``StateError`` for a wrong shape or dtype, a non-finite value, or one beyond what the codec can hold.
        """
        self._check_values(values)
        encoded = self.quantizer.encode(pool_neighbours(np.ascontiguousarray(values), self.pooled))
        rows, state_dim = values.shape
        version = version_bytes(self.namespace.version)
        body = _HEADER.pack(_MAGIC, _FORMAT, self._number, state_dim, version, rows, len(encoded)) + encoded
        return body + _CHECKSUM.pack(zlib.crc32(body))

    def decode(self, payload: bytes) -> FloatMatrix:
        """The states of one review as a new array, (rows, D) float32.

        Raises ``CorruptStateError`` (truncated, magic, format, length, checksum, codec), ``ForeignStateError``
        (another state version: another encoder, codec or codebook) and ``StateError`` (another dimension).
        """
        return self.decode_many([payload])[0]

    def decode_many(self, payloads: Sequence[bytes]) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """The states of R reviews as a ragged array: rows (T, D) float32, offsets (R + 1,).

        Review r has rows ``offsets[r]`` to ``offsets[r + 1]``. One pass decodes them all if the precision allows it.
        Raises as :meth:`decode` does.
        """
        version = version_bytes(self.namespace.version)
        frames = [self._checked(_frame(payload, version)) for payload in payloads]
        offsets = np.zeros(len(frames) + 1, dtype=np.int64)
        np.cumsum([pooled_rows(frame.rows, self.pooled) for frame in frames], out=offsets[1:])
        states = np.empty((int(offsets[-1]), self.namespace.state_dim), dtype=np.float32)
        if self.quantizer.by_row:
            self.quantizer.decode(memoryview(b"".join(frame.encoded for frame in frames)), states)
            return states, offsets
        for frame, start, end in zip(frames, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            self.quantizer.decode(frame.encoded, states[start:end])
        return states, offsets

    @property
    def _number(self) -> int:
        return self.quantizer.number | (self.pooled - 1) << 4

    def _check_values(self, values: FloatMatrix) -> None:
        state_dim = self.namespace.state_dim
        if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != state_dim:
            raise StateError(f"states must be float32 (L, {state_dim}), not {values.dtype} {values.shape}")
        peak = float(np.abs(values).max(initial=0.0))
        if not peak <= self.quantizer.largest:  # also true of NaN, which a maximum propagates
            raise StateError(
                f"states reach {peak}, but codec {self.name} holds finite values up to {self.quantizer.largest:g}: "
                "check the review encoder, or choose another codec"
            )

    def _checked(self, frame: _Frame) -> _Frame:
        state_dim = self.namespace.state_dim
        if frame.number != self._number:
            raise CorruptStateError(f"state of codec number {frame.number}, expected {self._number} ({self.name})")
        if frame.state_dim != state_dim:
            raise StateError(f"state of dimension {frame.state_dim}, but its namespace has {state_dim}")
        if len(frame.encoded) != self.quantizer.size(pooled_rows(frame.rows, self.pooled), state_dim):
            raise CorruptStateError(
                f"wrong size: {len(frame.encoded)} bytes for {frame.rows} rows of dimension {state_dim} in {self.name}"
            )
        return frame


def _parts(name: str) -> tuple[str, int]:
    """Precision and pooling. Raises ``ConfigError`` for an unknown codec."""
    require_codec(name)
    precision, _, pooled = name.partition("/pool")
    return precision, int(pooled or 1)


def _frame(payload: bytes, expected_version: bytes) -> _Frame:
    if len(payload) < _HEADER.size + _CHECKSUM.size:
        raise CorruptStateError(f"truncated state: {len(payload)} bytes are fewer than a header")
    magic, format_version, number, state_dim, version, rows, size = _HEADER.unpack_from(payload)
    if magic != _MAGIC:
        raise CorruptStateError(f"wrong magic {magic!r}: these bytes are not a state")
    if format_version != _FORMAT:
        raise CorruptStateError(f"unknown state format {format_version}: this program reads format {_FORMAT}")
    end = _HEADER.size + size
    if len(payload) != end + _CHECKSUM.size:
        raise CorruptStateError(f"wrong length: {len(payload)} bytes, but the header says {end + _CHECKSUM.size}")
    view = memoryview(payload)
    if (zlib.crc32(view[:end]),) != _CHECKSUM.unpack_from(payload, end):
        raise CorruptStateError("wrong checksum: this state was changed after it was written")
    if version != expected_version:
        raise ForeignStateError(
            f"state of version {version.hex()}, expected {expected_version.hex()}: another encoder, codec or codebook "
            "wrote it, so precompute it with this bundle"
        )
    return _Frame(number, rows, state_dim, view[_HEADER.size : end])
