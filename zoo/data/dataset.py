"""Training data: labelled images by index; `zoo.data.prompting` puts prompts on them.

Everything is a pure function of an index and a seed, so that a run that was cut off goes on with the very samples it
would have drawn.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.data.intensity import is_unit, unit_to_uint8
from zoo.data.npz import labelled_slices, load_challenge_npz
from zoo.data.scan import whole_labels
from zoo.data.synthetic import sample
from zoo.errors import InputError, first_of
from zoo.files import files_below

#: An error names no more bad files of a folder than this.
MOST_BAD = 3

#: Type and shape of an array.
Layout = tuple[np.dtype[Any], tuple[int, ...]]


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
        seed: of the order of files, and of the synthetic images' first seed; each source after the first has another
            of its own, so that equal ones do not go in step.

    Raises:
        InputError: nothing is found, or a file cannot be used.
    """
    # Far beyond what anybody gives as a seed; odd ones stay odd.
    sources = [_open_source(spec, size, seed + (place << 40)) for place, spec in enumerate(specs)]
    return sources[0] if len(sources) == 1 else Mixture(sources)


def _open_source(spec: str, size: int, seed: int) -> ImageSource:
    return SyntheticImages(size, seed << 32) if spec == "synthetic" else _open_files(spec, seed)


def images_of(source: ImageSource) -> float:
    """How many images a source gives until it has given each of them; infinite where it draws them."""
    if isinstance(source, Mixture):
        return len(source.sources) * max(map(images_of, source.sources))
    return len(source.items) if isinstance(source, FileImages) else math.inf


def _parts_of(source: ImageSource) -> Sequence[ImageSource]:
    """The sources of a mixture, or the one."""
    return source.sources if isinstance(source, Mixture) else [source]


def indices_once(source: ImageSource, most: int) -> list[int]:
    """Indices of at most so many images of a source, none of which is another's again.

    Raises:
        InputError: two of its sources have the same file.
    """
    parts = _parts_of(source)
    _check_distinct(parts)
    counts = [images_of(part) for part in parts]
    indices = (i for i in itertools.count() if i // len(parts) < counts[i % len(parts)])
    return list(itertools.islice(indices, int(min(most, sum(counts)))))


def _check_distinct(parts: Sequence[ImageSource]) -> None:
    """Refuses sources that share a file, under whatever path."""
    files = [{path.resolve() for path, _ in part.items} for part in parts if isinstance(part, FileImages)]
    for one, other in itertools.combinations(files, 2):
        if both := one & other:
            raise InputError(min(both), "a file that two sources have", "each once, as images are not taken again here")


def _open_files(spec: str, seed: int) -> FileImages:
    root = Path(spec)
    items: list[tuple[Path, int | None]]
    if (root / "imgs").is_dir():
        items = [(path, None) for path in npy_files(root / "imgs")]
        check_complete(root / "gts", [path.name for path, _ in items], "labels")
        _check_headers(root, [path for path, _ in items])
    else:
        items = [item for path in _npz_files(root) for item in _npz_items(path)]
    if not items:
        expected = "synthetic, npy files in imgs/ and gts/, as `prepare --to npy` writes them, or challenge npz files"
        raise InputError(root, "no training images", expected)
    return FileImages(items, seed)


def npy_files(folder: Path) -> list[Path]:
    """The npy files of a folder, sorted, but for hidden ones, as macOS leaves `._a.npy` beside `a.npy`."""
    return sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))


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
    """Tells files from others by their paths, sizes in bytes, slices and order; None where there are none.

    Files that have other contents of the same size are not told from each other.
    """
    parts = _parts_of(source)
    names = [_names_of(one) if isinstance(one, FileImages) else None for one in parts]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest() if any(names) else None


def _names_of(images: FileImages) -> list[list[str | int | None]]:
    """Path, slice, and bytes of the file or files of each image."""
    sizes = {path: [file.stat().st_size for file in _files_of(path)] for path in dict(images.items)}
    return [[str(path), z, *sizes[path]] for path, z in images.items]


def _files_of(path: Path) -> tuple[Path, ...]:
    """An image's file, with that of its labels if they have their own."""
    return (path, _labels_of(path)) if path.suffix == ".npy" else (path,)


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


def _check_headers(root: Path, images: Sequence[Path]) -> None:
    """Refuses a folder with images or labels that are no pair by their headers, before a run ends at one of them.

    Raises:
        InputError: there are some; it names the first.
    """
    bad: list[str] = []
    for path in images:
        try:
            _check_pair(path, *map(_read_header, _files_of(path)))
        except InputError as error:
            bad.append(f"{Path(error.where).relative_to(root)}: {error.found}")
    if bad:
        found = f"{len(bad)} of {len(images)} images that cannot be used ({first_of(bad, MOST_BAD, '; ')})"
        raise InputError(root, found, "uint8 or float (H, W) or (H, W, 3) in imgs/, integers (H, W) in gts/")


def _read_header(path: Path) -> Layout:
    """Type and shape of an npy file that has as many bytes as they ask for; no number is read.

    Raises:
        InputError: no such file.
    """
    try:
        with path.open("rb") as stream:
            version, _ = np.lib.format.read_magic(stream)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(stream)
            missing = stream.tell() + math.prod(shape) * dtype.itemsize - os.fstat(stream.fileno()).st_size
    except Exception as error:  # numpy evaluates the header's text, which fails in a dozen ways.
        raise InputError(path, f"no readable array ({error})", "a whole .npy file without pickles") from error
    if missing > 0:
        raise InputError(path, f"an array that lacks {missing} bytes", "a whole .npy file without pickles")
    return dtype, shape


def _check_pair(path: Path, image: Layout, labels: Layout) -> None:
    """Refuses an image and labels that are no pair by their types and shapes.

    Raises:
        InputError: another type or shape, or no pixel.
    """
    (dtype, shape), (labels_dtype, labels_shape) = image, labels
    if not (dtype == np.uint8 or dtype.kind == "f") or len(shape) < 2 or shape[2:] not in ((), (3,)) or 0 in shape:
        raise InputError(path, f"{dtype} {shape}", "uint8 or float (H, W) or (H, W, 3)")
    if labels_shape != shape[:2] or labels_dtype.kind not in "biu":
        raise InputError(path, f"labels {labels_dtype} {labels_shape}", f"integers {shape[:2]}")


def _read_npy_pair(path: Path) -> LabelledImage:
    """An image of the `imgs/ gts/` layout: uint8, or floats in [0, 1], (H, W) or (H, W, 3)."""
    image, labels = (read_npy(file) for file in (path, _labels_of(path)))
    _check_pair(path, (image.dtype, image.shape), (labels.dtype, labels.shape))
    if image.dtype.kind == "f":
        if not is_unit(image):
            raise InputError(path, f"floats from {image.min()} to {image.max()}", "floats in [0, 1], or uint8")
        image = unit_to_uint8(image)
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
