"""What a run keeps on disk: everything to go on from, the best weights, and a log of every step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any

import portalocker
import torch
from torch import nn

from compress.training.config import TrainConfig
from zoo.errors import InputError
from zoo.files import remove_parts, whole_file, writing
from zoo.registry import EncoderSpec
from zoo.sam.model import Sam
from zoo.weights.convert import SAVE_FAILURES, write_state_dict

LAST, BEST, LOG, LOCK = "last.pth", "best.safetensors", "log.jsonl", "train.lock"
#: A score must rise by this much to count as better.
LEAST_GAIN = 1e-4
#: What checkpoints of before do not tell of; it is taken to be the same.
TOLD_LATER = ("embeddings_size", "embeddings_seed")


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: updates that were made.
        norms: gradient norms of the last steps, for clipping.
        best: highest validation score.
        best_step: when it was reached.
        stale: validations since.
        validated: step of the last validation.
        plateau_factor: what the learning rate is multiplied by under the `plateau` schedule.
        trained_s: time in the loop.
    """

    step: int = 0
    norms: list[float] = field(default_factory=list)
    best: float = -1
    best_step: int = 0
    stale: int = 0
    validated: int = 0
    plateau_factor: float = 1
    trained_s: float = 0

    def note_score(self, score: float, config: TrainConfig) -> bool:
        """Takes note of a validation's score; whether it is the best so far."""
        if score > self.best + LEAST_GAIN:
            self.best, self.best_step, self.stale = score, self.step, 0
            return True
        self.stale += 1
        if config.schedule == "plateau":
            self.plateau_factor /= 2
        return False


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made if it is not there, until the block or this process ends.

    What killed runs have left there in part is removed.

    Raises:
        InputError: another process trains there, or no room or no right to write or to lock.
    """
    path = out / LOCK
    with ExitStack() as held:
        with writing(path, (OSError, portalocker.LockException)):
            out.mkdir(parents=True, exist_ok=True)
            lock = portalocker.Lock(path, flags=portalocker.LOCK_EX | portalocker.LOCK_NB, timeout=0)
            try:
                file = held.enter_context(lock)
            except portalocker.AlreadyLocked as error:
                expected = "another --out, or the end of that one"
                raise InputError(out, "another process that trains here", expected) from error
        # Processes that make data would go on holding it for seconds after a kill -9 of this one.
        register_after_fork(file, lambda copy: copy.close())
        remove_parts(out)
        yield


def save_state(
    path: Path,
    average: nn.Module,
    model: Sam,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: dict[str, Any],
) -> None:
    """Writes a checkpoint whole or not at all; its `model` holds the averaged weights, so that any tool reads those.

    Args:
        path: of the checkpoint.
        average: the averaged model.
        model: the model as it is trained.
        optimizer: of the model.
        progress: of the run.
        identity: what must be the same to go on: encoder, settings.
    """
    state = {
        "model": average.state_dict(),
        "trained": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "identity": json.dumps(identity, sort_keys=True),
        "encoder": identity["encoder"],
        "spec": json.dumps(asdict(model.spec)),
    }
    with whole_file(path, SAVE_FAILURES) as part:
        torch.save(state, part)


def load_state(
    path: Path, average: nn.Module, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> Progress:
    """Brings everything back to where `save_state` left it.

    Raises:
        InputError: an unreadable checkpoint, or one of other settings; the message names what differs.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {key: identity[key] for key in TOLD_LATER if key in identity} | json.loads(state["identity"])
    except Exception as error:
        raise InputError(
            path, f"no checkpoint of a run ({type(error).__name__})", "one that this command wrote"
        ) from error
    if differing := sorted(key for key in identity.keys() | found.keys() if identity.get(key) != found.get(key)):
        told = ", ".join(f"{key} {found.get(key)!r} instead of {identity.get(key)!r}" for key in differing)
        raise InputError(path, f"a run with {told}", "the same settings to go on, or another --out")
    average.load_state_dict(state["model"])
    model.load_state_dict(state["trained"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**{"validated": state["progress"]["step"], **state["progress"]})


def save_best(path: Path, average: nn.Module, spec: EncoderSpec, variant: str, training: dict[str, Any]) -> None:
    """Writes the averaged weights as safetensors, with what they are and how they came about.

    Args:
        path: of the file.
        average: the averaged model.
        spec: of its encoder.
        variant: of its encoder's graph: `train`, or `reparam` where it is folded.
        training: settings, step and scores.
    """
    metadata = {
        "encoder": spec.name,
        "variant": variant,
        "part": "model",
        "spec": json.dumps(asdict(spec)),
        "training": json.dumps(training, sort_keys=True),
    }
    state = {key: value.detach().cpu().contiguous().clone() for key, value in average.state_dict().items()}
    with whole_file(path, SAVE_FAILURES) as part:
        write_state_dict(state, part, metadata, is_safetensors=True)


def cut_log(path: Path, progress: Progress) -> None:
    """Drops the log's lines of steps and validations that a resumed run will make again, and a torn last line."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if _is_done(line, progress)]
    with whole_file(path) as part:
        part.write_text("".join(kept))


def _is_done(line: str, progress: Progress) -> bool:
    """Whether a line of the log tells what the checkpoint holds."""
    try:
        told = json.loads(line)
        return bool(told["step"] <= (progress.validated if told["kind"] == "validation" else progress.step))
    except (ValueError, KeyError, TypeError):
        return False
