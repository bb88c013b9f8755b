"""Box-prompt training of a whole model against labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.training.config import TrainConfig
from compress.training.losses import LOSSES, parts_of_loss
from compress.training.second_look import content_mask, draw_clicks, own_boxes
from zoo.data.dataset import Prompting
from zoo.errors import InputError, unknown_name
from zoo.registry import EMBEDDING_SIZE
from zoo.sam.fast_decoder import FastDecoder
from zoo.sam.model import Sam

#: Pixels of the low-resolution mask for one position of the embedding.
UPSCALING = 4
#: Prompts times positions that are decoded together on a CPU: about as much as stays in its cache.
CACHED_POSITIONS = 8192


class Finetuning(nn.Module):
    """A model and its loss on prompted images.

    Args:
        sam: trained in place.
        loss: one of `LOSSES`.
        embedding_side: of the images that are trained on.
        own_boxes: of an image's prompts, that are answered twice: the second box is that of the first mask.
        clicks: of an image's prompts, that are answered twice: the second time with a click where the first was wrong.
    """

    def __init__(
        self,
        sam: Sam,
        loss: str = "squared_sum",
        embedding_side: int = EMBEDDING_SIZE,
        own_boxes: int = 0,
        clicks: int = 0,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.sam, self.combine = sam, LOSSES[loss]
        self.decoder = FastDecoder(sam, embedding_side)
        self.own_boxes, self.clicks = own_boxes, clicks

    def predict(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), boxes (B, K, 4) in the prompt frame, to logits (B * K, M, M) and IoU (B * K,)."""
        return self.decode(self.sam.image_encoder(image), boxes)

    def decode(self, embeddings: Tensor, boxes: Tensor, clicks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `predict`, of embeddings (B, 256, side, side).

        Args:
            embeddings: of images.
            boxes: (B, K, 4) in the prompt frame.
            clicks: (B, K, P, 3) beside the boxes: x, y, and 1 for foreground, 0 for background, -1 for none.
        """
        prompts = self._embedded(boxes, clicks)
        together, objects = boxes.shape[:2]
        if embeddings.device.type == "cpu":
            together = max(1, CACHED_POSITIONS // (objects * self.decoder.side**2))
        decoded = [
            self.decoder.decode(few.repeat_interleave(objects, 0), theirs.flatten(0, 1))
            for few, theirs in zip(embeddings.split(together), prompts.split(together), strict=True)
        ]
        logits, iou = (torch.cat(parts) for parts in zip(*decoded, strict=True))
        return logits[:, 0].float(), iou[:, 0].float()

    def _embedded(self, boxes: Tensor, clicks: Tensor | None) -> Tensor:
        """Sparse prompt embeddings (B, K, P + 2, 256)."""
        encoder = self.sam.prompt_encoder
        corners = encoder.embed_boxes(boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
        if clicks is None:
            return corners
        points = encoder.embed_labelled_points(clicks[..., :2].flatten(0, 1), clicks[..., 2].flatten(0, 1))
        return torch.cat([points.unflatten(0, boxes.shape[:2]), corners], dim=2)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch as `Prompting` makes it, to the loss and its parts, each a mean over objects: ()."""
        embeddings = self.sam.image_encoder(batch["image"])
        looks = [self._parts(embeddings, *prompts) for prompts in self._prompts(embeddings, batch)]
        parts = {name: torch.cat([look[name] for look in looks]) for name in looks[0]}
        return {"loss": self.combine(parts).mean(), **{name: part.mean().detach() for name, part in parts.items()}}

    def _prompts(
        self, embeddings: Tensor, batch: Mapping[str, Tensor]
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """What is decoded together: boxes (B, K, 4), clicks (B, K, 1, 3) or none, and the right masks (B, K, M, M)."""
        boxes, masks, frame = batch["boxes"], batch["masks"], self.sam.spec.prompt_frame
        count, again = boxes.shape[1], self.own_boxes + self.clicks
        if not again:
            yield boxes, None, masks
            return
        with torch.no_grad():
            found = self.decode(embeddings, boxes[:, count - again :])[0].unflatten(0, (len(boxes), again)) > 0
        boxed = count - self.clicks
        if boxed:
            first, second = slice(count - again), slice(count - again, boxed)
            own = own_boxes(found[:, : self.own_boxes], masks[:, second], boxes[:, second], frame)
            yield torch.cat([boxes[:, first], own], dim=1), None, masks[:, :boxed]
        if self.clicks:
            inside = content_mask(batch["content"], masks.shape[-1]).bool()[:, None]
            clicks = draw_clicks(found[:, self.own_boxes :], masks[:, boxed:], inside, frame)
            yield boxes[:, boxed:], clicks[:, :, None], masks[:, boxed:]

    def _parts(self, embeddings: Tensor, boxes: Tensor, clicks: Tensor | None, masks: Tensor) -> dict[str, Tensor]:
        """Parts of the loss, one value an object."""
        logits, iou = self.decode(embeddings, boxes, clicks)
        return parts_of_loss(logits, iou, masks.flatten(0, 1), boxes.flatten(0, 1) / self.sam.spec.prompt_frame)


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
