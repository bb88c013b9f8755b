"""Settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import InputError

#: Parts of a model that need not be trained. `points_and_boxes` is what the prompt encoder does without masks.
FREEZABLE = ("image_encoder", "prompt_encoder", "points_and_boxes", "mask_decoder", "batch_norm")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; without `minutes`, the same settings and seed give the same weights on one machine's CPU.

    Raises:
        InputError: neither `steps` nor `minutes` limits the run; more prompts looked at twice than there are.

    Attributes:
        steps: updates of the weights; 0 for no limit but that of `minutes`.
        minutes: after which training ends if `steps` are not done; the schedule ends with them, too. 0 for no limit.
        batch_size: images a step, over all processes and accumulated parts.
        accumulate: parts that a step's images are computed in, to save memory.
        objects: prompts an image.
        size: side of the input in pixels while training; None is the encoder's own.
        box_jitter_px: looseness of the boxes, in a frame of 256 px.
        walk_share: of the boxes, that fit as badly as those from a volume's neighbouring slice.
        own_boxes: of an image's prompts, that are given the box of the model's own first mask, as in a volume.
        clicks: of an image's prompts, that are given a click where the model's own first mask is wrong.
        masks: of an image's prompts, that are given a mask, such as a volume's neighbouring slice has, and its box.
        loss: one of `LOSSES`.
        optimizer: `adamw`; or `muon`, which learns faster from nothing.
        lr: highest learning rate.
        weight_decay: of weights with more than one dimension.
        warmup_steps: over which the learning rate rises from 0; a tenth of the run at most.
        schedule: `cosine` falls to a hundredth; `plateau` halves when validation stops improving; or `constant`.
        clip_percentile: gradients longer than this percentile of those so far are shortened to it.
        ema_decay: of the averaged weights, which are those that are validated and kept; 0 for none.
        precision: of the arithmetic.
        channels_last: memory layout of images.
        freeze: parts that are not trained, of `FREEZABLE`.
        validate_every: steps between validations.
        patience: validations without improvement until the run stops; 0 for never.
        seed: of all that is drawn.
        workers: processes that make data.
    """

    steps: int = 1000
    minutes: float = 0
    batch_size: int = 16
    accumulate: int = 1
    objects: int = 4
    size: int | None = None
    box_jitter_px: float = 5
    walk_share: float = 0
    own_boxes: int = 0
    clicks: int = 0
    masks: int = 0
    loss: str = "squared_sum"
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 6e-4
    weight_decay: float = 0.01
    warmup_steps: int = 100
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    clip_percentile: float = 90
    ema_decay: float = 0.999
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    freeze: tuple[str, ...] = ()
    validate_every: int = 250
    patience: int = 0
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not (self.steps or self.minutes):
            raise InputError("--steps", "no limit of steps nor of time", "--steps, --minutes or both")
        if self.own_boxes + self.clicks + self.masks > self.objects:
            found = f"{self.own_boxes}, --clicks {self.clicks}, --masks {self.masks} of {self.objects} prompts an image"
            raise InputError("--own-boxes", found, "no more together than --objects")

    @property
    def step_limit(self) -> float:
        """`steps`, infinite where time alone limits the run."""
        return self.steps or math.inf


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is carried out.

    Attributes:
        validation: sources of the images to validate on, as `open_source` takes them.
        validation_count: how many of them.
        devices: processes or GPUs.
        out: folder of the run.
        wandb: project at Weights & Biases that hears of the run; None for none.
        variant: of the encoder's graph that is trained: `train`, or `reparam` where it is folded.
    """

    validation: tuple[str, ...]
    validation_count: int
    devices: int
    out: Path
    wandb: str | None = None
    variant: str = "train"


def batch_shares(config: TrainConfig, processes: int) -> int:
    """In how many shares the images of a step are computed, over all processes.

    Raises:
        InputError: a batch that cannot be shared out evenly.
    """
    shares = config.accumulate * processes
    if config.batch_size % shares:
        raise InputError("--batch-size", str(config.batch_size), f"a multiple of {shares} (parts times processes)")
    return shares


#: The cosine schedule ends at this share of the highest learning rate.
FINAL_SHARE = 0.01
#: The learning rate has risen after this share of a run's steps or time at the latest.
WARMUP_SHARE = 0.1


def time_used(config: TrainConfig, trained_s: float) -> float:
    """Share of `minutes` that training has taken; 0 where there is no limit."""
    return trained_s / (60 * config.minutes) if config.minutes else 0.0


def learning_rate(config: TrainConfig, step: int, plateau_factor: float = 1, used: float = 0) -> float:
    """The learning rate of a step: as `schedule` says, by steps or the share of time `used`, times a linear rise.

    The rise ends with `warmup_steps`, or a tenth of the run if that is over before.
    """
    warmup = int(min(config.warmup_steps, WARMUP_SHARE * config.step_limit))
    rise = min(1, max((step + 1) / warmup, used / WARMUP_SHARE)) if warmup else 1
    if config.schedule == "cosine":
        progress = min(1, max(used, (step - warmup) / (config.step_limit - warmup)))
        return config.lr * rise * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * progress)) / 2)
    return config.lr * rise * (plateau_factor if config.schedule == "plateau" else 1)
