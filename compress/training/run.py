"""A training run as users start it: data, device, progress, trackers, pictures; or the search for its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from compress.training import find_lr
from compress.training.config import RunOptions, TrainConfig, time_used
from compress.training.loop import fit, validation_on
from compress.training.processes import by_first, launch
from compress.training.state import Progress
from compress.training.task import Task
from compress.training.trackers import TensorBoard, Tracker, WeightsAndBiases
from zoo.data.dataset import indices_once, names_digest, open_source
from zoo.data.prompting import PromptedImages
from zoo.errors import InputError
from zoo.files import check_folder

VALIDATION_BATCH = 8
PICTURE = "predictions.png"


def run_training(
    task: Task, train_set: PromptedImages, config: TrainConfig, options: RunOptions, origin: Mapping[str, Any]
) -> Progress:
    """Trains `task` on one device or several, and tells of it.

    Raises:
        InputError: as `fit`, `open_source` and `WeightsAndBiases`.
    """
    prompting = train_set.prompting
    size = prompting.spec.image_size
    unseen = open_source(options.validation, size, validation_seed(config))
    # Scores of other images would be compared with the best so far, and others be trained on in another order.
    origin = {
        **origin,
        "data_files": names_digest(train_set.source),
        "validation": list(options.validation),
        "validation_files": names_digest(unseen),
        "validation_count": options.validation_count,
    }
    held_out = PromptedImages(unseen, replace(prompting, augment=False))
    fabric = launch(config, options.devices)
    picture = options.out / PICTURE
    settings = {"encoder": task.sam.spec.name, **asdict(config), **origin}
    trackers = partial(_trackers, options, settings) if fabric.is_global_zero else _no_trackers
    with _Teller(config, trackers, picture, quiet=not fabric.is_global_zero) as teller:
        together = min(VALIDATION_BATCH, config.batch_size // config.accumulate)  # what a run has room for
        validated = indices_once(unseen, options.validation_count)
        draw = partial(validation_on, held_out, validated, together, fabric.device, picture)
        validate = by_first(fabric, draw) or _no_scores
        out, variant = options.out, options.variant
        return fit(task, train_set, validate, config, out, fabric, teller.listen, origin, variant)


def run_search(
    task: Task, train_set: PromptedImages, config: TrainConfig, steps: int, options: RunOptions
) -> dict[str, Any]:
    """Searches for a learning rate and shows the curve; nothing of the run is changed.

    Returns:
        lr: the suggestion, or None. picture: where the curve is drawn.

    Raises:
        InputError: more than one device, or as `find_lr.search_rate`.
    """
    if options.devices != 1:
        raise InputError("--find-lr", f"--devices {options.devices}", "one, with the same --batch-size")
    check_folder(options.out)
    console, picture = Console(stderr=True), options.out / find_lr.PICTURE
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        shown = bar.add_task("learning rate", total=steps)
        curve = find_lr.search_rate(
            task, train_set, config, steps, launch(config, 1), lambda done: bar.update(shown, completed=done)
        )
    console.print(find_lr.rate_table(curve))
    if curve.suggestion is None:
        console.print("The loss does not fall by more than its noise: try more steps, or a larger --batch-size.")
    find_lr.save_curve(picture, curve)
    return {"lr": curve.suggestion, "picture": str(picture)}


def training_seed(config: TrainConfig) -> int:
    """Of the images to train on: even, so that hardly one is ever validated on.

    With `seed` 0, a synthetic image whose first drawing shows no object is drawn again as the one of its index that is
    validated on: at 64 px 2 of the first 64, at 256 px none. Another seed there would change the scores of runs.
    """
    return 2 * config.seed


def validation_seed(config: TrainConfig) -> int:
    """Of the images to validate on: odd."""
    return 2 * config.seed + 1


def _trackers(options: RunOptions, settings: Mapping[str, Any], step: int) -> list[Tracker]:
    """Of a run that goes on from a step."""
    asked = [WeightsAndBiases(options.wandb, options.out, settings)] if options.wandb else []
    return [*asked, TensorBoard(options.out, step)]


def _no_scores(task: Task) -> dict[str, float]:
    """Of a process that does not validate."""
    return {}


def _no_trackers(step: int) -> list[Tracker]:
    """Of a process beside the one that tells."""
    return []


class _Teller:
    """Shows progress on the terminal, and tells the trackers, which open when the run has begun."""

    def __init__(
        self, config: TrainConfig, open_trackers: Callable[[int], list[Tracker]], picture: Path, quiet: bool
    ) -> None:
        self.config, self.open_trackers, self.picture = config, open_trackers, picture
        self.trackers: list[Tracker] = []
        self.console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, disable=quiet)

    def __enter__(self) -> _Teller:
        self.bar.start()
        self.task = self.bar.add_task("training", total=1)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.bar.stop()
        self._tell_trackers(lambda tracker: tracker.close(failed=kind is not None))

    def _tell_trackers(self, tell: Callable[[Tracker], None]) -> None:
        """One that fails, on a full disk say, hears of nothing more; the run goes on."""
        for tracker in self.trackers[:]:
            try:
                tell(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                with suppress(Exception):
                    tracker.close(failed=True)
                self.console.print(f"{type(tracker).__name__} is told no more: {error}", markup=False)

    def listen(self, kind: str, what: dict[str, Any]) -> None:
        """Hears of the beginning, a step, a validation or a note."""
        if kind == "begun":
            self.trackers = self.open_trackers(what["step"])
            return
        if kind == "note":
            self.console.print(what["text"])
            return
        step, numbers = what["step"], {name: value for name, value in what.items() if name != "step"}
        self._tell_trackers(lambda tracker: tracker.write(kind, step, numbers))
        if kind == "step":
            done = max(step / self.config.step_limit, time_used(self.config, what["trained_s"]))
            self.bar.update(self.task, completed=min(1, done), description=f"step {step}, loss {what['loss']:.3f}")
            return
        self.console.print(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        self._tell_trackers(lambda tracker: tracker.show(step, self.picture))
