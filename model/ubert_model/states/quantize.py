"""Untrained quantizers of an (L, D) matrix, listed in ``QUANTIZERS``."""

from typing import Protocol

import numpy as np

from ubert_model.states.pooling import FloatMatrix


class Quantizer(Protocol):
    """A binary representation of finite encoder states, little-endian and row-major.

    ``number``, from 1 to 15, is written into every stored state and never reused. ``largest`` is the greatest magnitude
    that it can hold. ``by_row``: each row's bytes are contiguous, so that concatenated matrices decode as one.
    """

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int: ...

    @property
    def largest(self) -> float: ...

    @property
    def by_row(self) -> bool: ...

    def size(self, rows: int, state_dim: int) -> int:
        """Number of bytes of an encoded (L, D) matrix."""

    def encode(self, values: FloatMatrix) -> bytes:
        """Encode (L, D) finite values whose magnitude is at most ``largest``."""

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        """Fill ``out`` (L, D) from ``size(L, D)`` bytes."""


class Float:
    """Floating point numbers: fp32 is lossless, fp16 has a relative error of at most 2⁻¹¹ for normal halves."""

    by_row = True

    def __init__(self, name: str, number: int, dtype: str) -> None:
        self.name = name
        self.number = number
        self._dtype = np.dtype(dtype)
        self.largest = float(np.finfo(self._dtype).max)

    def size(self, rows: int, state_dim: int) -> int:
        return self._dtype.itemsize * rows * state_dim

    def encode(self, values: FloatMatrix) -> bytes:
        return values.astype(self._dtype, copy=False).tobytes()

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        out[...] = np.frombuffer(encoded, dtype=self._dtype).reshape(out.shape)


class Int8:
    """Symmetric, one fp32 scale a row: absolute error at most ``max|row| / 254``.

    The scales come first, then the rows.
    """

    name = "int8"
    number = 3
    largest = 1e38  # scale · 127 is rounded, and must not round past the largest float32
    by_row = False

    def size(self, rows: int, state_dim: int) -> int:
        return rows * (4 + state_dim)

    def encode(self, values: FloatMatrix) -> bytes:
        scales = np.abs(values).max(axis=1, initial=0.0) / np.float32(127)  # (L,)
        divisors = np.where(scales > 0, scales, np.float32(1))  # (L,)
        # Clipped because a subnormal scale is inexact enough to push a quotient past 127.
        quantized = np.rint(values / divisors[:, None]).clip(-127, 127).astype(np.int8)  # (L, D)
        return b"".join((scales.astype("<f4").tobytes(), quantized.tobytes()))

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        rows = len(out)
        scales = np.frombuffer(encoded, dtype="<f4", count=rows)  # (L,)
        quantized = np.frombuffer(encoded, dtype=np.int8, offset=4 * rows).reshape(out.shape)  # (L, D)
        np.multiply(quantized, scales[:, None], out=out)


class Int4:
    """Sixteen even steps from a row's least to its greatest value: absolute error at most ``(max − min) / 30``.

    A row is the least value and the step, fp16 each (their rounding adds at most 2⁻⁹ of the greatest magnitude), then
    two dimensions a byte, the first in the low bits.
    """

    name = "int4"
    number = 4
    largest = float(np.finfo(np.float16).max)
    by_row = True

    def size(self, rows: int, state_dim: int) -> int:
        return rows * _int4_row(state_dim).itemsize

    def encode(self, values: FloatMatrix) -> bytes:
        rows, state_dim = values.shape
        encoded = np.empty(rows, dtype=_int4_row(state_dim))
        encoded["least"] = values.min(axis=1, initial=self.largest)
        least = encoded["least"].astype(np.float32)  # (L,)
        encoded["step"] = (values.max(axis=1, initial=-self.largest) - least) / 15
        steps = np.where(encoded["step"] > 0, encoded["step"], 1).astype(np.float32)  # (L,)
        levels = np.zeros((rows, state_dim + state_dim % 2), dtype=np.uint8)
        levels[:, :state_dim] = np.rint((values - least[:, None]) / steps[:, None]).clip(0, 15)
        encoded["levels"] = levels[:, 0::2] | levels[:, 1::2] << 4
        return encoded.tobytes()

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        rows = np.frombuffer(encoded, dtype=_int4_row(out.shape[1]))
        out[:, 0::2] = rows["levels"] & 15
        out[:, 1::2] = (rows["levels"] >> 4)[:, : out.shape[1] // 2]
        out *= rows["step"].astype(np.float32)[:, None]
        out += rows["least"].astype(np.float32)[:, None]


def _int4_row(state_dim: int) -> np.dtype[np.void]:
    return np.dtype([("least", "<f2"), ("step", "<f2"), ("levels", "u1", ((state_dim + 1) // 2,))])


QUANTIZERS: tuple[Quantizer, ...] = (Float("fp32", 1, "<f4"), Float("fp16", 2, "<f2"), Int8(), Int4())
