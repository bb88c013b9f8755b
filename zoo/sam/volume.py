"""3D: a volume and one box an object to a label map, by the rule of `zoo.sam.rule` and its protocols."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend
from zoo.data.case import Case
from zoo.sam.multiplanar import ACROSS, PlaneVotes, Votes, planes_across, view_along
from zoo.sam.overlap import Owners
from zoo.sam.rule import Protocol3D, walks_of
from zoo.sam.segmenter import Enter, OnSlice, Segmenter
from zoo.stages import StageClock
from zoo.tiles import tile_of
from zoo.windows import pixels_in

#: Embeddings, 4 MiB each, that are kept for a second sweep unless told otherwise.
KEPT_EMBEDDINGS = 128


def segment_volume(
    case: Case,
    backend: Backend,
    protocol: Protocol3D | None = None,
    clock: StageClock | None = None,
    on_slice: OnSlice = lambda: None,
    *,
    kept_embeddings: int | None = None,
) -> NDArray[np.uint16]:
    """Label map of a 3D case.

    Args:
        case: a volume with at least one box; a click is heard in its slice, and the walk goes on from the mask there.
        backend: the model in a runtime.
        protocol: how to walk; None is `batched` with the default options.
        clock: where to add up the time of each stage.
        on_slice: called after each slice or plane of each object; see `count_slices` for how many there will be.
        kept_embeddings: held at most, 4 MiB each; slices beyond are encoded again. None is `KEPT_EMBEDDINGS`, but no
            limit for `cached`, which encodes every slice once then. `per_object` holds none.

    Returns:
        uint16 (D, H, W): each object's label value; where objects overlap, as the protocol says.

    Raises:
        InputError: as `walks_of`, or weights that give NaN.
    """
    protocol, clock = protocol or Protocol3D(), clock or StageClock()
    walks = walks_of(case, protocol)
    # They are whole numbers, if perhaps in a float array.
    case = replace(case, boxes=case.boxes.astype(np.int64))
    most_kept = len(case.image) if protocol.name == "cached" else KEPT_EMBEDDINGS
    kept = 0 if protocol.name == "per_object" else most_kept if kept_embeddings is None else kept_embeddings
    run = _Run(backend, protocol, clock, on_slice, kept)
    part, tile = run.zoomed(case)
    if protocol.is_multiplanar:
        votes = Votes(_with_ends(part, protocol).boxes)
        run.segmenter(part, votes.enter).walk(walks)
        held = _with_ends(case, protocol)
        for axis in ACROSS:
            run.ask_across(held, axis, votes)
        owners = Owners(part.image.shape, part.boxes, protocol.overlap)
        with clock.measure("postprocess"):
            votes.count(owners)
    else:
        owners = Owners(part.image.shape, part.boxes, protocol.overlap)
        run.segmenter(part, owners.enter).walk(walks)
    with clock.measure("postprocess"):
        labels = owners.labels(case.object_labels)
        if tile is None:
            return labels
        whole = np.zeros(case.image.shape, np.uint16)
        whole[:, *pixels_in(tile)] = labels
        return whole


def count_slices(case: Case, protocol: Protocol3D | None = None) -> int:
    """How many slices all walks of a case visit together, and planes across them where those are asked, too."""
    protocol = protocol or Protocol3D()
    slices = sum(len(walk) for walk in walks_of(case, protocol))
    if not protocol.is_multiplanar:
        return slices
    held = _with_ends(case, protocol)
    return slices + sum(len(planes) for axis in ACROSS for planes in planes_across(held, axis))


def _with_ends(case: Case, protocol: Protocol3D) -> Case:
    """The case with boxes that hold both ends, in z, too."""
    past = np.array([0, 0, 0, 0, 0, protocol.z_range == "exclusive"])
    return replace(case, boxes=case.boxes.astype(np.int64) - past)


@dataclass(frozen=True)
class _Run:
    """What is the same for all views of a volume, see `segment_volume`."""

    backend: Backend
    protocol: Protocol3D
    clock: StageClock
    on_slice: OnSlice
    kept_embeddings: int

    def segmenter(self, seen: Case, enter: Enter) -> Segmenter:
        """What asks for the objects of `seen`, and tells `enter` the answers."""
        return Segmenter(
            seen,
            backend=self.backend,
            protocol=self.protocol,
            clock=self.clock,
            on_slice=self.on_slice,
            kept_embeddings=self.kept_embeddings,
            enter=enter,
        )

    def zoomed(self, case: Case) -> tuple[Case, NDArray[np.int64] | None]:
        """What the encoder is shown of a volume, and the tile (4,) that this is; None where that is all of it."""
        tile = _tile_of(case, self.backend.spec.image_size) if self.protocol.zoom else None
        return (case if tile is None else _part_of(case, tile)), tile

    def ask_across(self, case: Case, axis: int, votes: Votes) -> None:
        """Adds what the planes along an axis say, each asked by the mask that is known there so far."""
        planes = planes_across(case, axis)
        asked = {plane for own in planes for plane in own}
        if not asked:
            return
        with self.clock.measure("preprocess"):
            view = view_along(case, axis, asked)
        across = PlaneVotes(votes, axis, view, [own.step for own in planes])
        first = min(asked)
        shown = {number: range(own.start - first, own.stop - first, own.step) for number, own in enumerate(planes)}
        # A mask of the very plane tells where its object ends: its box need not leave room for more.
        told = replace(self, protocol=replace(self.protocol, own_box_share=0.0))
        told.segmenter(self.zoomed(view)[0], across.enter).ask_again(shown, across.known)


def _tile_of(case: Case, resolution_px: int) -> NDArray[np.int64] | None:
    """The tile (4,) xyxy of the slices in which all objects are small together; None where that is all of them."""
    if not len(case.boxes):
        return None
    height, width = case.image.shape[1:]
    together = np.concatenate([case.boxes[:, :2].min(0), case.boxes[:, 3:5].max(0)])
    tile = np.array(tile_of(together, (height, width), resolution_px))
    return None if (tile == (0, 0, width - 1, height - 1)).all() else tile


def _part_of(case: Case, tile: NDArray[np.int64]) -> Case:
    """What a tile shows of a volume's image, boxes and clicks, in its own pixels."""
    corner = np.array([*tile[:2], 0])
    return replace(
        case,
        image=case.image[:, *pixels_in(tile)],
        boxes=case.boxes - np.tile(corner, 2),
        clicks=tuple(replace(click, voxel=tuple((click.voxel - corner).tolist())) for click in case.clicks),
        labels=None,
        affine=None,
    )
