import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ubert_model.errors import ConfigError, CorruptStateError, ForeignStateError, InputError, StateError
from ubert_model.states import FloatMatrix, codec_names, decode_many, decode_states, encode_states

VERSION = "0123456789abcdef"
OTHER_VERSION = "fedcba9876543210"
EVERY_CODEC = pytest.mark.parametrize("codec", codec_names())


def normal_states(tokens: int, state_dim: int = 24, seed: int = 0) -> FloatMatrix:
    return np.random.default_rng(seed).standard_normal((tokens, state_dim)).astype(np.float32)


def matrices(largest: float) -> st.SearchStrategy[FloatMatrix]:
    values = st.floats(-largest, largest, width=32)
    return arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 6)), elements=values)


def encoded_with(codec: str, values: FloatMatrix) -> FloatMatrix:
    return decode_states(encode_states(values, codec=codec, version=VERSION), version=VERSION)


@given(values=matrices(float(np.float32(3.4e38))))
def test_fp32_gives_back_the_very_bits(values: FloatMatrix) -> None:
    np.testing.assert_array_equal(encoded_with("fp32", values).view(np.uint32), values.view(np.uint32))


@given(values=matrices(65504.0))
def test_fp16_errs_by_at_most_half_a_unit_in_the_last_place(values: FloatMatrix) -> None:
    smallest_half = 2.0**-24
    bound = np.maximum(np.abs(values) * 2.0**-11, smallest_half / 2)
    assert np.all(np.abs(encoded_with("fp16", values).astype(np.float64) - values) <= bound)


@given(values=matrices(float(np.float32(9.9e37))))
@example(values=np.array([[1e-45, 3e-45, -1.3e-43]], dtype=np.float32))
@example(values=np.array([[0.0, 0.0]], dtype=np.float32))
def test_int8_errs_by_at_most_half_a_step_of_its_token(values: FloatMatrix) -> None:
    exact = values.astype(np.float64)
    smallest_scale = 1.5e-45  # below it a scale is rounded to a multiple of the least subnormal
    step = np.abs(exact).max(axis=1, keepdims=True) / 127
    bound = step / 2 * (1 + 1e-4) + 127 * smallest_scale
    assert np.all(np.abs(encoded_with("int8", values) - exact) <= bound)


def test_int8_of_one_token_never_depends_on_the_others() -> None:
    values = normal_states(3)
    louder = values.copy()
    louder[0] *= 1000
    np.testing.assert_array_equal(encoded_with("int8", values)[1:], encoded_with("int8", louder)[1:])


@EVERY_CODEC
def test_a_review_without_tokens_survives(codec: str) -> None:
    assert encoded_with(codec, np.empty((0, 24), dtype=np.float32)).shape == (0, 24)


@EVERY_CODEC
def test_the_memory_layout_of_the_input_never_changes_the_bytes(codec: str) -> None:
    values = normal_states(7)
    transposed = np.asfortranarray(values)
    assert encode_states(values, codec=codec, version=VERSION) == encode_states(
        transposed, codec=codec, version=VERSION
    )


def test_lossy_codecs_are_smaller() -> None:
    sizes = [len(encode_states(normal_states(64), codec=codec, version=VERSION)) for codec in ("fp32", "fp16", "int8")]
    assert sizes == [28 + 64 * 24 * 4, 28 + 64 * 24 * 2, 28 + 64 * (24 + 4)]


@pytest.mark.parametrize(
    ("codec", "number", "encoded", "checksum"),
    [
        ("fp32", "01", "0000803f" "000000c0", "fb153bc1"),
        ("fp16", "02", "003c" "00c0", "14d3d940"),
        ("int8", "03", "0402813c" "40" "81", "86a5aed7"),
    ],
)  # fmt: skip
def test_bytes_written_today_are_read_for_ever(codec: str, number: str, encoded: str, checksum: str) -> None:
    size = len(encoded) // 2
    payload = f"5542525301{number}0200{VERSION}01000000{size:02x}000000{encoded}{checksum}"
    values = np.array([[1.0, -2.0]], dtype=np.float32)
    assert encode_states(values, codec=codec, version=VERSION).hex() == payload
    np.testing.assert_allclose(decode_states(bytes.fromhex(payload), version=VERSION), values, rtol=0.01)


@given(st.data())
def test_a_changed_byte_never_yields_an_array(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(codec_names()))
    payload = bytearray(encode_states(normal_states(3, 4), codec=codec, version=VERSION))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptStateError, ForeignStateError)):
        decode_states(bytes(payload), version=VERSION)


