"""How a (L, D) matrix becomes bytes and back. A further codec is one class here and one line in ``CODECS``."""

from typing import Protocol

import numpy as np

from ubert_model.states.review import FloatMatrix


class StateCodec(Protocol):
    """One representation of finite encoder states. All bytes are little-endian and row-major.

    ``number`` stands in every stored state and is never reused. ``largest`` is the greatest magnitude that the
    codec can hold.
    """

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int: ...

    @property
    def largest(self) -> float: ...

    def size(self, tokens: int, state_dim: int) -> int:
        """Number of bytes of an encoded (L, D) matrix."""

    def encode(self, values: FloatMatrix) -> bytes:
        """Encode (L, D) finite values whose magnitude is at most ``largest``."""

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        """Fill ``out`` (L, D) from ``size(L, D)`` bytes."""


class Fp32:
    """Lossless."""

    name = "fp32"
    number = 1
    largest = float(np.finfo(np.float32).max)

    def size(self, tokens: int, state_dim: int) -> int:
        return 4 * tokens * state_dim

    def encode(self, values: FloatMatrix) -> bytes:
        return values.astype("<f4", copy=False).tobytes()

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        out[...] = np.frombuffer(encoded, dtype="<f4").reshape(out.shape)


class Fp16:
    """Half precision: relative error at most 2⁻¹¹ for normal halves."""

    name = "fp16"
    number = 2
    largest = float(np.finfo(np.float16).max)

    def size(self, tokens: int, state_dim: int) -> int:
        return 2 * tokens * state_dim

    def encode(self, values: FloatMatrix) -> bytes:
        return values.astype("<f2").tobytes()

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        out[...] = np.frombuffer(encoded, dtype="<f2").reshape(out.shape)


class Int8:
    """Symmetric, one fp32 scale a token: absolute error at most ``max|row| / 254``.

    The scales come first, then the rows.
    """

    name = "int8"
    number = 3
    largest = 1e38  # scale · 127 is rounded, and must not round past the largest float32

    def size(self, tokens: int, state_dim: int) -> int:
        return tokens * (4 + state_dim)

    def encode(self, values: FloatMatrix) -> bytes:
        scales = np.abs(values).max(axis=1, initial=0.0) / np.float32(127)  # (L,)
        divisors = np.where(scales > 0, scales, np.float32(1))  # (L,)
        # A subnormal scale is inexact enough to push a quotient past 127.
        quantized = np.rint(values / divisors[:, None]).clip(-127, 127).astype(np.int8)  # (L, D)
        return b"".join((scales.astype("<f4").tobytes(), quantized.tobytes()))

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        tokens = len(out)
        scales = np.frombuffer(encoded, dtype="<f4", count=tokens)  # (L,)
        quantized = np.frombuffer(encoded, dtype=np.int8, offset=4 * tokens).reshape(out.shape)  # (L, D)
        np.multiply(quantized, scales[:, None], out=out)


CODECS: tuple[StateCodec, ...] = (Fp32(), Fp16(), Int8())
