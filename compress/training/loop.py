"""The training loop: one for every task, resumable after any interruption, on one device or several."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset

from compress.training.batches import Waits, draw_parts, image_name, stream_batches
from compress.training.config import TrainConfig, learning_rate, time_used
from compress.training.losses import dice
from compress.training.optim import all_finite, copied, create_optimizer, freeze, update_average
from compress.training.pictures import save_predictions
from compress.training.processes import by_first, highest
from compress.training.state import BEST, LAST, LOG, Progress, alone_in, cut_log, load_state, save_best, save_state
from compress.training.step import NotFiniteError, take_step
from compress.training.task import Task
from zoo.data.prompting import PromptedImages
from zoo.errors import InputError, first_of
from zoo.files import writing

#: Settings that a resumed run may change.
FREE_SETTINGS = ("workers", "validate_every", "patience")

#: An error names no more images than this.
MOST_NAMED = 8

#: Called with what happened: kind (`begun`, when nothing can be refused any more, `step`, `validation`, `note`) and its
#: numbers or text.
Listener = Callable[[str, dict[str, Any]], None]
#: From the averaged task to scores; the first decides which weights are best.
Validation = Callable[[Task], dict[str, float]]


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
    task: Task,
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
        task: trained in place.
        dataset: samples by index; the run asks for 0, 1, 2, ...
        validate: scores of the averaged task, which the first process asks for; the first decides what is best.
        config: settings.
        out: folder of checkpoint, best weights and log.
        fabric: device, precision, processes; launched.
        listen: hears of the beginning and of every step and validation.
        origin: what the run started from (data, weights), for the record; must be the same to go on.
        variant: of the encoder's graph, for the record: `train`, or `reparam` where it is folded.

    Raises:
        InputError: another process that trains in `out`, a checkpoint of another run, a batch that cannot be shared
            out, an image that cannot be used, the death of a process that makes data or a loss that is not finite (the
            steps before are saved, whichever process it was, unless their weights are not finite), or no room to
            write. Of any other error of a step, the steps before are saved, too, if it has not begun to update the
            weights.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the step is done and saved.
    """
    identity = {
        "encoder": task.sam.spec.name,
        **{key: value for key, value in _plain(asdict(config)).items() if key not in FREE_SETTINGS},
        **_plain(dict(origin or {})),
    }
    with ExitStack() as held:
        by_first(fabric, lambda: held.enter_context(alone_in(out)))
        run = _Run(task, dataset, config, out, fabric, listen, identity, variant)
        stream = held.enter_context(stream_batches(dataset, config, run.progress.step, fabric))
        stop = held.enter_context(Stop())
        run.begin()
        while True:
            if run.is_due():
                run.validate(validate)
            if not run.goes_on():
                break
            if highest(fabric, stop.asked):
                run.save()
                listen("note", {"text": f"stopped at step {run.progress.step}; the same command goes on from there"})
                raise KeyboardInterrupt
            run.step(stream)
    listen("note", {"text": run.why_it_ended()})
    return run.progress


