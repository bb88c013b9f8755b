"""`train`, `distill` and `embed` on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from compress.options import Between
from compress.training.config import RunOptions, TrainConfig, batch_shares
from compress.training.options import (
    DEFAULT_DATA,
    default_workers,
    training_config,
    validation_of,
    with_prompting,
    with_run_options,
    with_settings,
    with_workers,
)

if TYPE_CHECKING:
    from compress.training.task import Task
    from zoo.data.prompting import PromptedImages

#: What `distill` takes over from the teacher, and never trains.
KEPT_OF_TEACHER = {"prompt_encoder", "points_and_boxes", "mask_decoder"}


def _begin(
    settings: Mapping[str, Any], devices: int | None, wandb: str | None, find_lr: int | None
) -> tuple[TrainConfig, int]:
    """The settings of a run and how many processes it has, checked before anything is opened.

    Raises:
        UsageError: a tracker for a search for a learning rate.
        InputError: a batch that cannot be shared out evenly, or as `training_config` and `process_count`.
    """
    from compress.training.processes import process_count

    if find_lr and wandb:
        raise click.UsageError("--wandb: --find-lr makes no run to tell of")
    config, processes = training_config(settings), process_count(devices)
    batch_shares(config, processes)
    return config, processes


def _carry_out(
    task: Task,
    images: PromptedImages,
    config: TrainConfig,
    run_options: RunOptions,
    origin: dict[str, Any],
    find_lr: int | None,
) -> None:
    """Trains, or searches for a learning rate, and prints what came out as JSON."""
    from compress.training.run import run_search, run_training

    if find_lr:
        click.echo(json.dumps(run_search(task, images, config, find_lr, run_options)))
        return
    progress = run_training(task, images, config, run_options, origin)
    click.echo(json.dumps({"step": progress.step, "best_dsc": progress.best, "best_step": progress.best_step}))


@click.command()
@click.option("--encoder", default="light_repvit_m0_9", show_default=True, metavar="NAME", help="Encoder, see `list`.")
@click.option(
    "--weights",
    default="random:0",
    show_default=True,
    metavar="WEIGHTS",
    help="What to begin with: checkpoint, card, or random:SEED.",
)
@with_run_options
@with_prompting
@with_settings
def train(
    encoder: str,
    weights: str,
    data: tuple[str, ...],
    validation: tuple[str, ...],
    validation_count: int,
    devices: int | None,
    wandb: str | None,
    find_lr: int | None,
    out: Path,
    **settings: Any,
) -> None:
    """Train a model to answer box prompts.

    By default on synthetic images, which need no files. The folder holds last.pth, to go on from; best.safetensors, the
    averaged weights that validated best; predictions.png; log.jsonl; and TensorBoard's files. Ctrl-C and SIGTERM finish
    the step and save; not even kill -9 loses what was saved before: the same command goes on.

    \b
    Examples:
      repmedsam train --encoder light_repvit_m0_9 --size 64 --loss boxed --steps 2000 -o runs/small
      repmedsam train --encoder repvit --weights rep_medsam --data train_npz/ --validation val_npz/ -o runs/tuned
      repmedsam train --encoder repvit --weights rep_medsam --data train_npz/ --find-lr -o runs/tuned
      torchrun --no-python --nproc-per-node 2 repmedsam train --encoder tinyvit -o runs/two
    """
    from compress.build import unfolded_sam
    from compress.training.finetune import Finetuning, training_geometry
    from compress.training.run import training_seed
    from zoo.data.dataset import open_source
    from zoo.data.prompting import PromptedImages

    config, processes = _begin(settings, devices, wandb, find_lr)
    validation = validation_of(validation, data, find_lr)
    run_options = RunOptions(validation, validation_count, processes, out, wandb)
    sam = unfolded_sam(encoder, weights)
    prompting, side = training_geometry(sam, config)
    assert sam.weights is not None
    data = data or DEFAULT_DATA
    origin = {"weights": sam.weights.name, "weights_sha256": sam.weights.sha256, "data": list(data)}
    images = PromptedImages(open_source(data, prompting.spec.image_size, training_seed(config)), prompting)
    sam.spec = replace(sam.spec, mask_prompts=sam.spec.mask_prompts or config.masks > 0)
    task = Finetuning(sam, config.loss, side, config.own_boxes, config.clicks, config.masks)
    _carry_out(task, images, config, run_options, origin, find_lr)


@click.command()
@click.option("--student", default="light_repvit_m0_9", show_default=True, metavar="NAME", help="Encoder that learns.")
@click.option(
    "--weights", default="random:0", show_default=True, metavar="WEIGHTS", help="What the student begins with."
)
@click.option("--teacher", default="vit_b", show_default=True, metavar="NAME", help="Encoder that is learned from.")
@click.option("--teacher-weights", metavar="WEIGHTS", required=True, help="The teacher's checkpoint or card.")
@click.option(
    "--distance",
    type=click.Choice(["mse", "cosine", "both"]),
    default="mse",
    show_default=True,
    help="Between the two embeddings.",
)
@click.option(
    "--mask-weight",
    type=Between(min=0),
    default=0.0,
    show_default=True,
    help="Weight of the difference between the masks that the frozen decoder makes of the two embeddings.",
)
@click.option(
    "--mask-rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Of prompting for --mask-weight: each after the first adds a click where the masks differ, as EdgeSAM does.",
)
@click.option(
    "--embeddings",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="This teacher's embeddings, with their images instead of --data: a folder that `embed` wrote, or one with "
    "imgs/, gts/ and embeddings/ (npy).",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Learn through the rounding of int8, for `quantize`: what comes out is folded, in float.",
)
@with_run_options
@with_settings
def distill(
    student: str,
    weights: str,
    teacher: str,
    teacher_weights: str,
    distance: str,
    mask_weight: float,
    mask_rounds: int,
    embeddings: Path | None,
    int8: bool,
    data: tuple[str, ...],
    validation: tuple[str, ...],
    validation_count: int,
    devices: int | None,
    wandb: str | None,
    find_lr: int | None,
    out: Path,
    **settings: Any,
) -> None:
    """Teach a small encoder the embeddings of a large one.

    The student takes over the teacher's prompt encoder and mask decoder, so that what comes out is a whole model;
    `train --weights OUT/best.safetensors` tunes it further; after --int8 it is folded, for `quantize`, `bench` and
    `segment` alone. Input sizes and frames may differ. The folder is that of `train`, and goes on in the same way.

    \b
    Examples:
      repmedsam distill --student repvit --teacher light_repvit_m0_9 --teacher-weights light_repvit_m0_9 -o runs/repvit
      repmedsam distill --student light_repvit_m0_9 --teacher vit_b --teacher-weights medsam -o runs/light
      repmedsam distill --student repvit --weights my.pth --teacher repvit --teacher-weights my.pth --int8 -o runs/int8
    """
    from compress.build import unfolded_sam
    from compress.training.distill import Distillation
    from compress.training.finetune import training_geometry
    from compress.training.int8 import simulate_int8
    from compress.training.run import training_seed
    from compress.training.stored import StoredPairs, open_embeddings
    from zoo.data.dataset import open_source
    from zoo.data.prompting import PairedImages
    from zoo.errors import InputError

    if frozen := KEPT_OF_TEACHER.intersection(settings["freeze"]):
        raise click.UsageError(f"--freeze {min(frozen)}: distill trains nothing but the image encoder")
    source_of = click.get_current_context().get_parameter_source
    if not mask_weight and source_of("mask_rounds") is not ParameterSource.DEFAULT:
        raise click.UsageError("--mask-rounds: without --mask-weight no masks are compared")
    if embeddings and data:
        raise InputError("--data", f"{data[0]} beside --embeddings", "one of the two: embeddings come with images")
    data = data or DEFAULT_DATA
    config, processes = _begin(settings, devices, wandb, find_lr)
    sam, master = unfolded_sam(student, weights), unfolded_sam(teacher, teacher_weights)
    assert sam.weights is not None
    assert master.weights is not None
    if int8:
        sam.image_encoder = simulate_int8(sam.image_encoder, sam.spec.image_size)
    origin = {
        "weights_sha256": sam.weights.sha256,
        "teacher": master.spec.name,
        "teacher_weights": master.weights.name,
        "teacher_sha256": master.weights.sha256,
        "distance": distance,
        "mask_weight": mask_weight,
        **({"mask_rounds": mask_rounds} if mask_weight else {}),
        **({"int8": True} if int8 else {}),
        "data": list(data),
    }
    prompting, _ = training_geometry(sam, config)
    images: PromptedImages
    if embeddings:
        store = open_embeddings(embeddings)
        store.check_teacher(master)
        images = StoredPairs(store, replace(prompting, augment=False), master.spec)
        data = tuple(store.data)
        origin = {**origin, **store.origin}
    else:
        source = open_source(data, prompting.spec.image_size, training_seed(config))
        images = PairedImages(source, prompting, master.spec)
    validation = validation_of(validation, data, find_lr)
    variant = "reparam" if int8 else "train"
    run_options = RunOptions(validation, validation_count, processes, out, wandb, variant)
    task = Distillation(sam, master, distance, mask_weight, mask_rounds)
    _carry_out(task, images, config, run_options, origin, find_lr)


@click.command(short_help="Write a teacher's embeddings to disk.")
@click.option("--teacher", default="vit_b", show_default=True, metavar="NAME", help="Encoder, see `list`.")
@click.option("--teacher-weights", metavar="WEIGHTS", required=True, help="Its checkpoint or card.")
@click.option(
    "--data",
    multiple=True,
    default=["synthetic"],
    show_default=True,
    metavar="SOURCE",
    help="As in `train`, but each file once: beside files, synthetic images make up the rest of --count.",
)
@click.option("--count", default=1000, show_default=True, type=click.IntRange(min=1), help="Images at most.")
@click.option("--size", default=256, show_default=True, type=click.IntRange(min=64), help="Of synthetic images, in px.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the images and their order.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Images that the teacher sees together.  [default: 1; on a GPU 8]",
)
@with_workers
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the store."
)
def embed(
    teacher: str,
    teacher_weights: str,
    data: tuple[str, ...],
    count: int,
    size: int,
    seed: int,
    batch_size: int | None,
    workers: int | None,
    out: Path,
) -> None:
    """Write a teacher's embeddings to disk, for `distill --embeddings`.

    float16, 2 MiB an image, in files of 256; a run that was stopped goes on with the files that are missing. The store
    knows teacher, weights, preprocessing and images, and is refused with others.

    \b
    Example:
      repmedsam embed --teacher vit_b --teacher-weights medsam --data train_npz/ --count 20000 -o runs/embeddings
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from compress.build import unfolded_sam
    from compress.training.embed import write_store

    on_gpu = torch.cuda.is_available()
    master = unfolded_sam(teacher, teacher_weights).to("cuda" if on_gpu else "cpu")
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("embedding", total=count)
        card = write_store(
            master,
            data,
            size,
            2 * seed,
            count,
            out,
            batch_size=batch_size or (8 if on_gpu else 1),
            workers=default_workers() if workers is None else workers,
            told=lambda done, count: progress.update(task, completed=done, total=count),
        )
    only = f", all {card.count} images that there are" if card.count < count else ""
    click.echo(f"embeddings: {out}{only}")
