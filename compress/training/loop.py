"""The training loop: one for every task, resumable after any interruption, on one device or several."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from compress.training.config import TrainConfig, learning_rate
from compress.training.losses import dice
from compress.training.optim import adamw, clip_gradients, freeze, keep_statistics, update_average
from compress.training.pictures import save_predictions
from compress.training.state import BEST, LAST, LOG, Progress, cut_log, load_state, save_best, save_state
from zoo.data.dataset import PromptedImages
from zoo.errors import InputError
from zoo.sam.model import Sam

#: A score must rise by this much to count as better.
LEAST_GAIN = 1e-4
#: Settings that a resumed run may change.
FREE_SETTINGS = ("workers", "validate_every", "patience", "accumulate")

#: Called with what happened: kind (`step`, `validation`, `note`) and its numbers or text.
Listener = Callable[[str, dict[str, Any]], None]
#: From the averaged task to scores; the first decides which weights are best.
Validation = Callable[[nn.Module], dict[str, float]]


class StepBatches:
    """For each part of each step, the indices of this process's share of its images.

    Args:
        config: of the run.
        first_step: where to go on.
        rank: of this process.
        world: how many there are.

    Raises:
        InputError: a batch that cannot be shared out evenly.
    """

    def __init__(self, config: TrainConfig, first_step: int, rank: int = 0, world: int = 1) -> None:
        shares = config.accumulate * world
        if config.batch_size % shares:
            raise InputError("--batch-size", str(config.batch_size), f"a multiple of {shares} (parts times processes)")
        self.config, self.first_step, self.rank, self.shares = config, first_step, rank, shares
        self.world = world

    def __iter__(self) -> Iterator[list[int]]:
        """Indices, part by part."""
        size = self.config.batch_size
        for step in range(self.first_step, self.config.steps):
            whole = range(step * size, (step + 1) * size)
            for part in range(self.config.accumulate):
                yield list(whole[part * self.world + self.rank :: self.shares])


class Stop:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that a step is finished and saved; a second one interrupts."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    """A terminal sends Ctrl-C to all processes; those that make data must live until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fit(
    task: nn.Module,
    sam: Sam,
    dataset: Dataset[dict[str, Tensor]],
    validate: Validation,
    config: TrainConfig,
    out: Path,
    fabric: Fabric,
    listen: Listener = lambda kind, what: None,
    origin: Mapping[str, Any] | None = None,
) -> Progress:
    """Trains what `config` does not freeze of `task` up to `config.steps`, from where the folder's checkpoint left off.

    Args:
        task: a module from a batch to `loss` and further numbers to be logged; parameters without gradient stay.
        sam: the model in it that is kept.
        dataset: samples by index; the run asks for 0, 1, 2, ...
        validate: scores of the averaged task; the first decides what is best.
        config: settings.
        out: folder of checkpoint, best weights and log.
        fabric: device, precision, processes; launched.
        listen: hears of every step and validation.
        origin: what the run started from (data, weights), for the record; must be the same to go on.

    Raises:
        InputError: a checkpoint of another run, a batch that cannot be shared out, a loss that is not finite (the last
            good checkpoint stays), or no room to write.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the step is done and saved.
    """
    identity = {
        "encoder": sam.spec.name,
        **{key: value for key, value in _plain(asdict(config)).items() if key not in FREE_SETTINGS},
        **_plain(dict(origin or {})),
    }
    freeze(sam, config.freeze)
    average = deepcopy(task)
    average.requires_grad_(False).eval()
    average_sam = average.get_submodule(_path_of(task, sam))
    optimizer: Any = adamw(task, config.lr, config.weight_decay)
    progress = Progress()
    if (out / LAST).exists():
        progress = load_state(out / LAST, average_sam, sam, optimizer, identity)
        listen("note", {"text": f"going on from step {progress.step} of {out / LAST}"})
    out.mkdir(parents=True, exist_ok=True)
    if fabric.is_global_zero:
        cut_log(out / LOG, progress.step)
    model, optimizer = fabric.setup(task, optimizer)
    average.to(fabric.device)

    def save() -> None:
        if fabric.is_global_zero:
            save_state(out / LAST, average_sam, sam, optimizer, progress, identity)
        fabric.barrier()

    def log(kind: str, numbers: dict[str, Any]) -> None:
        if fabric.is_global_zero:
            with (out / LOG).open("a") as stream:
                stream.write(json.dumps({"kind": kind, "step": progress.step, **numbers}) + "\n")
            listen(kind, {"step": progress.step, **numbers})

    batches = StepBatches(config, progress.step, fabric.global_rank, fabric.world_size)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        worker_init_fn=_leave_ctrl_c_to_the_parent,
    )
    stream = iter(loader)
    with Stop() as stop:
        while progress.step < config.steps and not stop.asked:
            log("step", _step(fabric, model, sam, optimizer, stream, config, progress))
            if config.ema_decay:
                update_average(average_sam, sam, config.ema_decay, progress.step)
            else:
                average_sam.load_state_dict(sam.state_dict())
            if progress.step % config.validate_every == 0 or progress.step == config.steps:
                scores = validate(average)
                log("validation", scores)
                if _is_better(progress, next(iter(scores.values())), config) and fabric.is_global_zero:
                    training = {**identity, "step": progress.step, **scores}
                    save_best(out / BEST, average_sam, sam.spec, training)
                save()
                if config.patience and progress.stale >= config.patience:
                    listen("note", {"text": f"stopped early: no gain in {progress.stale} validations"})
                    break
        if stop.asked:
            save()
            listen("note", {"text": f"stopped at step {progress.step}; the same command goes on from there"})
            raise KeyboardInterrupt
    return progress