class _Run:
    """A run between its steps: what is trained, its average, how far it is, and the folder that keeps it.

    Args:
        identity: what must be the same to go on.

    For the others see `fit`.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset[dict[str, Tensor]],
        config: TrainConfig,
        out: Path,
        fabric: Fabric,
        listen: Listener,
        identity: dict[str, Any],
        variant: str,
    ) -> None:
        self.sam, self.config, self.out, self.fabric, self.listen = task.sam, config, out, fabric, listen
        self.dataset, self.identity, self.variant = dataset, identity, variant
        freeze(self.sam, config.freeze)
        self.average = copied(task)
        self.average.requires_grad_(False).eval()
        optimizer = create_optimizer(task, config.optimizer, config.lr, config.weight_decay)
        self.model, self.optimizer = fabric.setup(task, optimizer)
        self.average.to(fabric.device)
        self.progress = Progress()
        # Only now, as the optimiser's state is loaded to where the weights are.
        if (out / LAST).exists():
            self.progress = load_state(out / LAST, self.average.sam, self.sam, self.optimizer, identity)
            listen("note", {"text": f"going on from step {self.progress.step} of {out / LAST}"})
        self.waits, self.used = Waits(config.workers), time_used(config, self.progress.trained_s)
        self.begun = time.monotonic() - self.progress.trained_s
        by_first(fabric, lambda: cut_log(out / LOG, self.progress))

    def begin(self) -> None:
        """Says that it does: nothing can be refused any more."""
        by_first(self.fabric, lambda: self.listen("begun", {"step": self.progress.step}))

    def goes_on(self) -> bool:
        """Whether no limit is reached."""
        stale = self.config.patience and self.progress.stale >= self.config.patience
        return self.progress.step < self.config.step_limit and self.used < 1 and not stale

    def is_due(self) -> bool:
        """Whether a validation is."""
        step = self.progress.step
        last = step == self.config.step_limit or self.used >= 1
        return self.progress.validated < step and (step % self.config.validate_every == 0 or last)

    def validate(self, scores_of: Validation) -> None:
        """Validates, and keeps the weights if they are the best so far."""
        self.save()  # the steps outlive a validation that fails, for which a resumed run begins with it
        # BatchNorm's statistics differ between processes: the first one's scores decide for all of them.
        scores: dict[str, float] = self.fabric.broadcast(by_first(self.fabric, lambda: scores_of(self.average)) or {})
        by_first(self.fabric, lambda: self._write_log("validation", scores))
        self.progress.validated = self.progress.step
        if self.progress.note_score(next(iter(scores.values())), self.config):
            training = {**self.identity, "step": self.progress.step, **scores}
            what = partial(save_best, self.out / BEST, self.average.sam, self.sam.spec, self.variant, training)
            by_first(self.fabric, what)
        self.save()

    def step(self, stream: Iterator[dict[str, Tensor]]) -> None:
        """One step on the next batch.

        Raises:
            InputError: as `fit`.
        """
        rate = learning_rate(self.config, self.progress.step, self.progress.plateau_factor, self.used)
        start, done = time.perf_counter(), self.progress.step
        try:
            parts = self._draw(stream)
            data_s = time.perf_counter() - start
            what = (self.model, self.sam, self.optimizer, parts, self.config, self.progress)
            numbers = take_step(self.fabric, *what, rate)
        except Exception as error:
            if self.progress.step == done:
                self._keep()
            if isinstance(error, NotFiniteError) and error.images:
                raise self._told(error) from error
            raise
        self.progress.trained_s = time.monotonic() - self.begun
        step_s = time.perf_counter() - start
        if self.config.minutes:
            self.used = highest(self.fabric, time_used(self.config, self.progress.trained_s))
        if self.config.ema_decay:
            update_average(self.average.sam, self.sam, self.config.ema_decay, self.progress.step)
        else:
            self.average.sam.load_state_dict(self.sam.state_dict())
        numbers |= {"data_s": data_s, "step_s": step_s, "trained_s": self.progress.trained_s}
        try:
            by_first(self.fabric, lambda: self._write_log("step", numbers))
        except Exception:
            # A log that cannot be written is no reason to lose the steps; on a full disk nothing can be saved either.
            # Whatever it is: other processes hear of the first one's failure as another error, and save, too.
            with suppress(Exception):
                self.save()
            raise
        if told := self.waits.after(data_s, step_s):
            self.listen("note", {"text": told})

    def _draw(self, stream: Iterator[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The batches of a step's parts."""
        parts, error = draw_parts(stream, self.config.accumulate)
        if highest(self.fabric, error is not None):
            raise error or InputError("--data", "what another process could not use", "see its own message")
        return parts

    def save(self) -> None:
        """Writes the checkpoint that a run goes on from."""
        by_first(self.fabric, self._write_state)

    def _keep(self) -> None:
        """Saves the steps before one that has failed, if there are any and their weights are finite.

        Asks no other process, as they may wait for this one elsewhere. Why the step has failed is told before why it
        cannot be saved.
        """
        if self.fabric.is_global_zero and self.progress.step:
            with suppress(Exception):
                if all_finite(self.sam) and all_finite(self.average.sam):
                    self._write_state()

    def _told(self, error: NotFiniteError) -> NotFiniteError:
        """An error with the names of its images, and the way on: the same command would meet the same numbers."""
        names = [image_name(self.dataset, image) for image in error.images[:MOST_NAMED]]
        last = self.out / LAST
        way_on = f"begin another --out with --weights {last} and" if last.exists() else "try"
        where = f"step {self.progress.step}, {first_of([*names, *error.images[MOST_NAMED:]], MOST_NAMED)}"
        return NotFiniteError(where, error.found, f"{error.expected}; {way_on} a lower --lr")

    def _write_state(self) -> None:
        save_state(self.out / LAST, self.average.sam, self.sam, self.optimizer, self.progress, self.identity)

    def _write_log(self, kind: str, numbers: dict[str, Any]) -> None:
        with writing(self.out / LOG), (self.out / LOG).open("a") as lines:
            lines.write(json.dumps({"kind": kind, "step": self.progress.step, **numbers}) + "\n")
        self.listen(kind, {"step": self.progress.step, **numbers})

    def why_it_ended(self) -> str:
        """Which limit the run has reached."""
        progress, config = self.progress, self.config
        if progress.step >= config.step_limit:
            left = f", in {progress.trained_s / 60:.1f} of {config.minutes:g} minutes" if config.minutes else ""
            return f"ended: all {config.steps} steps are done{left}"
        if self.used >= 1:
            of = f" of {config.steps}" if config.steps else ""
            return f"ended: {config.minutes:g} minutes are over, {progress.step}{of} steps are done"
        return f"stopped early: no gain in {progress.stale} validations"


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return dict(json.loads(json.dumps(settings)))


def validation_on(
    dataset: PromptedImages, indices: Sequence[int], batch_size: int, device: torch.device, picture: Path | None = None
) -> Validation:
    """Mean Dice of the objects of some images, prompted once and kept; the first of them are drawn into `picture`.

    Of each way in which the task prompts, boxes alone or with masks, it is the same random prompts every time.
    """
    samples = dataset.usable(indices)

    @torch.no_grad()
    def validate(task: Task) -> dict[str, float]:
        values: list[float] = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for start in range(0, len(samples), batch_size):
                part = samples[start : start + batch_size]
                batch = {key: torch.stack([one[key] for one in part]).to(device) for key in part[0]}
                answers, masks = list(task.answers(batch)), batch["masks"]
                values += [value for logits in answers for value in dice(logits, masks.flatten(0, 1)).tolist()]
                if picture and start == 0:
                    first = answers[0][:: masks.shape[1]]
                    save_predictions(picture, batch, first, dataset.prompting.spec.prompt_frame)
        return {"dsc": float(np.mean(values))}

    return validate
