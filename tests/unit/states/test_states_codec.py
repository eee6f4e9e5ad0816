"""The state codecs: error bounds, exact bytes, and refusal of bytes that are not a state of the namespace."""

import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from support.codebooks import random_codebooks
from ubert_model.errors import ConfigError, CorruptStateError, ForeignStateError, InputError, StateError
from ubert_model.rows import pooled_rows
from ubert_model.states import FloatMatrix, Namespace, StateCodec, codec_names, make_codec, product_code, state_shape

VERSION = "0123456789abcdef"
OTHER_VERSION = "fedcba9876543210"
FRAME_BYTES = 28
"""The header and the checksum of a state."""
EVERY_CODEC = pytest.mark.parametrize("codec", codec_names())


def normal_states(rows: int, state_dim: int = 24, seed: int = 0) -> FloatMatrix:
    return np.random.default_rng(seed).standard_normal((rows, state_dim)).astype(np.float32)


def matrices(largest: float) -> st.SearchStrategy[FloatMatrix]:
    values = st.floats(-largest, largest, width=32)
    return arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 6)), elements=values)


def codec_of(name: str, state_dim: int = 24, version: str = VERSION) -> StateCodec:
    namespace = Namespace(version=version, encoder_digest="e", codec=name, state_dim=state_dim, max_length=64)
    return make_codec(namespace, random_codebooks(state_dim))


def encoded_with(name: str, values: FloatMatrix) -> FloatMatrix:
    codec = codec_of(name, values.shape[1])
    return codec.decode(codec.encode(values))


@given(values=matrices(float(np.float32(3.4e38))))
def test_fp32_is_exact_to_the_bit(values: FloatMatrix) -> None:
    np.testing.assert_array_equal(encoded_with("fp32", values).view(np.uint32), values.view(np.uint32))


@given(values=matrices(65504.0))
def test_fp16_errs_by_at_most_half_a_unit_in_the_last_place(values: FloatMatrix) -> None:
    smallest_half = 2.0**-24
    bound = np.maximum(np.abs(values) * 2.0**-11, smallest_half / 2)
    assert np.all(np.abs(encoded_with("fp16", values).astype(np.float64) - values) <= bound)


@given(values=matrices(float(np.float32(9.9e37))))
@example(values=np.array([[1e-45, 3e-45, -1.3e-43]], dtype=np.float32))
@example(values=np.array([[190 * 1.4e-45, 0.0]], dtype=np.float32))
@example(values=np.array([[0.0, 0.0]], dtype=np.float32))
def test_int8_errs_by_at_most_half_a_step_of_its_token(values: FloatMatrix) -> None:
    exact = values.astype(np.float64)
    smallest_scale = 1.5e-45  # below it a scale is rounded to a multiple of the least subnormal
    step = np.abs(exact).max(axis=1, keepdims=True) / 127
    bound = step / 2 * (1 + 1e-4) + 127 * smallest_scale
    assert np.all(np.abs(encoded_with("int8", values) - exact) <= bound)


def test_int8_of_one_token_never_depends_on_the_others() -> None:
    values = normal_states(3)
    scaled = values.copy()
    scaled[0] *= 1000
    np.testing.assert_array_equal(encoded_with("int8", values)[1:], encoded_with("int8", scaled)[1:])


@EVERY_CODEC
def test_a_review_without_rows_is_encoded_and_decoded(codec: str) -> None:
    assert encoded_with(codec, np.empty((0, 24), dtype=np.float32)).shape == (0, 24)


@EVERY_CODEC
def test_the_memory_layout_of_the_input_never_changes_the_bytes(codec: str) -> None:
    values = normal_states(7)
    transposed = np.asfortranarray(values)
    assert codec_of(codec).encode(values) == codec_of(codec).encode(transposed)


