"""The fast decode path gives the plain decoder's masks."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import filled_sam

from zoo.backends import Backend, Prompts, create_backend


@pytest.fixture(scope="module", params=[("repvit", "rep_medsam"), ("efficientvit_sam_l0", "efficientvit_sam_l0")])
def backend(request: pytest.FixtureRequest) -> Backend:
    return create_backend("torch", filled_sam(*request.param))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_equal_to_the_plain_decoder(backend: Backend, count: int) -> None:
    rng = np.random.default_rng(count)
    embedding = rng.standard_normal((1, 256, 64, 64), np.float32)
    corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1) * backend.spec.prompt_frame
    boxes = corners.reshape(count, 4)
    plain, plain_iou = backend.decode(embedding, Prompts(boxes=boxes))
    fast, fast_iou = backend.decode_boxes(embedding, boxes)
    assert fast.shape == plain.shape == (count, 1, 256, 256)
    np.testing.assert_allclose(fast_iou, plain_iou, rtol=1e-4)
    for one, other in zip(fast, plain, strict=True):
        assert np.linalg.norm(one - other) / np.linalg.norm(other) <= 1e-5
