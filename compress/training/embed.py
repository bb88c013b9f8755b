"""A teacher's embeddings on disk, so that many students, or many epochs, need its encoder only once."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from compress.training.batches import load_batches
from zoo.data.dataset import ImageSource, LabelledImage, indices_once, names_digest, open_source
from zoo.errors import InputError
from zoo.files import whole_file
from zoo.registry import EncoderSpec
from zoo.sam.model import Sam
from zoo.transforms import preprocess_image
from zoo.weights.convert import SAVE_FAILURES

CARD = "store.json"


@dataclass(frozen=True)
class StoreCard:
    """What a store holds; embeddings of other weights, preprocessing or images are refused by comparing this.

    Attributes:
        teacher: name of the encoder.
        weights_sha256: of the teacher.
        spec: of the encoder: its preprocessing.
        data: sources of the images, as `open_source` takes them.
        size: of synthetic images, side in pixels; 0 where there are none.
        seed: of the sources.
        count: of images.
        shard_size: embeddings a file.
        once: whether sources that have no more images are passed over, as `indices_once` does; or the images are those
            with indices 0 to count - 1.
        files: digest of the sources' files, as `names_digest` gives it, on which the order of images depends; None on
            cards of before, too.
    """

    teacher: str
    weights_sha256: str
    spec: dict[str, object]
    data: list[str]
    size: int
    seed: int
    count: int
    shard_size: int
    once: bool = False
    files: str | None = None


class EmbeddingStore:
    """Reads what `write_store` wrote.

    Args:
        folder: of the store.

    Raises:
        InputError: no store, or one that is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.card = folder, read_card(folder)
        if missing := [path.name for path in shard_paths(folder, self.card) if not path.exists()]:
            found = f"{len(missing)} files missing ({missing[0]} first)"
            raise InputError(folder, found, "a whole store; the same `embed` command goes on with it")

    @property
    def data(self) -> list[str]:
        """Where the images come from."""
        return self.card.data

    @property
    def count(self) -> int:
        """How many embeddings there are."""
        return self.card.count

    @property
    def origin(self) -> dict[str, Any]:
        """What tells them from embeddings of other images, for the record of a run."""
        card = self.card
        return {
            "data": card.data,
            "embeddings": card.count,
            "embeddings_size": card.size,
            "embeddings_seed": card.seed,
        }

    def source(self) -> ImageSource:
        """The images that the embeddings are of, and maybe more."""
        return open_source(self.card.data, self.card.size, self.card.seed)

    def indices(self, source: ImageSource) -> Sequence[int]:
        """Those of the images in `source`."""
        return indices_once(source, self.card.count) if self.card.once else range(self.card.count)

    def embedding(self, place: int, drawn: LabelledImage) -> Tensor:
        """float16 (256, 64, 64) of an image.

        Args:
            place: of the image in `indices`.
            drawn: the image, to make sure that the embedding is of it.

        Raises:
            InputError: a file that cannot be read, or an image that is not the one that was embedded.
        """
        shard, within = divmod(place, self.card.shard_size)
        path = shard_paths(self.folder, self.card)[shard]
        try:
            with safe_open(path, framework="pt") as file:
                found: Tensor = file.get_slice("embeddings")[within]
                known = int(file.get_tensor("images")[within])
        except (SafetensorError, OSError, IndexError) as error:
            raise InputError(
                path, f"no readable embeddings ({error})", "a whole file; delete it and embed again"
            ) from error
        if known != fingerprint(drawn.image):
            told = f"another image than was embedded at place {place}"
            raise InputError(drawn.name, told, f"the images of {self.folder} as they were; or embed again")
        return found

    def check_teacher(self, teacher: Sam) -> None:
        """Refuses another teacher than that of the store.

        Raises:
            InputError: another encoder, preprocessing or weights.
        """
        found = (self.card.spec, self.card.weights_sha256)
        if teacher.weights is None or found != (plain_spec(teacher.spec), teacher.weights.sha256):
            told = f"embeddings of {self.card.teacher} with weights of sha256 {self.card.weights_sha256[:12]}"
            wanted = f"{teacher.spec.name} with {teacher.weights.sha256[:12] if teacher.weights else 'no weights'}"
            raise InputError(self.folder, told, wanted)


def read_card(folder: Path) -> StoreCard:
    """The card of a store.

    Raises:
        InputError: none, or not one of this format.
    """
    try:
        card = StoreCard(**json.loads((folder / CARD).read_text()))
        return replace(card, size=_drawn_size(card.data, card.size))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(folder / CARD, f"no store of embeddings ({error})", "a folder that `embed` wrote") from error


def _drawn_size(data: Sequence[str], size: int) -> int:
    """The size that a card tells of: files have their own, and cards of before told of one all the same."""
    return size if "synthetic" in data else 0


