"""Training data: labelled images by index, and the prompts that are put on them.

Everything is a pure function of an index and a seed, so that a run that was cut off goes on with the very samples it
would have drawn.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.intensity import is_unit, unit_to_uint8
from zoo.data.npz import labelled_slices, load_challenge_npz
from zoo.data.scan import whole_labels
from zoo.data.synthetic import sample
from zoo.errors import InputError
from zoo.files import files_below
from zoo.notes import note
from zoo.registry import EncoderSpec
from zoo.transforms import LOW_RES_PX, fit_image, preprocess_image, scale_boxes

#: An object with fewer pixels, at the resolution of the loss, is not asked for.
MIN_AREA_PX = 10
#: Images without such an object are passed over; of so many in a row it is told, and endless ones are given up.
MANY_EMPTY = 100
#: Parts of an object's extent that the sides of a box from a neighbouring slice may be off by.
WALK_OUTWARD, WALK_INWARD = 1.0, 0.1
#: Augmentation multiplies each channel of a coloured image by a number between these.
TINTS = (0.85, 1.15)


@dataclass(frozen=True)
class LabelledImage:
    """An image with labelled objects.

    Attributes:
        image: uint8 (H, W, 3).
        labels: uint16 (H, W), 0 for background.
        name: where it came from, for messages.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    name: str


class ImageSource(Protocol):
    """Labelled images by index, without end: finite ones begin anew, in another order."""

    def image(self, index: int) -> LabelledImage:
        """The image of this index, >= 0: always the same."""
        ...


@dataclass(frozen=True)
class SyntheticImages:
    """The generator's samples, one a seed.

    Attributes:
        size: side in pixels.
        first_seed: of index 0.
    """

    size: int
    first_seed: int = 0

    def image(self, index: int) -> LabelledImage:
        """Sample `first_seed + index`, without its padding."""
        seed = self.first_seed + index
        drawn = sample(seed, self.size)
        height, width = drawn.content_shape
        return LabelledImage(drawn.image[:height, :width], drawn.labels[:height, :width], f"seed {seed}")


@dataclass(frozen=True)
class FileImages:
    """Images of files, each epoch in an order of its own.

    Attributes:
        items: (path, slice or None) of images.
        seed: of the orders.
    """

    items: Sequence[tuple[Path, int | None]]
    seed: int = 0

    def image(self, index: int) -> LabelledImage:
        """The image that epoch `index // N` has at its place `index % N`."""
        epoch, place = divmod(index, len(self.items))
        path, z = self.items[int(epoch_order(self.seed, epoch, len(self.items))[place])]
        return _read_npy_pair(path) if path.suffix == ".npy" else _read_npz(path, z)


@lru_cache(maxsize=64)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """In which order an epoch has `count` things."""
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class Mixture:
    """Several sources, in turns."""

    sources: Sequence[ImageSource]

    def image(self, index: int) -> LabelledImage:
        """The image that source `index % N` has at `index // N`."""
        return self.sources[index % len(self.sources)].image(index // len(self.sources))


def open_source(specs: Sequence[str], size: int, seed: int = 0) -> ImageSource:
    """The images that `specs` name, in turns.

    Args:
        specs: `synthetic`, a folder with `imgs/` and `gts/` of npy files, or a file or folder of challenge npz.
        size: side in pixels of synthetic images.
        seed: of the order of files, and of the synthetic images' first seed.

    Raises:
        InputError: nothing is found, or a file cannot be used.
    """
    sources = [SyntheticImages(size, seed << 32) if spec == "synthetic" else _open_files(spec, seed) for spec in specs]
    return sources[0] if len(sources) == 1 else Mixture(sources)


def images_of(source: ImageSource) -> float:
    """How many images a source gives until it has given each of them; infinite where it draws them."""
    if isinstance(source, Mixture):
        return len(source.sources) * max(map(images_of, source.sources))
    return len(source.items) if isinstance(source, FileImages) else math.inf


def _parts_of(source: ImageSource) -> Sequence[ImageSource]:
    """The sources of a mixture, or the one."""
    return source.sources if isinstance(source, Mixture) else [source]


def indices_once(source: ImageSource, most: int) -> list[int]:
    """Indices of at most so many images of a source, none of which is another's again."""
    parts = _parts_of(source)
    counts = [images_of(part) for part in parts]
    indices = (i for i in itertools.count() if i // len(parts) < counts[i % len(parts)])
    return list(itertools.islice(indices, int(min(most, sum(counts)))))


def _open_files(spec: str, seed: int) -> FileImages:
    root = Path(spec)
    items: list[tuple[Path, int | None]]
    if (root / "imgs").is_dir():
        items = [(path, None) for path in sorted((root / "imgs").glob("*.npy"))]
        check_complete(root / "gts", [path.name for path, _ in items], "labels")
    else:
        items = [item for path in _npz_files(root) for item in _npz_items(path)]
    if not items:
        expected = "synthetic, npy files in imgs/ and gts/, as `prepare --to npy` writes them, or challenge npz files"
        raise InputError(root, "no training images", expected)
    return FileImages(items, seed)


def check_complete(folder: Path, names: Sequence[str], of_images: str) -> None:
    """Refuses a folder that lacks the files of some images.

    Args:
        folder: beside `imgs/`.
        names: of all images.
        of_images: what the files are.

    Raises:
        InputError: one is missing.
    """
    if missing := [name for name in names if not (folder / name).exists()]:
        found = f"no {of_images} of {len(missing)} of {len(names)} images ({missing[0]} first)"
        raise InputError(folder, found, "one for each image")


def names_digest(source: ImageSource) -> str | None:
    """Tells files from others by their paths, slices and order, not by what is in them; None where there are none."""
    parts = _parts_of(source)
    names = [[[str(path), z] for path, z in one.items] if isinstance(one, FileImages) else None for one in parts]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest() if any(names) else None


def _npz_files(root: Path) -> list[Path]:
    return [path for path in files_below(root) if path.suffix.lower() == ".npz" and not path.name.startswith(".")]


def _npz_items(path: Path) -> list[tuple[Path, int | None]]:
    """The slices of a case that have labels, or the image itself."""
    slices = labelled_slices(path)
    return [(path, None)] if slices is None else [(path, z) for z in slices]


def _read_npz(path: Path, z: int | None) -> LabelledImage:
    case = load_challenge_npz(path)
    assert case.labels is not None
    if z is None:
        return LabelledImage(case.image, case.labels, str(path))
    return LabelledImage(np.repeat(case.image[z][..., None], 3, axis=2), case.labels[z], f"{path} slice {z}")


def _read_npy_pair(path: Path) -> LabelledImage:
    """An image of the `imgs/ gts/` layout: uint8, or floats in [0, 1], (H, W) or (H, W, 3)."""
    image, labels = (read_npy(file) for file in (path, _labels_of(path)))
    if image.dtype.kind == "f":
        if not is_unit(image):
            raise InputError(path, f"floats from {image.min()} to {image.max()}", "floats in [0, 1], or uint8")
        image = unit_to_uint8(image)
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)):
        raise InputError(path, f"{image.dtype} {image.shape}", "uint8 or float (H, W) or (H, W, 3)")
    if labels.shape != image.shape[:2] or labels.dtype.kind not in "biu":
        raise InputError(path, f"labels {labels.dtype} {labels.shape}", f"integers {image.shape[:2]}")
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return LabelledImage(rgb, whole_labels(_labels_of(path), labels), str(path))


