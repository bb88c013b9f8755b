"""The training loop: one for every task, resumable after any interruption, on one device or several."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from compress.training.batches import Waits, draw_parts, stream_batches
from compress.training.config import TrainConfig, learning_rate, time_used
from compress.training.losses import dice
from compress.training.optim import copied, create_optimizer, freeze, update_average
from compress.training.pictures import save_predictions
from compress.training.processes import by_first, highest
from compress.training.state import BEST, LAST, LOG, Progress, cut_log, load_state, save_best, save_state
from compress.training.step import take_step
from zoo.data.dataset import PromptedImages
from zoo.errors import InputError
from zoo.files import writing
from zoo.sam.model import Sam

#: A score must rise by this much to count as better.
LEAST_GAIN = 1e-4
#: Settings that a resumed run may change.
FREE_SETTINGS = ("workers", "validate_every", "patience")

#: Called with what happened: kind (`begun`, when nothing can be refused any more, `step`, `validation`, `note`) and its
#: numbers or text.
Listener = Callable[[str, dict[str, Any]], None]
#: From the averaged task to scores; the first decides which weights are best.
Validation = Callable[[nn.Module], dict[str, float]]


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
    variant: str = "train",
) -> Progress:
    """Trains what `config` does not freeze of `task` up to `config.steps` or `config.minutes`, from where the folder's
    checkpoint left off.

    Args:
        task: a module from a batch to `loss` and further numbers to be logged; parameters without gradient stay.
        sam: the model in it that is kept.
        dataset: samples by index; the run asks for 0, 1, 2, ...
        validate: scores of the averaged task, which the first process asks for; the first decides what is best.
        config: settings.
        out: folder of checkpoint, best weights and log.
        fabric: device, precision, processes; launched.
        listen: hears of the beginning and of every step and validation.
        origin: what the run started from (data, weights), for the record; must be the same to go on.
        variant: of the encoder's graph, for the record: `train`, or `reparam` where it is folded.

    Raises:
        InputError: a checkpoint of another run, a batch that cannot be shared out, an image that cannot be used or the
            death of a process that makes data (the steps before are saved, whichever process it was), a loss that is
            not finite (the last good checkpoint stays), or no room to write.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the step is done and saved.
    """
    identity = {
        "encoder": sam.spec.name,
        **{key: value for key, value in _plain(asdict(config)).items() if key not in FREE_SETTINGS},
        **_plain(dict(origin or {})),
    }
    freeze(sam, config.freeze)
    average, average_sam = copied(task, sam)
    average.requires_grad_(False).eval()
    optimizer: Any = create_optimizer(task, config.optimizer, config.lr, config.weight_decay)
    model, optimizer = fabric.setup(task, optimizer)
    average.to(fabric.device)
    progress = Progress()
    # Only now, as the optimiser's state is loaded to where the weights are.
    if (out / LAST).exists():
        progress = load_state(out / LAST, average_sam, sam, optimizer, identity)
        listen("note", {"text": f"going on from step {progress.step} of {out / LAST}"})
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    by_first(fabric, lambda: cut_log(out / LOG, progress))

    def save() -> None:
        by_first(fabric, lambda: save_state(out / LAST, average_sam, sam, optimizer, progress, identity))

    def write_log(kind: str, numbers: dict[str, Any]) -> None:
        with writing(out / LOG), (out / LOG).open("a") as lines:
            lines.write(json.dumps({"kind": kind, "step": progress.step, **numbers}) + "\n")
        listen(kind, {"step": progress.step, **numbers})

    def goes_on() -> bool:
        stale = config.patience and progress.stale >= config.patience
        return progress.step < config.step_limit and used < 1 and not stale

    def is_due() -> bool:
        last = progress.step == config.step_limit or used >= 1
        return progress.validated < progress.step and (progress.step % config.validate_every == 0 or last)

    stopped, waits = False, Waits(config.workers)
    begun, used = time.monotonic() - progress.trained_s, time_used(config, progress.trained_s)
    with stream_batches(dataset, config, progress.step, fabric) as stream, Stop() as stop:
        by_first(fabric, lambda: listen("begun", {"step": progress.step}))
        while True:
            if is_due():
                save()  # the steps outlive a validation that fails, for which a resumed run begins with it
                # BatchNorm's statistics differ between processes: the first one's scores decide for all of them.
                scores: dict[str, float] = fabric.broadcast(by_first(fabric, lambda: validate(average)) or {})
                by_first(fabric, partial(write_log, "validation", scores))
                progress.validated = progress.step
                if _is_better(progress, next(iter(scores.values())), config):
                    training = {**identity, "step": progress.step, **scores}
                    by_first(fabric, partial(save_best, out / BEST, average_sam, sam.spec, variant, training))
                save()
            if not goes_on() or (stopped := bool(highest(fabric, stop.asked))):
                break
            rate = learning_rate(config, progress.step, progress.plateau_factor, used)
            start = time.perf_counter()
            # All parts first, as computing one moves BatchNorm's statistics: if one cannot be had, nothing may change.
            parts, error = draw_parts(stream, config.accumulate)
            data_s = time.perf_counter() - start
            if highest(fabric, error is not None):
                if progress.step:
                    save()
                raise error or InputError("--data", "what another process could not use", "see its own message")
            numbers = take_step(fabric, model, sam, optimizer, parts, config, progress, rate)
            progress.trained_s = time.monotonic() - begun
            step_s = time.perf_counter() - start
            numbers |= {"data_s": data_s, "step_s": step_s, "trained_s": progress.trained_s}
            by_first(fabric, partial(write_log, "step", numbers))
            if told := waits.after(data_s, step_s):
                listen("note", {"text": told})
            if config.minutes:
                used = highest(fabric, time_used(config, progress.trained_s))
            if config.ema_decay:
                update_average(average_sam, sam, config.ema_decay, progress.step)
            else:
                average_sam.load_state_dict(sam.state_dict())
        if stopped:
            save()
            listen("note", {"text": f"stopped at step {progress.step}; the same command goes on from there"})
            raise KeyboardInterrupt
    listen("note", {"text": _why_it_ended(progress, config, used)})
    return progress


def _why_it_ended(progress: Progress, config: TrainConfig, used: float) -> str:
    """Which limit a run has reached."""
    if progress.step >= config.step_limit:
        left = f", in {progress.trained_s / 60:.1f} of {config.minutes:g} minutes" if config.minutes else ""
        return f"ended: all {config.steps} steps are done{left}"
    if used >= 1:
        of = f" of {config.steps}" if config.steps else ""
        return f"ended: {config.minutes:g} minutes are over, {progress.step}{of} steps are done"
    return f"stopped early: no gain in {progress.stale} validations"


def _is_better(progress: Progress, score: float, config: TrainConfig) -> bool:
    """Takes note of a validation's score."""
    if score > progress.best + LEAST_GAIN:
        progress.best, progress.best_step, progress.stale = score, progress.step, 0
        return True
    progress.stale += 1
    if config.schedule == "plateau":
        progress.plateau_factor /= 2
    return False


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return dict(json.loads(json.dumps(settings)))


def validation_on(
    dataset: PromptedImages, indices: Sequence[int], batch_size: int, device: torch.device, picture: Path | None = None
) -> Validation:
    """Mean Dice of the objects of some samples, drawn once and kept; the first of them are drawn into `picture`.

    Of each way in which the task prompts, boxes alone or with masks, it is the same random prompts every time.
    """
    samples = [dataset[i] for i in indices]

    @torch.no_grad()
    def validate(task: nn.Module) -> dict[str, float]:
        values: list[float] = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for start in range(0, len(samples), batch_size):
                part = samples[start : start + batch_size]
                batch = {key: torch.stack([one[key] for one in part]).to(device) for key in part[0]}
                answers, masks = list(task.answers(batch)), batch["masks"]  # type: ignore[operator]
                values += [value for logits in answers for value in dice(logits, masks.flatten(0, 1)).tolist()]
                if picture and start == 0:
                    first = answers[0][:: masks.shape[1]]
                    save_predictions(picture, batch, first, dataset.prompting.spec.prompt_frame)
        return {"dsc": float(np.mean(values))}

    return validate
