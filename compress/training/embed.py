"""A teacher's embeddings on disk, so that many students, or many epochs, need its encoder only once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo.data.dataset import ImageSource, PromptedImages, Prompting, open_source
from zoo.errors import InputError
from zoo.files import whole_file
from zoo.registry import EncoderSpec
from zoo.sam.model import Sam
from zoo.transforms import fit_image, preprocess_image

CARD = "store.json"


@dataclass(frozen=True)
class StoreCard:
    """What a store holds; embeddings of other weights, preprocessing or images are refused by comparing this.

    Attributes:
        teacher: name of the encoder.
        weights_sha256: of the teacher.
        spec: of the encoder: its preprocessing.
        data: sources of the images, as `open_source` takes them.
        size: of synthetic images, side in pixels.
        seed: of the sources.
        count: images, with indices 0 to count - 1.
        shard_size: embeddings a file.
    """

    teacher: str
    weights_sha256: str
    spec: dict[str, object]
    data: list[str]
    size: int
    seed: int
    count: int
    shard_size: int


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

    def source(self) -> ImageSource:
        """The images that the embeddings are of."""
        return open_source(self.card.data, self.card.size, self.card.seed)

    def embedding(self, index: int) -> Tensor:
        """float16 (256, 64, 64) of image `index`.

        Raises:
            InputError: a file that cannot be read.
        """
        shard, place = divmod(index, self.card.shard_size)
        path = shard_paths(self.folder, self.card)[shard]
        try:
            with safe_open(path, framework="pt") as file:
                found: Tensor = file.get_slice("embeddings")[place]
                return found
        except (SafetensorError, OSError, IndexError) as error:
            raise InputError(
                path, f"no readable embeddings ({error})", "a whole file; delete it and embed again"
            ) from error

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
        return StoreCard(**json.loads((folder / CARD).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(folder / CARD, f"no store of embeddings ({error})", "a folder that `embed` wrote") from error


def shard_paths(folder: Path, card: StoreCard) -> list[Path]:
    """All files of a store, in order."""
    return [folder / f"embeddings-{i:05d}.safetensors" for i in range(-(-card.count // card.shard_size))]


def plain_spec(spec: EncoderSpec) -> dict[str, object]:
    """A spec as JSON gives it back."""
    return dict(json.loads(json.dumps(asdict(spec))))


@torch.inference_mode()
def write_store(
    teacher: Sam,
    data: Sequence[str],
    size: int,
    seed: int,
    count: int,
    folder: Path,
    shard_size: int = 256,
    told: Callable[[int], None] = lambda done: None,
) -> StoreCard:
    """Writes the embeddings of images 0 to `count` - 1, as float16; files that are there already are kept.

    Args:
        teacher: in eval mode, on the device that is to compute.
        data: as in `open_source`.
        size: of synthetic images.
        seed: of the sources.
        count: of images.
        folder: of the store.
        shard_size: embeddings a file, 2 MiB each.
        told: hears how many are done.

    Raises:
        InputError: a folder that holds another store, an image that cannot be read, or no room to write.
    """
    if teacher.weights is None:
        raise InputError("teacher", "weights without identity", "a model of create_sam")
    card = StoreCard(
        teacher.spec.name,
        teacher.weights.sha256,
        plain_spec(teacher.spec),
        list(data),
        size,
        seed,
        count,
        shard_size,
    )
    if (folder / CARD).exists() and read_card(folder) != card:
        raise InputError(
            folder, "a store of another teacher, other images or another count", "the same, or another --out"
        )
    source = open_source(data, size, seed)
    with whole_file(folder / CARD) as part:
        part.write_text(json.dumps(asdict(card), indent=2) + "\n")
    for shard, path in enumerate(shard_paths(folder, card)):
        indices = range(shard * shard_size, min(count, (shard + 1) * shard_size))
        if not path.exists():
            embeddings = torch.stack([_embed(teacher, source, index) for index in indices])
            try:
                with whole_file(path) as part:
                    save_file({"embeddings": embeddings}, part)
            except (OSError, SafetensorError) as error:
                raise InputError(path, f"no room or no right to write ({error})", "a folder with space left") from error
        told(indices.stop)
    return card


def _embed(teacher: Sam, source: ImageSource, index: int) -> Tensor:
    device = next(teacher.parameters()).device
    image = torch.from_numpy(preprocess_image(source.image(index).image, teacher.spec)).to(device)
    embedding: Tensor = teacher.image_encoder(image)[0]
    if not torch.isfinite(embedding).all():
        raise InputError(f"image {index}", "an embedding that is not finite", "finite numbers; look at the weights")
    return embedding.to(torch.float16).cpu()


class StoredPairs(PromptedImages):
    """Prompted images with the stored embedding of each: without augmentation, which embeddings cannot follow.

    Args:
        store: of the teacher.
        prompting: for the student.
    """

    def __init__(self, store: EmbeddingStore, prompting: Prompting) -> None:
        super().__init__(store.source(), prompting)
        self.store = store

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Sample `index`, of image `index % count`; prompts are drawn anew in every round.

        Raises:
            InputError: no image has an object, or one cannot be read.
        """
        for shift in range(self.store.card.count):
            place = (index + shift) % self.store.card.count
            drawn = self.source.image(place)
            if prompted := self.prompting.apply(drawn, index + shift):
                spec = self.store.card.spec
                shape = (drawn.labels.shape[0], drawn.labels.shape[1])
                fit = fit_image(shape, int(str(spec["image_size"])), "pad" if spec["fit"] == "pad" else "squash")
                content = torch.tensor(fit.new_shape) / fit.size
                return {**prompted, "teacher_embedding": self.store.embedding(place), "teacher_content": content}
        raise InputError(self.store.folder, "no image with an object", "labelled images")
