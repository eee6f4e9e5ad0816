"""Copies of states on a device; here on the CPU, which is a device to torch like any other."""

import gc

import numpy as np
import pytest
import torch

from ubert_model.states import FloatMatrix
from ubert_service.scoring.assembly import BatchSide
from ubert_service.scoring.device_states import DeviceStates

DIM = 4
ROW_BYTES = 4 * DIM


def device_states(rows: int) -> DeviceStates:
    return DeviceStates(dim=DIM, device=torch.device("cpu"), max_bytes=rows * ROW_BYTES)


def array_of(rows: int, value: float) -> FloatMatrix:
    return np.full((rows, DIM), value, dtype=np.float32)


def side_of(*entities: list[FloatMatrix]) -> BatchSide:
    return BatchSide(
        reviews=entities, review_residuals=[np.zeros(len(reviews), dtype=np.float32) for reviews in entities]
    )


def assert_gathers(states: DeviceStates, *entities: list[FloatMatrix]) -> None:
    side = side_of(*entities)
    gathered = states.gather(side).numpy()
    np.testing.assert_array_equal(gathered[side.mask], side.states[side.mask])
    assert np.isfinite(gathered).all()


def test_gathered_states_equal_those_of_the_arrays() -> None:
    draw = np.random.default_rng(0)
    states = device_states(rows=40)
    reviews = [draw.normal(size=(rows, DIM)).astype(np.float32) for rows in (3, 1, 5, 2, 4)]
    for _ in range(30):
        entities = [[reviews[index] for index in draw.integers(0, 5, size=draw.integers(1, 4))] for _ in range(3)]
        assert_gathers(states, *entities)
        changed = int(draw.integers(5))  # a new version of a review, often at the old one's address
        reviews[changed] = draw.normal(size=reviews[changed].shape).astype(np.float32)


def test_an_array_is_copied_once() -> None:
    states, first, second = device_states(rows=100), array_of(3, 1.0), array_of(2, 2.0)
    assert_gathers(states, [first, second], [first])
    assert states.held_rows == 5
    assert_gathers(states, [second], [first, first])
    assert states.held_rows == 5


def test_a_copy_is_dropped_with_its_array() -> None:
    states, kept = device_states(rows=100), array_of(3, 1.0)
    assert_gathers(states, [kept, array_of(7, 2.0)])
    gc.collect()
    assert states.held_rows == 3
    assert_gathers(states, [kept])


def test_the_least_recently_used_copies_are_evicted_first() -> None:
    states = device_states(rows=10)
    oldest, older, newest = array_of(4, 1.0), array_of(4, 2.0), array_of(4, 3.0)
    assert_gathers(states, [oldest])
    assert_gathers(states, [older])
    assert_gathers(states, [oldest])
    assert_gathers(states, [newest])
    assert states.held_rows == 8
    assert_gathers(states, [oldest, newest])
    assert_gathers(states, [older, newest])
    assert states.held_rows == 8


def test_a_batch_larger_than_the_bound_is_gathered_without_copies() -> None:
    states, kept = device_states(rows=10), array_of(6, 1.0)
    assert_gathers(states, [kept])
    assert_gathers(states, [kept, array_of(6, 2.0)], [array_of(1, 3.0)])
    assert states.held_rows == 6


def test_a_copy_that_the_device_has_no_memory_for_takes_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    states, held, fresh = device_states(rows=10), array_of(4, 1.0), array_of(6, 2.0)
    assert_gathers(states, [held])

    def without_memory(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "index_copy_", without_memory)
        for _ in range(3):
            with pytest.raises(torch.OutOfMemoryError):
                states.gather(side_of([held, fresh]))
            assert states.held_rows == 4
    assert_gathers(states, [held, fresh])
    assert states.held_rows == 10


def test_a_device_without_memory_to_grow_evicts_in_what_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = device_states(rows=100_000)
    arrays = [array_of(1_000, float(number)) for number in range(40)]

    def without_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "new_zeros", without_memory)
    for array in arrays:
        assert_gathers(states, [array])
    assert states.held_rows == 16_000
    assert_gathers(states, arrays[38:], arrays[:2])
    assert_gathers(states, [array_of(20_000, 5.0)])
    assert states.held_rows == 16_000, "what can never fit is not copied"
    assert [record.getMessage() for record in caplog.records] == [
        "states of 34768 rows do not fit on the device, 16384 stay: CUDA out of memory"
    ]


def test_the_tensor_of_copies_grows_as_needed() -> None:
    states = device_states(rows=100_000)
    arrays = [array_of(1_000, float(number)) for number in range(60)]
    for array in arrays:
        assert_gathers(states, [array])
    assert states.held_rows == 60_000
    assert_gathers(states, arrays[:2], arrays[58:])
