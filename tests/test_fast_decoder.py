"""The fast decode path gives the plain decoder's masks."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import filled_sam
from numpy.typing import NDArray

from zoo.backends import Backend, Prompts, create_backend


@pytest.fixture(scope="module", params=[("repvit", "rep_medsam"), ("efficientvit_sam_l0", "efficientvit_sam_l0")])
def backend(request: pytest.FixtureRequest) -> Backend:
    return create_backend("torch", filled_sam(*request.param))


def _masks(count: int) -> NDArray[np.float32]:
    """Another random half of the frame for each, in blocks of 16 px."""
    blocks = np.random.default_rng(count).choice([-10, 10], (count, 1, 16, 16)).astype(np.float32)
    return blocks.repeat(16, axis=2).repeat(16, axis=3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_equal_to_the_plain_decoder(backend: Backend, count: int, masked: bool) -> None:
    rng = np.random.default_rng(count)
    embedding = rng.standard_normal((1, 256, 64, 64), np.float32)
    corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1) * backend.spec.prompt_frame
    boxes = corners.reshape(count, 4)
    prompts = Prompts(boxes=boxes, masks=_masks(count) if masked else None)
    plain, plain_iou = backend.decode(embedding, prompts)
    fast, fast_iou = backend.decode_boxes(embedding, boxes, masks=prompts.masks)
    assert fast.shape == plain.shape == (count, 1, 256, 256)
    np.testing.assert_allclose(fast_iou, plain_iou, rtol=1e-4)
    for one, other in zip(fast, plain, strict=True):
        assert np.linalg.norm(one - other) / np.linalg.norm(other) <= 1e-5