def _step(
    fabric: Fabric,
    model: Any,
    sam: Sam,
    optimizer: Any,
    stream: Iterator[dict[str, Tensor]],
    config: TrainConfig,
    progress: Progress,
) -> dict[str, float]:
    """One update of the weights; its numbers, means over its parts and over this process's share."""
    start = time.perf_counter()
    # Dropout and its like draw from torch's generator, which a resumed run finds as it would have been.
    torch.manual_seed(config.seed * 1_000_003 + progress.step)
    model.train()
    if "batch_norm" in config.freeze:
        keep_statistics(sam)
    rate = learning_rate(config, progress.step, progress.plateau_factor)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    sums: dict[str, float] = {}
    for part in range(config.accumulate):
        batch = fabric.to_device(next(stream))
        if config.channels_last:
            batch = {**batch, "image": batch["image"].contiguous(memory_format=torch.channels_last)}
        with fabric.no_backward_sync(model, enabled=part + 1 < config.accumulate):
            numbers = model(batch)
            _check_finite(numbers["loss"], batch, progress.step)
            fabric.backward(numbers["loss"] / config.accumulate)
        for name, value in numbers.items():
            sums[name] = sums.get(name, 0) + float(value.detach()) / config.accumulate
    norm = clip_gradients(model.parameters(), progress.norms, config.clip_percentile)
    if not np.isfinite(norm):
        raise InputError(_told(batch, progress.step), f"a gradient of norm {norm}", "finite ones; try a lower --lr")
    optimizer.step()
    progress.step += 1
    return {**sums, "lr": rate, "gradient_norm": norm, "step_s": time.perf_counter() - start}


def _check_finite(loss: Tensor, batch: Mapping[str, Tensor], step: int) -> None:
    if not torch.isfinite(loss):
        raise InputError(_told(batch, step), f"a loss of {float(loss.detach())}", "a finite one; try a lower --lr")


def _told(batch: Mapping[str, Tensor], step: int) -> str:
    """Which images a step saw."""
    return f"step {step}, images {', '.join(str(int(i)) for i in batch['index'])}"


def _is_better(progress: Progress, score: float, config: TrainConfig) -> bool:
    """Takes note of a validation's score."""
    if score > progress.best + LEAST_GAIN:
        progress.best, progress.best_step, progress.stale = score, progress.step, 0
        return True
    progress.stale += 1
    if config.schedule == "plateau":
        progress.plateau_factor /= 2
    return False


def _path_of(root: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in root.named_modules() if module is part)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return dict(json.loads(json.dumps(settings)))


def validation_on(
    dataset: PromptedImages, indices: Sequence[int], batch_size: int, device: torch.device, picture: Path | None = None
) -> Validation:
    """Mean Dice of the objects of some samples, drawn once and kept; the first of them are drawn into `picture`."""
    samples = [dataset[i] for i in indices]

    @torch.no_grad()
    def validate(task: nn.Module) -> dict[str, float]:
        values: list[float] = []
        for start in range(0, len(samples), batch_size):
            part = samples[start : start + batch_size]
            batch = {key: torch.stack([one[key] for one in part]).to(device) for key in part[0]}
            logits, masks = task.predict(batch["image"], batch["boxes"])[0], batch["masks"]  # type: ignore[operator]
            values += dice(logits, masks.flatten(0, 1)).tolist()
            if picture and start == 0:
                first = logits[:: masks.shape[1]]
                save_predictions(picture, batch, first, dataset.prompting.spec.prompt_frame)
        return {"dsc": float(np.mean(values))}

    return validate
