"""The fovea: what is seen around a box, that everything is counted once, and that masks stay what they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from box_backend import BoxBackend
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zoo.backends import Backend, Floats, Prompts, Windows
from zoo.data.case import Case, Click
from zoo.data.cases import find_cases
from zoo.fovea import CELL, CELLS, TOGETHER, batches_of, fovea_of, has_small_fovea
from zoo.registry import EMBEDDING_SIZE
from zoo.sam.case import segment_case
from zoo.sam.rule import PROTOCOLS, PUBLISHED_2D, PUBLISHED_3D, AnyProtocol, Protocol2D, Protocol3D
from zoo.windows import positions_in

ENDS = st.tuples(st.integers(0, EMBEDDING_SIZE), st.integers(0, EMBEDDING_SIZE)).map(sorted)
WINDOWS = st.lists(
    st.tuples(ENDS, ENDS).map(lambda ends: [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]), min_size=1, max_size=5
).map(np.array)


def test_the_positions_around_a_box_and_the_cells_elsewhere() -> None:
    """A window of 8x16 positions, an eighth more on each side, in whole cells: 16x24 positions of 4096, 232 cells."""
    fovea = fovea_of(np.array([[20, 24, 28, 40]]))
    seen = fovea.seen[0, fovea.counts[0, : fovea.seen.shape[1]] > 0]
    assert [seen[0], seen[15], seen[16], seen[-1]] == [20 * 64 + 16, 20 * 64 + 31, 21 * 64 + 16, 43 * 64 + 31]
    assert (fovea.counts == 1).sum() == 16 * 24
    assert (fovea.counts == CELL**2).sum() == CELLS - 4 * 6


@given(WINDOWS)
def test_every_position_is_counted_once(windows: NDArray[np.int64]) -> None:
    fovea = fovea_of(windows)
    fine = fovea.counts[:, : fovea.seen.shape[1]]
    for seen, one_each, cells in zip(fovea.seen, fine, fovea.counts[:, fovea.seen.shape[1] :], strict=True):
        counted = np.kron(cells.reshape(16, 16) / CELL**2, np.ones((CELL, CELL)))
        np.add.at(counted.reshape(-1), seen, one_each)
        assert (counted == 1).all()


@given(WINDOWS)
def test_what_is_wanted_is_what_windows_hold(windows: NDArray[np.int64]) -> None:
    fovea = fovea_of(windows)
    row, place = np.divmod(fovea.wanted, fovea.counts.shape[1])
    assert (fovea.counts[row, place] == 1).all()
    assert (row * EMBEDDING_SIZE**2 + fovea.seen[row, place]).tolist() == positions_in(windows).tolist()


@given(WINDOWS)
def test_boxes_are_decoded_together_with_their_like(windows: NDArray[np.int64]) -> None:
    batches = batches_of(windows)
    assert sorted(place for batch in batches for place in batch) == list(range(len(windows)))
    foveae = [int((fovea_of(windows[[place]]).counts == 1).sum()) for batch in batches for place in batch]
    assert foveae == sorted(foveae, reverse=True)
    for batch in batches:
        counts = fovea_of(windows[batch]).counts
        assert len(batch) == 1 or counts.size <= TOGETHER + len(batch) * 64


def test_small_boxes_come_in_few_batches_of_one_shape() -> None:
    corners = np.random.default_rng(0).integers(0, 60, (100, 2))
    windows = np.concatenate([corners, corners + 4], axis=1)
    batches = batches_of(windows)
    assert len(batches) <= 6
    shapes = {fovea_of(windows[batch]).seen.shape[1] for batch in batches}
    assert len(shapes) <= 3
    assert {shape % 64 for shape in shapes} == {0}


@dataclass
class Asked(BoxBackend):
    """Remembers by which way each batch of boxes was decoded."""

    ways: list[str] = field(default_factory=list)

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        self.ways.append("decode")
        return super().decode(embedding, prompts, multimask)

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        self.ways.append("decode_boxes")
        return super().decode(embedding, Prompts(boxes=boxes, masks=masks))

    def decode_foveated(
        self, embedding: Floats, boxes: Floats, windows: Windows, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        self.ways.append("decode_foveated")
        return super().decode(embedding, Prompts(boxes=boxes, masks=masks))


def ways_of(case: Case, protocol: AnyProtocol) -> set[str]:
    backend = Asked()
    segment_case(case, backend, protocol)
    return set(backend.ways)


PICTURE = Case("p", "US", np.zeros((64, 64, 3), np.uint8), np.array([[9, 9, 40, 40]]), np.ones(1, np.uint16), (1, 1))
VOLUME = Case(
    "v", "CT", np.zeros((4, 64, 64), np.uint8), np.array([[9, 9, 0, 40, 40, 3]]), np.ones(1, np.uint16), (1, 1, 1)
)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_boxes_have_a_fovea_where_masks_end_at_them(name: str) -> None:
    assert ways_of(VOLUME, Protocol3D(name)) == {"decode_foveated"}
    whole = "decode_boxes" if name == "batched" else "decode"
    assert ways_of(VOLUME, Protocol3D(name, fovea=False)) == {whole}
    assert ways_of(VOLUME, Protocol3D(name, within_box=False)) == {whole}
    assert ways_of(VOLUME, Protocol3D(name, **PUBLISHED_3D)) == {whole}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_large_boxes_are_decoded_with_all_there_is_to_see(name: str) -> None:
    """Of 64 positions of a pixel each, a box of 52 and its eighth needs all; one of 44 needs 56x56 = 3136, of 40 52."""
    for side, small in ((52, False), (44, False), (40, True)):
        assert has_small_fovea(np.array([[6, 6, 6 + side, 6 + side]])).all() == small
    volume = replace(VOLUME, boxes=np.array([[2, 2, 0, 60, 60, 3], [9, 9, 0, 40, 40, 3]]))
    volume = replace(volume, object_labels=np.array([1, 2], np.uint16))
    whole = "decode_boxes" if name == "batched" else "decode"
    assert ways_of(volume, Protocol3D(name)) == {whole, "decode_foveated"}


def test_images_have_a_fovea_but_beside_clicks() -> None:
    assert ways_of(PICTURE, Protocol2D()) == {"decode_foveated"}
    assert ways_of(PICTURE, Protocol2D(fovea=False)) == {"decode_boxes"}
    assert ways_of(PICTURE, Protocol2D(**PUBLISHED_2D)) == {"decode_boxes"}
    clicked = replace(PICTURE, clicks=(Click(0, (20, 20), True),))
    assert ways_of(clicked, Protocol2D()) == {"decode"}


def test_records_tell_of_a_fovea_where_there_is_one() -> None:
    spec = BoxBackend().spec
    for kind in (Protocol2D, Protocol3D):
        assert kind().recorded(spec)["fovea"] is True
        assert "fovea" not in kind(fovea=False).recorded(spec)
        assert "fovea" not in kind(within_box=False).recorded(spec)


def test_masks_stay_what_they_are(light_backend: Backend) -> None:
    """Of the built-in volume, with a fovea as without: they differ by some pixels of a hundred."""
    (source,) = find_cases("phantom:ct3d")
    case = source.load()
    whole, foveated = (segment_case(case, light_backend, Protocol3D(fovea=fovea)) for fovea in (False, True))
    for value in case.object_labels:
        one, other = whole == value, foveated == value
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.97
    assert (whole != foveated).any(), "no equal path"