def _labels_of(image: Path) -> Path:
    """Where the `imgs/ gts/` layout has an image's labels."""
    return image.parent.parent / "gts" / image.name


def read_npy(path: Path) -> NDArray[Any]:
    """The array of an npy file.

    Raises:
        InputError: a file that cannot be read, or holds pickles.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(path, f"no readable array ({error})", "a whole .npy file without pickles") from error


@dataclass(frozen=True)
class Prompting:
    """How images become an encoder's input and prompts.

    Attributes:
        spec: of the encoder, its `image_size` that of training.
        mask_size: side in pixels at which masks are compared: four times the embedding's.
        objects: prompts an image; where it has fewer objects, some are asked for again.
        box_jitter_px: each side of a box moves outward by up to a limit that is itself drawn up to this, in pixels of
            a prompt frame of 256.
        walk_share: of the boxes, that fit as badly as those in a volume do, where the mask of a slice prompts the next
            and objects shrink towards their ends: each side moves by a part of the object's extent, outward by up to
            `WALK_OUTWARD` of it, inward by up to `WALK_INWARD`.
        augment: flips, transpositions, brightness, contrast, tint.
        seed: of all that is drawn.
    """

    spec: EncoderSpec
    mask_size: int = LOW_RES_PX
    objects: int = 4
    box_jitter_px: float = 5
    walk_share: float = 0
    augment: bool = True
    seed: int = 0

    def apply(self, drawn: LabelledImage, index: int) -> dict[str, Tensor] | None:
        """What a model is trained on; None where the image has no object to ask for.

        Returns:
            image: float32 (3, S, S), normalised. boxes: float32 (K, 4) in the prompt frame. masks: bool (K, M, M).
            content: float32 (2,), height and width of the image's part of the frame, in (0, 1].
            index: int64 (), for messages.
        """
        return self.prompt(*self.changed(drawn, index), index)

    def changed(self, drawn: LabelledImage, index: int) -> tuple[LabelledImage, np.random.Generator]:
        """The image of this index as it is augmented, and what its prompts are drawn with."""
        rng = np.random.default_rng((self.seed, index))
        return augment(drawn, rng) if self.augment else drawn, rng

    def prompt(self, drawn: LabelledImage, rng: np.random.Generator, index: int) -> dict[str, Tensor] | None:
        """As `apply`, of what `changed` gave."""
        small = self.small_labels(drawn.labels)
        known = large_enough(small)
        if not len(known):
            return None
        chosen = rng.permutation(known)[: self.objects]
        if len(chosen) < self.objects:
            chosen = np.concatenate([chosen, rng.choice(known, self.objects - len(chosen))])
        boxes = np.stack([self._box(drawn.labels == label, rng) for label in chosen])
        return {
            "image": torch.from_numpy(preprocess_image(drawn.image, self.spec)[0]),
            "boxes": torch.from_numpy(boxes),
            "masks": torch.from_numpy(small == chosen[:, None, None]),
            "content": content_of(drawn, self.spec),
            "index": torch.tensor(index),
        }

    def small_labels(self, labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Labels at the masks' resolution, padded: (M, M)."""
        height, width = fit_image((labels.shape[0], labels.shape[1]), self.mask_size, self.spec.fit).new_shape
        padded = np.zeros((self.mask_size, self.mask_size), np.uint16)
        padded[:height, :width] = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return padded

    def _box(self, mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
        """A box around a mask, in the prompt frame, sometimes tight and sometimes loose."""
        frame = self.spec.prompt_frame
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        fit = fit_image((mask.shape[0], mask.shape[1]), frame, self.spec.fit)
        box = scale_boxes(np.array([[columns[0], rows[0], columns[-1], rows[-1]]]), fit, "float")[0]
        looseness = rng.uniform(0, self.box_jitter_px) * frame / LOW_RES_PX
        outward = rng.uniform(0, looseness, 4)
        if self.walk_share and rng.random() < self.walk_share:
            outward += rng.uniform(-WALK_INWARD, WALK_OUTWARD * rng.random(), 4) * np.tile(box[2:] - box[:2], 2)
        limit = np.array([*fit.new_shape[::-1]] * 2)
        return np.trunc(np.clip(box + outward * (-1, -1, 1, 1), 0, limit)).astype(np.float32)


def large_enough(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The objects of `MIN_AREA_PX` pixels and more."""
    known = np.flatnonzero(np.bincount(labels.ravel()) >= MIN_AREA_PX)
    return known[known > 0]


def content_of(drawn: LabelledImage, spec: EncoderSpec) -> Tensor:
    """Height and width of an image's part of an encoder's frame, in (0, 1]: float32 (2,)."""
    fit = fit_image((drawn.labels.shape[0], drawn.labels.shape[1]), spec.image_size, spec.fit)
    return torch.tensor(fit.new_shape) / fit.size


def augment(drawn: LabelledImage, rng: np.random.Generator) -> LabelledImage:
    """Flips, transpositions, and a change of gamma, contrast, brightness and, of coloured images, tint."""
    image, labels = drawn.image, drawn.labels
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if rng.random() < 0.5:
        image, labels = image[::-1], labels[::-1]
    if rng.random() < 0.5:
        image, labels = image.transpose(1, 0, 2), labels.T
    levels = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.4, 0.4)) * rng.uniform(0.8, 1.2) + rng.uniform(-0.1, 0.1)
    tint = rng.uniform(*TINTS, 3) if np.ptp(image[::4, ::4], axis=2).any() else np.ones(3)
    table = np.round(levels[None, :, None] * tint * 255).clip(0, 255).astype(np.uint8)
    return replace(
        drawn,
        image=np.asarray(cv2.LUT(np.ascontiguousarray(image), table), np.uint8),
        labels=np.ascontiguousarray(labels),
    )


class PromptedImages(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A source with prompts, as torch's loaders want it.

    Args:
        source: of images.
        prompting: of them.
    """

    def __init__(self, source: ImageSource, prompting: Prompting) -> None:
        self.source, self.prompting = source, prompting
        count = images_of(source)
        #: The rest of an epoch, and all of the next; few images many times, as a flip may change what is left of one.
        self.most_in_a_row = max(MANY_EMPTY, 2 * int(count)) if math.isfinite(count) else MANY_EMPTY

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample of this index; where the image has no object to ask for, that of the next one that has.

        Raises:
            InputError: no image has such an object, or one cannot be read.
        """
        without = f"images in a row without an object of {MIN_AREA_PX} pixels at {self.prompting.mask_size} px"
        for shift in range(self.most_in_a_row):
            if shift == MANY_EMPTY:
                note(f"{shift} {without}; looking on")
            if prompted := self._prompted(index + shift):
                return prompted
        raise InputError(self.source.image(index).name, f"{self.most_in_a_row} {without}", "larger labelled objects")

    def _prompted(self, index: int) -> dict[str, Tensor] | None:
        return self.prompting.apply(self.source.image(index), index)


class PairedImages(PromptedImages):
    """As `PromptedImages`, with the same images, changed alike, as another encoder wants them: to distil from it.

    Args:
        source: of images.
        prompting: for the student.
        teacher: spec of the teacher's encoder.
    """

    def __init__(self, source: ImageSource, prompting: Prompting, teacher: EncoderSpec) -> None:
        super().__init__(source, prompting)
        self.for_teacher = replace(prompting, spec=teacher)

    def _prompted(self, index: int) -> dict[str, Tensor] | None:
        drawn, rng = self.prompting.changed(self.source.image(index), index)
        own, teacher = self.prompting.prompt(drawn, rng, index), self.for_teacher
        if own is None or not len(large_enough(teacher.small_labels(drawn.labels))):
            return None
        image = torch.from_numpy(preprocess_image(drawn.image, teacher.spec)[0])
        return {**own, "teacher_image": image, "teacher_content": content_of(drawn, teacher.spec)}