@pytest.mark.parametrize(("pooling", "rows"), [("", 64), ("/pool2", 33), ("/pool3", 22)])
@pytest.mark.parametrize(
    ("precision", "row_bytes"),
    [("fp32", 24 * 4), ("fp16", 24 * 2), ("int8", 24 + 4), ("int4", 24 // 2 + 4), ("pq2", 24 // 4), ("pq1", 24 // 8)],
)
def test_each_codec_encodes_to_its_exact_size(precision: str, row_bytes: int, pooling: str, rows: int) -> None:
    payload = codec_of(precision + pooling).encode(normal_states(64))
    assert len(payload) == FRAME_BYTES + rows * row_bytes


@pytest.mark.parametrize(
    ("codec", "number", "encoded", "checksum"),
    [
        ("fp32", "01", "0000803f" "000000c0", "fb153bc1"),
        ("fp16", "02", "003c" "00c0", "14d3d940"),
        ("int8", "03", "0402813c" "40" "81", "86a5aed7"),
        ("int4", "04", "00c0" "6632" "0f", "13240159"),
        ("fp16/pool2", "12", "003c" "00c0", "5855ab41"),
    ],
)  # fmt: skip
def test_the_byte_format_of_each_codec_does_not_change(codec: str, number: str, encoded: str, checksum: str) -> None:
    size = len(encoded) // 2
    payload = f"5542525301{number}0200{VERSION}01000000{size:02x}000000{encoded}{checksum}"
    values = np.array([[1.0, -2.0]], dtype=np.float32)
    assert codec_of(codec, 2).encode(values).hex() == payload
    np.testing.assert_allclose(codec_of(codec, 2).decode(bytes.fromhex(payload)), values, rtol=0.01)


@given(st.data())
def test_a_changed_byte_never_yields_an_array(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(codec_names()))
    payload = bytearray(codec_of(codec, 4).encode(normal_states(3, 4)))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptStateError, ForeignStateError)):
        codec_of(codec, 4).decode(bytes(payload))


@EVERY_CODEC
def test_truncated_or_extended_bytes_never_yield_an_array(codec: str) -> None:
    payload = codec_of(codec, 3).encode(normal_states(2, 3))
    for wrong in [payload[:end] for end in range(len(payload))] + [payload + b"\0", b"\0" + payload]:
        with pytest.raises(CorruptStateError):
            codec_of(codec, 3).decode(wrong)


@given(st.binary(max_size=200))
def test_foreign_bytes_never_yield_an_array(foreign: bytes) -> None:
    with pytest.raises(CorruptStateError):
        codec_of("fp32").decode(foreign)


def resealed(payload: bytes, offset: int, replacement: bytes) -> bytes:
    """The payload with other bytes at ``offset`` and a checksum that matches them."""
    body = payload[:offset] + replacement + payload[offset + len(replacement) : -4]
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("offset", "replacement", "reason"),
    [
        (0, b"JUNK", "wrong magic"),
        (4, b"\x09", "unknown state format 9"),
        (5, b"\xee", "codec number 238, expected 1"),
        (16, b"\x07", "wrong size: 24 bytes for 7 rows of dimension 3"),
        (20, b"\x01", "wrong length"),
    ],
)
def test_a_state_of_another_format_is_refused_despite_a_valid_checksum(
    offset: int, replacement: bytes, reason: str
) -> None:
    codec = codec_of("fp32", 3)
    payload = codec.encode(normal_states(2, 3))
    with pytest.raises(CorruptStateError, match=reason):
        codec.decode(resealed(payload, offset, replacement))


def test_a_state_of_another_version_is_refused() -> None:
    payload = codec_of("int8", version=OTHER_VERSION).encode(normal_states(2))
    with pytest.raises(ForeignStateError, match=f"{OTHER_VERSION}.*{VERSION}.*codebook"):
        codec_of("int8").decode(payload)
    with pytest.raises(ForeignStateError):
        state_shape(payload, version=VERSION)


@EVERY_CODEC
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_stored(codec: str, value: float) -> None:
    values = normal_states(3)
    values[1, 2] = value
    with pytest.raises(StateError, match="finite"):
        codec_of(codec).encode(values)


@pytest.mark.parametrize(
    ("codec", "value"), [("fp16", 65505.0), ("fp16", -1e9), ("int8", 2e38), ("int4", 65505.0), ("pq1", 1e16)]
)
def test_a_value_beyond_the_range_of_the_codec_is_refused(codec: str, value: float) -> None:
    with pytest.raises(StateError, match=codec):
        codec_of(codec, 1).encode(np.array([[value]], dtype=np.float32))


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((1, 2, 3), np.float32), np.zeros((1, 4), np.float32)],
    ids=["float64", "vector", "batch", "too wide"],
)
def test_only_float32_matrices_are_encoded(values: FloatMatrix) -> None:
    with pytest.raises(StateError, match=r"float32 \(L, 3\)"):
        codec_of("fp32", 3).encode(values)


@pytest.mark.parametrize("name", ["int5", "int8/pool4", "int8/", "int8/poolx", "pool2", ""])
def test_an_unknown_codec_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}'.*fp32, fp16, int8, int4, pq2, pq1"):
        codec_of(name)


