"""How embeddings (B, 256, 64, 64) lie in memory: channels last, as decoders ask for them, which graphs put out first.

A decoder compares positions, each a row of 256 channels. To turn an embedding round takes OpenVINO 1.5 ms (two Zen 5
cores) for each group of boxes, a third of what a small box asks for; done once, as soon as it is there, 0.3 ms.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE

Embedding = NDArray[np.float32]


def channels_last(embedding: Embedding) -> Embedding:
    """A copy of an embedding (1, 256, 64, 64) of the same shape, whose channels come last in memory."""
    rows = _turned(embedding.reshape(EMBEDDING_CHANNELS, -1))
    return rows.reshape(1, EMBEDDING_SIZE, EMBEDDING_SIZE, EMBEDDING_CHANNELS).transpose(0, 3, 1, 2)


def channels_first(embedding: Embedding) -> Embedding:
    """An embedding (1, 256, 64, 64) whose channels come first in memory: itself, if they do."""
    if embedding.flags.c_contiguous:
        return embedding
    return _turned(by_position(embedding)[0]).reshape(embedding.shape)


def by_position(embedding: Embedding) -> Embedding:
    """An embedding (1, 256, 64, 64) as rows of its positions (1, 4096, 256), in one piece: a view of channels last."""
    rows = np.ascontiguousarray(embedding.transpose(0, 2, 3, 1))
    return rows.reshape(1, EMBEDDING_SIZE**2, EMBEDDING_CHANNELS)


def _turned(matrix: Embedding) -> Embedding:
    """The transpose of a matrix, in memory, too; numpy takes eight times as long."""
    return np.asarray(cv2.transpose(matrix), np.float32)
