"""The slices of a volume, each asked for its objects, along the walks of `zoo.sam.rule` or all by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Backend, Floats, encode_finite
from zoo.data.case import Case
from zoo.sam.box_prior import add_box_prior
from zoo.sam.decode import decode_objects, decode_one
from zoo.sam.rule import START_GAIN, Clicks, Protocol3D, Walk, clicks_for, mask_prompt, prompt_for, starts_of
from zoo.stages import StageClock
from zoo.transforms import LOW_RES_PX, Fit, fit_image, preprocess_image, restore_logits
from zoo.windows import pixels_in, window_of

OnSlice = Callable[[], None]
Mask = NDArray[np.bool_]
#: A slice's number, and the rows and columns of a box in it.
Where = tuple[int, slice, slice]
#: Takes an object's number, its logits (h, w) and where they lie; returns their mask (h, w).
Enter = Callable[[int, Floats, Where], Mask]


class Segmenter:
    """State of one volume's segmentation, slice by slice.

    Args:
        case: the volume, or what is seen of it.
        backend: the model in a runtime.
        protocol: how to walk and to prompt.
        clock: where to add up the time of each stage.
        on_slice: called after each slice of each object.
        kept_embeddings: held at most.
        enter: what takes each object's logits in its box, or in all of a slice, with the box's prior added.
    """

    def __init__(
        self,
        case: Case,
        *,
        backend: Backend,
        protocol: Protocol3D,
        clock: StageClock,
        on_slice: OnSlice,
        kept_embeddings: int,
        enter: Enter,
    ) -> None:
        self.case, self.backend, self.protocol = case, backend, protocol
        self.clock, self.on_slice, self.enter = clock, on_slice, enter
        height, width = case.image.shape[1:]
        self.fit: Fit = fit_image((height, width), backend.spec.prompt_frame, backend.spec.fit)
        self._spec = protocol.applied_to(backend.spec)
        self._kept: dict[int, Floats] = {}
        self._most_kept = kept_embeddings
        self._mask_fit: Fit | None = None
        if protocol.prompts_with_masks(backend.spec):
            self._mask_fit = fit_image((height, width), LOW_RES_PX, backend.spec.fit)
        self._boxes = case.boxes[:, [0, 1, 3, 4]]
        self._windows = [window_of(box, self.fit) for box in self._boxes if protocol.within_box]

    def walk(self, walks: list[Walk]) -> None:
        """Along all walks, as the protocol's name says."""
        if self.protocol.decodes_together:
            self._sweep(walks)
        else:
            self._walk_one_by_one(walks)

    def ask_again(self, slices: Mapping[int, Iterable[int]], known: Callable[[int, int], Mask]) -> None:
        """Each object in its `slices`, each by the mask in its box that is `known` there, if that is not empty.

        Args:
            slices: of each object, by its number.
            known: takes an object's number and the slice; returns (h, w).
        """
        for z, numbers in _by_slice(slices, descending=False):
            with self.clock.measure("postprocess"):
                masks = {number: self._whole(number, known(number, z)) for number in numbers}
            asked = [number for number, mask in masks.items() if mask.any()]
            for _ in range(len(numbers) - len(asked)):
                self.on_slice()
            if asked:
                embedding = self._embed(z, again=False)
                for number, low_res, _ in self._decode_together(z, embedding, asked, masks):
                    self._paint(z, number, low_res)

    def _whole(self, number: int, within: Mask) -> Mask:
        """A slice's mask (H, W) of an object's mask in its box."""
        mask = np.zeros(self.case.image.shape[1:], bool)
        mask[pixels_in(self._boxes[number])] = within
        return mask

    def _walk_one_by_one(self, walks: list[Walk]) -> None:
        """Object after object, each decoded by itself; what a later slice or object will ask for is kept."""
        last_user = {z: walk.number for walk in walks for z in _slices(walk)}
        for walk in walks:
            masks: dict[int, Mask] = {}
            looks = starts_of(walk, self.protocol)
            found = {z: self._decode_alone(z, walk.number, None, again=True) for z in looks}
            start = _best(walk.start, {z: iou for z, (_, iou) in found.items()})
            masks[start] = self._paint(start, walk.number, found[start][0])
            for z, before in _steps(walk.begun_at(start)):
                low_res, _ = self._decode_alone(z, walk.number, masks[before], again=last_user[z] > walk.number)
                masks[z] = self._paint(z, walk.number, low_res)
            if last_user[start] == walk.number:
                self._kept.pop(start, None)

    def _decode_alone(self, z: int, number: int, previous: Mask | None, *, again: bool) -> tuple[Floats, float]:
        """Logits and predicted IoU of an object in a slice; `again` if that slice will be asked for once more."""
        embedding = self._embed(z, again=again)
        clicks = clicks_for(self.case, number, self.fit, z)
        mask = self._mask_prompt(previous, clicks)
        prompt = self._prompt(number, previous, mask)
        self.clock.counts["decoded_prompts"] += 1
        window = self._windows[number] if self.protocol.has_fovea else None
        with self.clock.measure("decode"):
            return decode_one(self.backend, embedding, prompt, clicks, mask, window)

    def _sweep(self, walks: list[Walk]) -> None:
        """Where objects begin first, then through the volume twice, with all objects of a slice decoded together.

        Every object's walk upwards fits into one ascending sweep, every walk downwards into one descending sweep, so
        a slice is encoded once where there is room to keep it, never where no walk reaches, and only the masks of the
        slice before are in memory, and those that walks begin with.
        """
        walks, begun = self._begin(walks)
        upwards = {walk.number: list(walk.up) for walk in walks}
        downwards = {walk.number: list(walk.down) for walk in walks}
        below = {z for slices in downwards.values() for z in slices}
        above = {z for slices in upwards.values() for z in slices}
        # Slices that were looked at to begin there, and that no walk comes back to.
        for z in self._kept.keys() - above - below:
            del self._kept[z]
        for slices, step in ((upwards, 1), (downwards, -1)):
            masks: dict[int, Mask] = {}
            for z, numbers in _by_slice(slices, descending=step < 0):
                before = {n: begun[n] if walks[n].start == z - step else masks[n] for n in numbers}
                embedding = self._embed(z, again=step > 0 and z in below)
                masks = {
                    number: self._paint(z, number, low_res)
                    for number, low_res, _ in self._decode_together(z, embedding, numbers, before)
                }

    def _begin(self, walks: list[Walk]) -> tuple[list[Walk], dict[int, Mask]]:
        """Walks from the slices that they are best begun at, and the masks there."""
        looks = {walk.number: starts_of(walk, self.protocol) for walk in walks}
        ious: dict[int, dict[int, float]] = {walk.number: {} for walk in walks}
        best: dict[int, Floats] = {}
        later = {z for walk in walks if len(walk) > 1 for z in _slices(walk)}
        for z, numbers in _by_slice(looks, descending=False):
            embedding = self._embed(z, again=z in later)
            for number, low_res, iou in self._decode_together(z, embedding, numbers, {}):
                ious[number][z] = iou
                if _best(walks[number].start, ious[number]) == z:
                    best[number] = low_res.copy()  # a view would hold what was decoded with it
        begun = [walk.begun_at(_best(walk.start, ious[walk.number])) for walk in walks]
        return begun, {walk.number: self._paint(walk.start, walk.number, best[walk.number]) for walk in begun}

    def _decode_together(
        self, z: int, embedding: Floats, numbers: list[int], before: dict[int, Mask]
    ) -> Iterator[tuple[int, Floats, float]]:
        """Logits and predicted IoU of the objects `numbers` in slice `z`, prompted by their masks `before`."""
        clicks = [clicks_for(self.case, number, self.fit, z) for number in numbers]
        windows = np.stack([self._windows[number] for number in numbers]) if self._windows else None
        beside = [self._mask_prompt(before.get(number), own) for number, own in zip(numbers, clicks, strict=True)]
        prompts = np.stack([self._prompt(n, before.get(n), mask) for n, mask in zip(numbers, beside, strict=True)])
        self.clock.counts["decoded_prompts"] += len(numbers)
        for place, low_res, iou in decode_objects(
            self.backend, embedding, prompts, clicks, windows, self.clock, beside, fovea=self.protocol.has_fovea
        ):
            yield numbers[place], low_res, iou

    def _prompt(self, number: int, previous: Mask | None, mask: Floats | None) -> Floats:
        """The box that prompts, beside the neighbour's mask if that does, too."""
        with self.clock.measure("postprocess"):
            return prompt_for(self.case, number, previous, self.fit, self.protocol, beside_mask=mask is not None)

    def _mask_prompt(self, previous: Mask | None, clicks: Clicks | None) -> Floats | None:
        """The neighbour's mask as a prompt, where it is one: what a person clicks at, was not trained beside it."""
        if self._mask_fit is None or clicks is not None:
            return None
        with self.clock.measure("postprocess"):
            return mask_prompt(previous, self._mask_fit)

    def _embed(self, z: int, *, again: bool) -> Floats:
        """Embedding (1, 256, 64, 64) of a slice, which is kept, if there is room, for when it is asked for `again`."""
        embedding = self._kept.pop(z, None)
        if embedding is None:
            with self.clock.measure("preprocess"):
                inputs = preprocess_image(self.case.image[z], self._spec)
            with self.clock.measure("encode"):
                embedding = encode_finite(self.backend, inputs)
            self.clock.counts["encoded_slices"] += 1
        if again and len(self._kept) < self._most_kept:
            self._kept[z] = embedding
        return embedding

    def _paint(self, z: int, number: int, low_res: Floats) -> Mask:
        """Enters the logits of an object's slice; returns their mask (H, W)."""
        with self.clock.measure("postprocess"):
            logits = restore_logits(low_res, self.fit)
            add_box_prior(logits, self.case.boxes[number], self.protocol.box_prior, z)
            inside = pixels_in(self._boxes[number]) if self.protocol.within_box else np.s_[:, :]
            mask = np.zeros(logits.shape, bool)
            mask[inside] = self.enter(number, logits[inside], (z, *inside))
        self.on_slice()
        return mask


def _best(start: int, ious: Mapping[int, float]) -> int:
    """Of slices with their predicted IoU the one to begin at: `start`, unless another is better by `START_GAIN`."""
    return max(sorted(ious), key=lambda z: ious[z] + START_GAIN * (z == start))


def _slices(walk: Walk) -> Iterable[int]:
    return (walk.start, *walk.up, *walk.down)


def _steps(walk: Walk) -> Iterable[tuple[int, int]]:
    """Each slice but the start with the one whose mask prompts it: upwards, then downwards."""
    yield from ((z, z - 1) for z in walk.up)
    yield from ((z, z + 1) for z in walk.down)


def _by_slice(slices: Mapping[int, Iterable[int]], *, descending: bool) -> Iterable[tuple[int, list[int]]]:
    """Each slice that a walk reaches, with the numbers of the objects there."""
    reached: dict[int, list[int]] = {}
    for number, own in slices.items():
        for z in own:
            reached.setdefault(z, []).append(number)
    return ((z, reached[z]) for z in sorted(reached, reverse=descending))
