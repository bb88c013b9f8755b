"""How embeddings lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo.layout import by_position, channels_first, channels_last


@pytest.fixture
def embedding() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1, 256, 64, 64), np.float32)


def test_turned_round_and_back_it_is_the_same(embedding: NDArray[np.float32]) -> None:
    turned = channels_last(embedding)
    np.testing.assert_array_equal(turned, embedding)
    assert turned.strides == (4 * 64 * 64 * 256, 4, 4 * 64 * 256, 4 * 256)
    back = channels_first(turned)
    np.testing.assert_array_equal(back, embedding)
    assert back.flags.c_contiguous
    assert channels_first(embedding) is embedding


@pytest.mark.parametrize("turn", [channels_last, channels_first])
def test_rows_are_positions_line_by_line(embedding: NDArray[np.float32], turn: Any) -> None:
    rows = by_position(turn(embedding))
    assert rows.shape == (1, 4096, 256)
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows[0, 64 * 7 + 3], embedding[0, :, 7, 3])


def test_rows_of_channels_last_are_no_copy(embedding: NDArray[np.float32]) -> None:
    turned = channels_last(embedding)
    assert np.shares_memory(by_position(turned), turned)
    assert not np.shares_memory(turned, embedding), "a runtime may write that again"