@EVERY_CODEC
def test_truncated_or_extended_bytes_never_yield_an_array(codec: str) -> None:
    payload = encode_states(normal_states(2, 3), codec=codec, version=VERSION)
    for wrong in [payload[:end] for end in range(len(payload))] + [payload + b"\0", b"\0" + payload]:
        with pytest.raises(CorruptStateError):
            decode_states(wrong, version=VERSION)


@given(st.binary(max_size=200))
def test_foreign_bytes_never_yield_an_array(foreign: bytes) -> None:
    with pytest.raises(CorruptStateError):
        decode_states(foreign, version=VERSION)


def resealed(payload: bytes, offset: int, replacement: bytes) -> bytes:
    """What a program of another format would write: changed, with a checksum that fits."""
    body = payload[:offset] + replacement + payload[offset + len(replacement) : -4]
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("offset", "replacement", "reason"),
    [
        (0, b"JUNK", "wrong magic"),
        (4, b"\x09", "unknown state format 9"),
        (5, b"\xee", "unknown codec 238"),
        (6, b"\x05\x00", r"wrong size: 24 bytes for \(2, 5\)"),
        (16, b"\x07", r"wrong size: 24 bytes for \(7, 3\)"),
        (20, b"\x01", "wrong length"),
    ],
)
def test_a_well_sealed_state_of_another_format_is_refused_by_name(offset: int, replacement: bytes, reason: str) -> None:
    payload = encode_states(normal_states(2, 3), codec="fp32", version=VERSION)
    with pytest.raises(CorruptStateError, match=reason):
        decode_states(resealed(payload, offset, replacement), version=VERSION)


def test_a_state_of_another_version_is_refused() -> None:
    payload = encode_states(normal_states(2), codec="int8", version=OTHER_VERSION)
    with pytest.raises(ForeignStateError, match=f"{OTHER_VERSION}.*{VERSION}"):
        decode_states(payload, version=VERSION)
    with pytest.raises(ForeignStateError):
        decode_many([payload], version=VERSION, state_dim=24)


@EVERY_CODEC
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_stored(codec: str, value: float) -> None:
    values = normal_states(3)
    values[1, 2] = value
    with pytest.raises(StateError, match="finite"):
        encode_states(values, codec=codec, version=VERSION)


@pytest.mark.parametrize(("codec", "value"), [("fp16", 65505.0), ("fp16", -1e9), ("int8", 2e38)])
def test_a_value_beyond_the_codec_is_refused_and_never_becomes_infinite(codec: str, value: float) -> None:
    with pytest.raises(StateError, match=codec):
        encode_states(np.array([[value]], dtype=np.float32), codec=codec, version=VERSION)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((1, 2, 3), np.float32), np.zeros((1, 65536), np.float32)],
    ids=["float64", "vector", "batch", "too wide"],
)
def test_only_float32_matrices_are_encoded(values: FloatMatrix) -> None:
    with pytest.raises(StateError, match="float32"):
        encode_states(values, codec="fp32", version=VERSION)


def test_an_unknown_codec_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'int5'.*fp32, fp16, int8"):
        encode_states(normal_states(1), codec="int5", version=VERSION)


@pytest.mark.parametrize("version", ["", "0123", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcdef0", "*"])
def test_a_malformed_version_is_refused(version: str) -> None:
    with pytest.raises(InputError, match="16 lower-case hex"):
        encode_states(normal_states(1), codec="fp32", version=version)


@EVERY_CODEC
def test_decoding_many_equals_decoding_each(codec: str) -> None:
    payloads = [
        encode_states(normal_states(tokens, seed=tokens), codec=codec, version=VERSION) for tokens in (3, 0, 1, 17)
    ]
    states, offsets = decode_many(payloads, version=VERSION, state_dim=24)
    assert offsets.tolist() == [0, 3, 3, 4, 21]
    assert states.dtype == np.float32
    for review, payload in enumerate(payloads):
        rows = states[offsets[review] : offsets[review + 1]]
        np.testing.assert_array_equal(rows, decode_states(payload, version=VERSION))


def test_decoding_no_reviews_gives_no_rows_of_the_right_width() -> None:
    states, offsets = decode_many([], version=VERSION, state_dim=24)
    assert states.shape == (0, 24)
    assert offsets.tolist() == [0]


def test_states_of_two_dimensions_are_never_mixed() -> None:
    payloads = [encode_states(normal_states(1, dim), codec="fp32", version=VERSION) for dim in (24, 25)]
    with pytest.raises(StateError, match="dimension 25"):
        decode_many(payloads, version=VERSION, state_dim=24)


@EVERY_CODEC
def test_a_decoded_array_can_be_written_to(codec: str) -> None:
    states = encoded_with(codec, normal_states(2))
    states += 1
    assert states.flags.owndata