def shard_paths(folder: Path, card: StoreCard) -> list[Path]:
    """All files of a store, in order."""
    return [folder / f"embeddings-{i:05d}.safetensors" for i in range(-(-card.count // card.shard_size))]


def plain_spec(spec: EncoderSpec) -> dict[str, object]:
    """A spec as JSON gives it back."""
    return dict(json.loads(json.dumps(asdict(spec))))


def write_store(
    teacher: Sam,
    data: Sequence[str],
    size: int,
    seed: int,
    count: int,
    folder: Path,
    shard_size: int = 256,
    batch_size: int = 1,
    workers: int = 0,
    told: Callable[[int, int], None] = lambda done, count: None,
) -> StoreCard:
    """Writes embeddings, as float16; shards that are there already are kept.

    Args:
        teacher: in eval mode, on the device that is to compute.
        data: as in `open_source`.
        size: of synthetic images.
        seed: of the sources.
        count: of images at most, in turns of the sources; each file is taken once.
        folder: of the store.
        shard_size: embeddings a file, 2 MiB each.
        batch_size: images that the teacher sees together.
        workers: processes that make images.
        told: hears how many are done, and of how many.

    Raises:
        InputError: a folder that holds another store, an image that cannot be read, an embedding that is not finite, or
            no room to write.
    """
    if teacher.weights is None:
        raise InputError("teacher", "weights without identity", "a model of create_sam")
    source = open_source(data, size, seed)
    indices = indices_once(source, count)
    count = len(indices)
    card = StoreCard(
        teacher.spec.name,
        teacher.weights.sha256,
        plain_spec(teacher.spec),
        list(data),
        _drawn_size(data, size),
        seed,
        count,
        shard_size,
        once=indices != list(range(count)),
        files=names_digest(source),
    )
    if (folder / CARD).exists():
        _check_same(folder, read_card(folder), card)
    with whole_file(folder / CARD) as part:
        part.write_text(json.dumps(asdict(card), indent=2) + "\n")
    shards = [indices[first : first + shard_size] for first in range(0, count, shard_size)]
    missing = [(path, own) for path, own in zip(shard_paths(folder, card), shards, strict=True) if not path.exists()]
    done = count - sum(len(own) for _, own in missing)
    told(done, count)
    batches = [own[i : i + batch_size] for _, own in missing for i in range(0, len(own), batch_size)]
    device = next(teacher.parameters()).device
    with load_batches(_ForTeacher(source, teacher.spec), batches, workers, device) as stream:
        for path, own in missing:
            embedded: list[dict[str, Tensor]] = []
            for _ in range(0, len(own), batch_size):
                embedded.append(_embedded(teacher, source, next(stream)))
                done += len(embedded[-1]["images"])
                told(done, count)
            with whole_file(path, SAVE_FAILURES) as part_file:
                save_file({key: torch.cat([part[key] for part in embedded]) for key in embedded[0]}, part_file)
    return card


def _check_same(folder: Path, found: StoreCard, wanted: StoreCard) -> None:
    """Refuses to go on with a store of another card.

    Raises:
        InputError: another teacher, count or version, or other images.
    """
    if found == wanted:
        return
    if found.files not in (None, wanted.files) and found == replace(wanted, files=found.files, count=found.count):
        told = "a store of files of which some have since got another name or size, or are new or gone"
        raise InputError(folder, told, "the files as they were; or embed those there are now to another --out")
    told = "a store of another teacher, count or version, or of other images"
    raise InputError(folder, told, "the same, or another --out")


class _ForTeacher(Dataset[dict[str, Tensor]]):
    """Images of a source as a teacher's encoder wants them."""

    def __init__(self, source: ImageSource, spec: EncoderSpec) -> None:
        self.source, self.spec = source, spec

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = self.source.image(index)
        image = torch.from_numpy(preprocess_image(drawn.image, self.spec)[0])
        return {"image": image, "index": torch.tensor(index), "fingerprint": torch.tensor(fingerprint(drawn.image))}


def _embedded(teacher: Sam, source: ImageSource, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a batch, what a store's files hold: `embeddings` float16 (B, 256, 64, 64), `images` int64 (B,)."""
    embeddings, finite = _embed(teacher, batch["image"])
    if not finite.all():
        raise _not_finite(source.image(int(batch["index"][~finite][0])))
    # A copy, as what another process made stays an open file.
    return {"embeddings": embeddings, "images": batch["fingerprint"].clone()}


def fingerprint(image: NDArray[np.uint8]) -> int:
    """Tells an image from others: the CRC-32 of its pixels."""
    return zlib.crc32(np.ascontiguousarray(image).data)


def embed_image(teacher: Sam, drawn: LabelledImage) -> Tensor:
    """The teacher's embedding of an image, float16 (256, 64, 64).

    Raises:
        InputError: an embedding that is not finite.
    """
    embeddings, finite = _embed(teacher, torch.from_numpy(preprocess_image(drawn.image, teacher.spec)))
    if not finite.all():
        raise _not_finite(drawn)
    return embeddings[0]


@torch.inference_mode()
def _embed(teacher: Sam, images: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings float16 (B, 256, 64, 64) of images (B, 3, S, S), and which of them are finite, both on the host."""
    embeddings = teacher.image_encoder(images.to(next(teacher.parameters()).device)).to(torch.float16).cpu()
    return embeddings, torch.isfinite(embeddings).flatten(1).all(1)


def _not_finite(drawn: LabelledImage) -> InputError:
    return InputError(drawn.name, "an embedding that is not finite in float16", "finite; look at the weights")
