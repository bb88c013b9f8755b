"""Distillation: a student's encoder learns to give a teacher's embeddings, with the teacher's decoder behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.training.finetune import Finetuning
from compress.training.losses import cross_entropy, dice_loss
from compress.training.second_look import content_mask, draw_clicks
from compress.training.task import Task
from zoo.errors import unknown_name
from zoo.sam.model import Sam

#: From student's and teacher's embeddings (B, C, H, W) to the difference at each position (B, H, W).
DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda student, teacher: (student - teacher).square().mean(1),
    "cosine": lambda student, teacher: 1 - F.cosine_similarity(student, teacher, dim=1),
    "both": lambda student, teacher: (
        (student - teacher).square().mean(1) + 1 - F.cosine_similarity(student, teacher, dim=1)
    ),
}


class Distillation(Task):
    """A student's loss against a teacher that does not change.

    Args:
        sam: the student; it takes over the teacher's prompt encoder and mask decoder, which stay as they are, and
            with them what they were trained for.
        teacher: any model of the zoo.
        distance: one of `DISTANCES`.
        mask_weight: of the masks' difference behind the frozen decoder, prompted alike.
        mask_rounds: of prompting for it; each after the first adds a click where the two masks differ (EdgeSAM's prompt
            in the loop, arXiv:2312.06660; two rounds there).

    Raises:
        InputError: an unknown distance.
    """

    def __init__(
        self, sam: Sam, teacher: Sam, distance: str = "mse", mask_weight: float = 0.0, mask_rounds: int = 2
    ) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise unknown_name("distance", distance, DISTANCES)
        sam.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
        sam.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
        sam.prompt_encoder.requires_grad_(False)
        sam.mask_decoder.requires_grad_(False)
        sam.spec = replace(sam.spec, mask_prompts=teacher.spec.mask_prompts)
        self.sam, self.distance = sam, DISTANCES[distance]
        self.mask_weight, self.mask_rounds = mask_weight, mask_rounds
        self.finetuning = Finetuning(sam)
        self.teacher = teacher.image_encoder.eval().requires_grad_(False)
        self.teacher_fit = teacher.spec.fit

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of `PairedImages` or `StoredPairs`, to the loss and its parts: ()."""
        with torch.no_grad():
            if "teacher_embedding" in batch:
                target = batch["teacher_embedding"].float()
            else:
                self.teacher.eval()
                target = self.teacher(batch["teacher_image"])
            if self.teacher_fit != self.sam.spec.fit:
                target = reframe(target, batch["teacher_content"], batch["content"])
        found = self.sam.image_encoder(batch["image"])
        inside = content_mask(batch["content"], found.shape[-1])
        # Image by image, so that splitting a batch does not change the mean.
        distances = (self.distance(found, target) * inside).sum((1, 2)) / inside.sum((1, 2))
        embedding_loss = distances.mean()
        numbers = {"embedding": embedding_loss.detach()}
        loss = embedding_loss
        if self.mask_weight:
            masks = self._mask_loss(found, target, batch)
            loss, numbers["masks"] = loss + self.mask_weight * masks, masks.detach()
        return {"loss": loss, **numbers}

    def _mask_loss(self, found: Tensor, target: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy and Dice of the student's masks against the teacher's: (), a mean over rounds of prompting."""
        boxes, frame = batch["boxes"], self.sam.spec.prompt_frame
        clicks = boxes.new_zeros(*boxes.shape[:2], 0, 3)
        rounds: list[Tensor] = []
        for _ in range(self.mask_rounds):
            with torch.no_grad():
                wanted = self.finetuning.decode(target, boxes, clicks)[0] > 0
            logits = self.finetuning.decode(found, boxes, clicks)[0]
            rounds.append((cross_entropy(logits, wanted) + dice_loss(logits, wanted)).mean())
            inside = content_mask(batch["content"], logits.shape[-1]).bool().repeat_interleave(boxes.shape[1], 0)
            drawn = draw_clicks(logits.detach() > 0, wanted, inside, frame)
            clicks = torch.cat([clicks, drawn.unflatten(0, boxes.shape[:2])[:, :, None]], dim=2)
        return torch.stack(rounds).mean()

    def answers(self, batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """As `Finetuning.answers`, by the student."""
        return self.finetuning.answers(batch)


def reframe(embedding: Tensor, has: Tensor, wants: Tensor) -> Tensor:
    """Moves embeddings (B, C, H, W) from a frame in which the image takes up `has` to one where it takes up `wants`.

    Args:
        embedding: of images that lie at the top left of their frame.
        has: (B, 2) height and width of the image's part of the embedding's frame, in (0, 1].
        wants: (B, 2), of the frame that is wanted; what lies beyond is zero.
    """
    side = embedding.shape[-1]
    centres = (torch.arange(side, device=embedding.device) + 0.5) / side
    y, x = (centres[None] * (has[:, axis] / wants[:, axis])[:, None] for axis in (0, 1))
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
    moved = F.grid_sample(embedding, 2 * grid - 1, mode="bilinear", padding_mode="border", align_corners=False)
    return moved * content_mask(wants, side)[:, None]
