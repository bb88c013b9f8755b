"""How embeddings lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo.backends import Backend, create_backend
from zoo.layout import by_position, channels_first, channels_last
from zoo.registry import create_sam
from zoo.sam.model import Sam

WINDOWS = np.array([[5, 9, 25, 30]])
BOXES = np.array([[30.0, 40.0, 95.0, 115.0]], np.float32)


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


@pytest.fixture(scope="module")
def sam() -> Sam:
    return create_sam("light_repvit", "random:0").eval()


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest, sam: Sam) -> Backend:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return create_backend(request.param, sam)


def test_a_graph_s_embedding_has_channels_last(backend: Backend) -> None:
    images = np.random.default_rng(0).random((2, 3, backend.spec.image_size, backend.spec.image_size), np.float32)
    for embedding in (backend.encode(images[:1]), backend.encode(images)[1:]):
        assert np.shares_memory(by_position(embedding), embedding)


def test_decoders_do_not_care(backend: Backend, embedding: NDArray[np.float32]) -> None:
    """Embeddings of other runtimes, or read from a file, have channels first."""
    masks = np.full((1, 1, 256, 256), -10, np.float32)
    for windows, beside in ((None, None), (WINDOWS, None), (WINDOWS, masks)):
        first, last = (
            backend.decode_boxes(turn(embedding), BOXES, windows, beside) for turn in (channels_first, channels_last)
        )
        np.testing.assert_array_equal(first[0], last[0])
    first, last = (backend.decode_foveated(turn(embedding), BOXES, WINDOWS) for turn in (channels_first, channels_last))
    np.testing.assert_array_equal(first[0], last[0])
