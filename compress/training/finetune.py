"""Box-prompt training of a whole model against labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.training.config import TrainConfig
from compress.training.losses import LOSSES, parts_of_loss
from compress.training.second_look import content_mask, draw_clicks, loose_boxes, masks_beside, own_boxes
from compress.training.task import Task
from zoo.data.prompting import Prompting
from zoo.errors import InputError, unknown_name
from zoo.registry import EMBEDDING_SIZE
from zoo.sam.fast_decoder import FastDecoder
from zoo.sam.model import Sam
from zoo.transforms import MASK_LOGIT

#: Pixels of the low-resolution mask for one position of the embedding.
UPSCALING = 4
#: Prompts times positions that are decoded together on a CPU: about as much as stays in its cache.
CACHED_POSITIONS = 8192


@dataclass(frozen=True)
class Look:
    """Prompts that are decoded together, K of each of B images, and what they ask for.

    Attributes:
        boxes: (B, K, 4) in the prompt frame.
        wanted: bool (B, K, M, M), the right masks.
        clicks: (B, K, P, 3) beside the boxes: x, y, and 1 for foreground, 0 for background, -1 for none.
        beside: bool (B, K, M, M), masks of a neighbouring slice, beside the boxes.
    """

    boxes: Tensor
    wanted: Tensor
    clicks: Tensor | None = None
    beside: Tensor | None = None


class Finetuning(Task):
    """A model and its loss on prompted images.

    Args:
        sam: trained in place.
        loss: one of `LOSSES`.
        embedding_side: of the images that are trained on.
        own_boxes: of an image's prompts, that are answered twice: the second box is that of the first mask.
        clicks: of an image's prompts, that are answered twice: the second time with a click where the first was wrong.
        masks: of an image's prompts, that are answered by a mask, too, such as a neighbouring slice would have.
    """

    def __init__(
        self,
        sam: Sam,
        loss: str = "squared_sum",
        embedding_side: int = EMBEDDING_SIZE,
        own_boxes: int = 0,
        clicks: int = 0,
        masks: int = 0,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.sam, self.combine = sam, LOSSES[loss]
        self.decoder = FastDecoder(sam, embedding_side)
        self.own_boxes, self.clicks, self.masks = own_boxes, clicks, masks

    def predict(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), boxes (B, K, 4) in the prompt frame, to logits (B * K, M, M) and IoU (B * K,)."""
        return self.decode(self.sam.image_encoder(image), boxes)

    def decode(
        self, embeddings: Tensor, boxes: Tensor, clicks: Tensor | None = None, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `predict`, of embeddings (B, 256, side, side); clicks and masks beside the boxes as in `Look`."""
        prompts = self._embedded(boxes, clicks)
        together, objects = boxes.shape[:2]
        if embeddings.device.type == "cpu":
            together = max(1, CACHED_POSITIONS // (objects * self.decoder.side**2))
        decoded = []
        for start in range(0, len(boxes), together):
            few = slice(start, start + together)
            masks = None if beside is None else _as_logits(beside[few].flatten(0, 1))
            images = embeddings[few].repeat_interleave(objects, 0)
            decoded.append(self.decoder.decode(images, prompts[few].flatten(0, 1), masks))
        logits, iou = (torch.cat(parts) for parts in zip(*decoded, strict=True))
        return logits[:, 0].float(), iou[:, 0].float()

    def _embedded(self, boxes: Tensor, clicks: Tensor | None) -> Tensor:
        """Sparse prompt embeddings (B, K, P + 2, 256), in float32: bfloat16 would move corners by a pixel."""
        encoder = self.sam.prompt_encoder
        with torch.autocast(boxes.device.type, enabled=False):
            corners = encoder.embed_boxes(boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
            if clicks is None:
                return corners
            points = encoder.embed_labelled_points(clicks[..., :2].flatten(0, 1), clicks[..., 2].flatten(0, 1))
        return torch.cat([points.unflatten(0, boxes.shape[:2]), corners], dim=2)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch as `Prompting` makes it, to the loss and its parts, each a mean over objects: ()."""
        embeddings = self.sam.image_encoder(batch["image"])
        looks = [self._parts(embeddings, look) for look in self._looks(embeddings, batch)]
        parts = {name: torch.cat([look[name] for look in looks]) for name in looks[0]}
        return {"loss": self.combine(parts).mean(), **{name: part.mean().detach() for name, part in parts.items()}}

    def answers(self, batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Logits (B * K, M, M) of a batch by its boxes alone, then, if `masks`, with all masks of a slice beside."""
        embeddings, boxes, wanted = self.sam.image_encoder(batch["image"]), batch["boxes"], batch["masks"]
        logits, _ = self.decode(embeddings, boxes)
        yield logits
        if self.masks:
            look = self._beside((logits > 0).unflatten(0, boxes.shape[:2]), wanted)
            yield self.decode(embeddings, look.boxes, beside=look.beside)[0]

    def _looks(self, embeddings: Tensor, batch: Mapping[str, Tensor]) -> Iterator[Look]:
        """What is decoded together: prompts of boxes alone, then those with masks, then those with clicks."""
        boxes, wanted, frame = batch["boxes"], batch["masks"], self.sam.spec.prompt_frame
        again = self.own_boxes + self.masks + self.clicks
        if not again:
            yield Look(boxes, wanted)
            return
        once = boxes.shape[1] - again
        boxed, masked = once + self.own_boxes, once + self.own_boxes + self.masks
        with torch.no_grad():
            found = self.decode(embeddings, boxes[:, once:])[0].unflatten(0, (len(boxes), again)) > 0
        if boxed:
            second = slice(once, boxed)
            own = own_boxes(found[:, : self.own_boxes], wanted[:, second], boxes[:, second], frame)
            yield Look(torch.cat([boxes[:, :once], own], dim=1), wanted[:, :boxed])
        if self.masks:
            yield self._beside(found[:, self.own_boxes : self.own_boxes + self.masks], wanted[:, boxed:masked])
        if self.clicks:
            inside = content_mask(batch["content"], wanted.shape[-1]).bool()[:, None]
            clicks = draw_clicks(found[:, self.own_boxes + self.masks :], wanted[:, masked:], inside, frame)
            yield Look(boxes[:, masked:], wanted[:, masked:], clicks=clicks[:, :, None])

    def _beside(self, found: Tensor, wanted: Tensor) -> Look:
        """Prompts by masks, and by their boxes, of the slice beside one in which the model found `found`."""
        beside = masks_beside(found, wanted)
        return Look(loose_boxes(beside, self.sam.spec.prompt_frame), wanted, beside=beside)

    def _parts(self, embeddings: Tensor, look: Look) -> dict[str, Tensor]:
        """Parts of the loss, one value an object."""
        logits, iou = self.decode(embeddings, look.boxes, look.clicks, look.beside)
        boxes = look.boxes.flatten(0, 1) / self.sam.spec.prompt_frame
        return parts_of_loss(logits, iou, look.wanted.flatten(0, 1), boxes)


def _as_logits(masks: Tensor) -> Tensor:
    """Masks bool (N, M, M) as logits (N, 1, M, M) that prompt with them."""
    return torch.where(masks, MASK_LOGIT, -MASK_LOGIT)[:, None]


def training_geometry(sam: Sam, config: TrainConfig) -> tuple[Prompting, int]:
    """How images are prepared for a model at the size of training, and the side of its embedding of them.

    Raises:
        InputError: a size that this encoder cannot take.
    """
    size = config.size or sam.spec.image_size
    spec = replace(sam.spec, image_size=size)
    wanted = EMBEDDING_SIZE * size // sam.spec.image_size
    try:
        with torch.no_grad():
            found = tuple(sam.image_encoder.eval()(torch.zeros(1, 3, size, size)).shape[2:])
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            "--size", f"{size} px ({error})", f"{sam.spec.image_size}, the size of this encoder"
        ) from error
    if found != (wanted, wanted):
        raise InputError("--size", f"{size} px, an embedding of {found}", f"{sam.spec.image_size} px")
    prompting = Prompting(
        spec, wanted * UPSCALING, config.objects, config.box_jitter_px, config.walk_share, seed=config.seed
    )
    return prompting, wanted
