"""Box-prompt training of a whole model against labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.training.config import TrainConfig
from compress.training.losses import LOSSES, parts_of_loss
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
    """

    def __init__(self, sam: Sam, loss: str = "squared_sum", embedding_side: int = EMBEDDING_SIZE) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        self.sam, self.combine = sam, LOSSES[loss]
        self.decoder = FastDecoder(sam, embedding_side)

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
        logits, iou = self.predict(batch["image"], batch["boxes"])
        parts = parts_of_loss(logits, iou, batch["masks"].flatten(0, 1), self._normalised(batch["boxes"]).flatten(0, 1))
        return {"loss": self.combine(parts).mean(), **{name: part.mean().detach() for name, part in parts.items()}}

    def _normalised(self, boxes: Tensor) -> Tensor:
        return boxes / self.sam.spec.prompt_frame


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
