"""Where a run's numbers and pictures go besides its folder's log: TensorBoard and, on request, Weights & Biases."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from zoo.errors import InputError
from zoo.files import whole_file, writing

#: Holds the id of the folder's run at Weights & Biases, which a resumed run goes on with.
WANDB_ID = "wandb-id.txt"


class Tracker(Protocol):
    """What hears of a run."""

    def write(self, kind: str, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, or of the validation after it."""
        ...

    def show(self, step: int, picture: Path) -> None:
        """The predictions of a validation, a PNG."""
        ...

    def close(self, failed: bool) -> None:
        """The end of the run, or of this part of it."""
        ...


class TensorBoard:
    """TensorBoard's files, in the run's folder.

    Args:
        folder: of the run.
        step: that the run goes on from; what an earlier part of it wrote of later ones is hidden.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
        with writing(folder):
            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, kind: str, step: int, numbers: Mapping[str, float]) -> None:
        """Adds scalars, `kind/name`."""
        for name, value in numbers.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)

    def show(self, step: int, picture: Path) -> None:
        """Adds the picture."""
        pixels = np.ascontiguousarray(np.asarray(cv2.imread(str(picture)))[..., ::-1])
        self.writer.add_image("predictions", pixels, step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Writes what is left."""
        self.writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases; with WANDB_MODE=offline in the environment, files that `wandb sync` sends later.

    Args:
        project: its project.
        folder: of the run; a run that goes on there goes on at Weights & Biases, too.
        settings: that are shown with the run.

    Raises:
        InputError: the package is not installed, nobody is logged in, or the service cannot be reached.
    """

    def __init__(self, project: str, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb", "no package wandb", "pip install 'rep-medsam[wandb]'") from error
        known = folder / WANDB_ID
        run_id = known.read_text().strip() if known.exists() else secrets.token_hex(4)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            self.run = wandb.init(
                project=project, dir=str(folder), name=folder.name, id=run_id, resume="allow", config=dict(settings)
            )
        except wandb.Error as error:
            expected = "`wandb login` before, or WANDB_MODE=offline in the environment"
            raise InputError("--wandb", f"no run could be begun ({error})", expected) from error
        self.image = wandb.Image
        with whole_file(known) as part:
            part.write_text(run_id + "\n")

    def write(self, kind: str, step: int, numbers: Mapping[str, float]) -> None:
        """Logs `kind/name`."""
        self.run.log({f"{kind}/{name}": value for name, value in numbers.items()}, step=step)

    def show(self, step: int, picture: Path) -> None:
        """Logs the picture."""
        self.run.log({"predictions": self.image(str(picture))}, step=step)

    def close(self, failed: bool) -> None:
        """Sends what is left, and whether the run went well."""
        self.run.finish(exit_code=int(failed))
