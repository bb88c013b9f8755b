"""Images with embeddings that were made before, by `embed` or by another tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.training.embed import EmbeddingStore, embed_image
from zoo.data.dataset import (
    ImageSource,
    LabelledImage,
    check_complete,
    epoch_order,
    npy_files,
    open_source,
    read_npy,
)
from zoo.data.prompting import PromptedImages, Prompting, content_of
from zoo.errors import InputError
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE, EncoderSpec
from zoo.sam.model import Sam

#: Cosine of the angle between a stored embedding and the teacher's own of the same image, below which it is another's.
LEAST_SIMILARITY = 0.9


class Embeddings(Protocol):
    """A teacher's embeddings of so many images."""

    @property
    def data(self) -> list[str]:
        """Where the images come from, as `open_source` takes it."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def origin(self) -> dict[str, Any]:
        """What tells them from embeddings of other images, for the record of a run."""
        ...

    def source(self) -> ImageSource:
        """The images, and maybe more."""
        ...

    def indices(self, source: ImageSource) -> Sequence[int]:
        """Those of the images in `source`."""
        ...

    def embedding(self, place: int, drawn: LabelledImage) -> Tensor:
        """(256, 64, 64) of the image at a place of `indices`, which is `drawn`."""
        ...

    def check_teacher(self, teacher: Sam) -> None:
        """Refuses a teacher that the embeddings are not of."""
        ...


def open_embeddings(folder: Path) -> Embeddings:
    """What `embed` wrote, or a folder with `imgs/`, `gts/` and `embeddings/`.

    Raises:
        InputError: neither, or not all of it.
    """
    return NpyEmbeddings(folder) if (folder / "embeddings").is_dir() else EmbeddingStore(folder)


class NpyEmbeddings:
    """Folders `imgs/`, `gts/` and `embeddings/`, with an npy file of the same name in each: any tool's embeddings.

    Args:
        folder: that holds the three.

    Raises:
        InputError: an image without an embedding, or no image.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, [str(folder)]
        names = [path.name for path in npy_files(folder / "imgs")]
        if not names:
            raise InputError(folder / "imgs", "no images", "npy files, as in embeddings/")
        check_complete(folder / "embeddings", names, "embeddings")
        self.count = len(names)
        self.origin = {"data": self.data, "embeddings": self.count}

    def source(self) -> ImageSource:
        """The images."""
        return open_source(self.data, size=0)

    def indices(self, source: ImageSource) -> Sequence[int]:
        """All of one epoch."""
        return range(self.count)

    def embedding(self, place: int, drawn: LabelledImage) -> Tensor:
        """(256, 64, 64) of an image of this source; it is found by name.

        Raises:
            InputError: a file that cannot be read, of another shape, or with numbers that are not finite.
        """
        path = self.folder / "embeddings" / Path(drawn.name).name
        array = read_npy(path)
        wanted = (EMBEDDING_CHANNELS, EMBEDDING_SIZE, EMBEDDING_SIZE)
        if array.shape not in (wanted, (1, *wanted)) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(path, f"{array.dtype} {array.shape}", f"finite floats {wanted}")
        return torch.from_numpy(array.reshape(wanted))

    def check_teacher(self, teacher: Sam) -> None:
        """Compares the first embedding with the teacher's own.

        Raises:
            InputError: it is of another encoder, other weights or another preprocessing.
        """
        first = self.source().image(0)
        own, stored = (found.float().flatten() for found in (embed_image(teacher, first), self.embedding(0, first)))
        similarity = float(F.cosine_similarity(own, stored, dim=0))
        if similarity < LEAST_SIMILARITY:
            found = f"an embedding whose cosine to that of {teacher.spec.name} is {similarity:.2f}"
            raise InputError(self.folder / "embeddings" / Path(first.name).name, found, f"{LEAST_SIMILARITY} or more")


class StoredPairs(PromptedImages):
    """Prompted images with the stored embedding of each: without augmentation, which embeddings cannot follow.

    Args:
        embeddings: of the teacher.
        prompting: for the student.
        teacher: spec of the teacher's encoder.
    """

    def __init__(self, embeddings: Embeddings, prompting: Prompting, teacher: EncoderSpec) -> None:
        super().__init__(embeddings.source(), prompting)
        self.embeddings, self.teacher, self.most_in_a_row = embeddings, teacher, 2 * embeddings.count
        self.indices = embeddings.indices(self.source)

    def _prompted(self, index: int) -> dict[str, Tensor] | None:
        """Each epoch has every image, in an order of its own, with prompts drawn anew.

        Raises:
            InputError: an image that cannot be read, or is not the one that was embedded.
        """
        epoch, turn = divmod(index, self.embeddings.count)
        place = int(epoch_order(self.prompting.seed, epoch, self.embeddings.count)[turn])
        drawn = self.source.image(self.indices[place])
        prompted = self.prompting.apply(drawn, index)
        if prompted is None:
            return None
        embedding, content = self.embeddings.embedding(place, drawn), content_of(drawn, self.teacher)
        return {**prompted, "teacher_embedding": embedding, "teacher_content": content}
