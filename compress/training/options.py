"""Command-line options that `train` and `distill` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from compress.options import Between, options
from compress.training.config import FREEZABLE, TrainConfig
from zoo.cores import usable_cores
from zoo.errors import InputError

DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}


#: What is trained on where no `--data` are given.
DEFAULT_DATA = ("synthetic",)


def setting(name: str, help_text: str, **options: Any) -> Any:
    """A click option for a field of `TrainConfig`."""
    options.setdefault("default", DEFAULTS[name])
    flag = f"--{name.replace('_', '-')}"
    flags = f"{flag}/--no-{flag[2:]}" if isinstance(DEFAULTS[name], bool) else flag
    return click.option(flags, name, help=help_text, show_default=True, **options)


with_workers: Callable[[Any], Any] = setting(
    "workers",
    "Processes that make data, for each device.  [default: 1; for a GPU one core less than there are, at most 8]",
    default=None,
    type=click.IntRange(min=0),
)

with_settings = options(
    setting(
        "steps",
        "Updates of the weights.  [default: 1000; with --minutes, as many as there is time for]",
        default=None,
        type=click.IntRange(min=1),
    ),
    setting(
        "minutes",
        "Limit to the time; the schedule then ends with it. With --steps, whichever ends first.  [default: none]",
        default=None,
        type=Between(min=0),
    ),
    setting("batch_size", "Images per step, over all processes.", type=click.IntRange(min=1)),
    setting(
        "accumulate",
        "Parts that a step's images are computed in, to save memory. BatchNorm sees one part at a time.",
        type=click.IntRange(min=1),
    ),
    setting("objects", "Prompts per image.", type=click.IntRange(min=1)),
    setting("box_jitter_px", "How loose boxes may be, in a frame of 256 px.", type=Between(min=0)),
    setting(
        "walk_share",
        "Share of the boxes that are drawn as loosely as those that a volume's neighbouring slice gives.",
        type=Between(0, 1),
    ),
    setting("optimizer", "muon learns faster from nothing.", type=click.Choice(["adamw", "muon"])),
    setting("lr", "Highest learning rate.", type=Between(min=0, min_open=True)),
    setting("weight_decay", "Of matrices and kernels.", type=Between(min=0)),
    setting("warmup_steps", "Steps of rising learning rate; a tenth of the run at most.", type=click.IntRange(min=0)),
    setting("schedule", "Of the learning rate.", type=click.Choice(["cosine", "plateau", "constant"])),
    setting("clip_percentile", "Longer gradients than this percentile so far are cut to it.", type=Between(0, 100)),
    setting("ema_decay", "Of the averaged weights, which are kept; 0 for none.", type=Between(0, 1)),
    setting("precision", "Of the arithmetic.", type=click.Choice(["32-true", "bf16-mixed"])),
    setting("channels_last", "Memory layout of images."),
    setting(
        "freeze",
        "Part that is not trained; repeat for more. Of batch_norm, the statistics.",
        multiple=True,
        type=click.Choice(FREEZABLE),
    ),
    setting("validate_every", "Steps between validations, each with a checkpoint.", type=click.IntRange(min=1)),
    setting("patience", "Validations without gain until the run stops; 0 for never.", type=click.IntRange(min=0)),
    setting("seed", "Of all that is drawn.", type=click.IntRange(min=0)),
    with_workers,
)


def training_config(settings: Mapping[str, Any]) -> TrainConfig:
    """The settings of a run, from options of the command line.

    Args:
        settings: by name; None for `steps` is the default number, or no limit where there is one to the `minutes`; for
            `workers`, what keeps up with the device.
    """
    minutes = settings["minutes"] or 0
    steps = settings["steps"] or (0 if minutes else DEFAULTS["steps"])
    workers = default_workers() if settings["workers"] is None else settings["workers"]
    return TrainConfig(**{**settings, "steps": steps, "minutes": minutes, "workers": workers})


def default_workers() -> int:
    """What keeps up with the device; on a CPU more would take the cores from it."""
    import torch

    return max(1, min(8, usable_cores() - 1)) if torch.cuda.is_available() else TrainConfig.workers


def validation_of(validation: tuple[str, ...], trained_on: tuple[str, ...], find_lr: int | None) -> tuple[str, ...]:
    """What to validate on; a search for a learning rate validates on nothing.

    Raises:
        InputError: nothing is said, and training is on one's own images: synthetic ones do not tell what is best there.
    """
    if validation or find_lr or set(trained_on) <= set(DEFAULT_DATA):
        return validation or DEFAULT_DATA
    expected = "labelled images that are not trained on, or synthetic"
    raise InputError("--validation", f"none beside {trained_on[0]}", expected)


with_prompting = options(
    setting(
        "size",
        "Side of the input while training; convolutional encoders only.  [default: the encoder's]",
        type=click.IntRange(min=1),
    ),
    setting("loss", "How Dice, cross-entropy and IoU add up.", type=click.Choice(["squared_sum", "sum", "boxed"])),
    setting(
        "own_boxes",
        "Prompts per image that get the box of the model's own first mask, as the next slice of a volume does.",
        type=click.IntRange(min=0),
    ),
    setting(
        "clicks",
        "Prompts per image that get a click where the model's own first mask is wrong.",
        type=click.IntRange(min=0),
    ),
    setting(
        "masks",
        "Prompts per image that get a mask such as a volume's neighbouring slice has, and its box.",
        type=click.IntRange(min=0),
    ),
)

with_run_options = options(
    click.option(
        "--data",
        multiple=True,
        metavar="SOURCE",
        help="synthetic, a folder with imgs/ and gts/ (npy), or challenge npz; repeat to take turns.  "
        "[default: synthetic]",
    ),
    click.option(
        "--validation",
        multiple=True,
        metavar="SOURCE",
        help="As --data, and other images: their scores decide what is best.  [default: synthetic, of other seeds, "
        "where --data is]",
    ),
    click.option(
        "--validation-count",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="Images of a validation, which stay in memory: 1 MB each at 256 px, 13 MB at 1024.",
    ),
    click.option(
        "--devices",
        type=click.IntRange(min=1),
        help="Processes or GPUs.  [default: 1; under torchrun, its --nproc-per-node]",
    ),
    click.option(
        "--wandb",
        metavar="PROJECT",
        help="Tell Weights & Biases of the run, too (extra `wandb`; WANDB_MODE=offline works).",
    ),
    click.option(
        "--find-lr",
        type=click.IntRange(min=10),
        is_flag=False,
        flag_value=100,
        metavar="[STEPS]",
        help="Instead of training, search for --lr: raise it over STEPS steps (100) on a copy of the model.",
    ),
    click.option(
        "-o",
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        required=True,
        help="Folder of the run; an unfinished run in it is resumed.",
    ),
)