@pytest.mark.parametrize("version", ["", "0123", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcdef0", "*"])
def test_a_malformed_version_is_refused(version: str) -> None:
    with pytest.raises(InputError, match="16 lower-case hex"):
        codec_of("fp32", version=version)


@EVERY_CODEC
def test_decoding_many_equals_decoding_each(codec: str) -> None:
    counts = (3, 0, 1, 17)
    payloads = [codec_of(codec).encode(normal_states(count, seed=count)) for count in counts]
    states, offsets = codec_of(codec).decode_many(payloads)
    assert np.diff(offsets).tolist() == [pooled_rows(count, codec_of(codec).pooled) for count in counts]
    assert states.dtype == np.float32
    for review, payload in enumerate(payloads):
        rows = states[offsets[review] : offsets[review + 1]]
        np.testing.assert_allclose(rows, codec_of(codec).decode(payload), atol=1e-6)


def test_decoding_no_reviews_gives_no_rows_of_the_right_width() -> None:
    states, offsets = codec_of("fp32").decode_many([])
    assert states.shape == (0, 24)
    assert offsets.tolist() == [0]


def test_states_of_two_dimensions_are_never_mixed() -> None:
    payloads = [codec_of("fp32", dim).encode(normal_states(1, dim)) for dim in (24, 25)]
    with pytest.raises(StateError, match="dimension 25"):
        codec_of("fp32").decode_many(payloads)


@EVERY_CODEC
def test_a_decoded_array_can_be_written_to(codec: str) -> None:
    states = encoded_with(codec, normal_states(2))
    states += 1
    assert states.flags.owndata


@given(values=matrices(float(np.float32(65504))))
@example(values=np.array([[6e-8, 3e-8, 0.0]], dtype=np.float32))
@example(values=np.array([[1000.26, 1003.0, 1005.5]], dtype=np.float32))  # the least rounds up, to 1000.5
def test_int4_errs_by_at_most_half_a_step_of_its_token(values: FloatMatrix) -> None:
    exact = values.astype(np.float64)
    spread = np.ptp(exact, axis=1, keepdims=True)
    rounding = np.abs(exact).max(axis=1, keepdims=True) * 2.0**-9 + 16 * 2.0**-24  # of least value and step, in fp16
    assert np.all(np.abs(encoded_with("int4", values) - exact) <= spread / 30 + rounding)


@pytest.mark.parametrize("name", ["pq2", "pq1"])
def test_a_product_code_finds_the_nearest_centroid_of_every_group(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_code, "_ROWS_AT_A_TIME", 16)
    values = normal_states(40)
    book = random_codebooks(24).of[name]
    rotated = values @ book.basis  # (L, M · W)
    groups = rotated.reshape(40, len(book.centroids), -1)  # (L, M, W)
    squares = np.square(groups[:, :, None] - book.centroids).sum(axis=3)  # (L, M, 256)
    nearest = book.centroids[np.arange(len(book.centroids)), squares.argmin(axis=2)]  # (L, M, W)
    expected = nearest.reshape(40, -1) @ book.basis.T
    np.testing.assert_allclose(encoded_with(name, values), expected, atol=1e-5)


@pytest.mark.parametrize("state_dim", [1, 7, 13])
@pytest.mark.parametrize(("name", "bits_a_dimension"), [("pq2", 2), ("pq1", 1)])
def test_a_product_code_takes_a_dimension_that_its_groups_do_not_divide(
    name: str, bits_a_dimension: int, state_dim: int
) -> None:
    codec = codec_of(name, state_dim)
    payload = codec.encode(normal_states(5, state_dim))
    assert codec.decode(payload).shape == (5, state_dim)
    assert len(payload) == FRAME_BYTES + 5 * -(-state_dim * bits_a_dimension // 8)


def test_pooling_keeps_the_first_token_and_the_means_of_the_others_neighbours() -> None:
    values = normal_states(6)
    pooled = encoded_with("fp32/pool3", values)
    expected = [values[0], values[1:4].mean(axis=0), values[4:6].mean(axis=0)]
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_pooling_the_largest_values_never_overflows() -> None:
    largest = np.full((3, 3), np.finfo(np.float32).max)
    np.testing.assert_array_equal(encoded_with("fp32/pool2", largest), largest[:2])


@EVERY_CODEC
def test_the_shape_of_a_state_is_read_without_a_codebook(codec: str) -> None:
    payload = codec_of(codec).encode(normal_states(7))
    assert state_shape(payload, version=VERSION) == (7, 24)


def test_states_of_one_codec_are_never_decoded_by_another() -> None:
    payload = codec_of("pq1/pool2").encode(normal_states(8))
    for other in set(codec_names()) - {"pq1/pool2"}:
        with pytest.raises(CorruptStateError, match="codec number 22"):
            codec_of(other).decode(payload)


def test_a_product_code_without_its_codebooks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'pq1'.*codebooks"):
        make_codec(codec_of("pq1").namespace)
