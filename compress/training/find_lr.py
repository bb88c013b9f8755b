"""A learning rate by trial: it rises from step to step, and where the loss falls fastest is the suggestion.

Source: L. N. Smith 2015, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3; there the
curve is read by eye, here by its steepest fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.table import Table
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.utils.data import Dataset

from compress.training.batches import stream_batches
from compress.training.config import TrainConfig
from compress.training.optim import copied, create_optimizer, freeze
from compress.training.state import Progress
from compress.training.step import NotFiniteError, take_step
from compress.training.task import Task
from zoo.files import whole_file

#: Ends of the ramp.
LOWEST_RATE, HIGHEST_RATE = 1e-6, 1.0
#: The ramp ends where the smoothed loss is so many times its lowest.
DIVERGED_FACTOR = 4.0
#: Standard deviation of the smoothing, as a share of the ramp, and in steps at least.
SMOOTHING_SHARE, LEAST_SMOOTHING = 0.04, 1.0
#: The smoothed loss must fall by so many standard deviations of a step's noise before a fall is believed.
NOISE_FACTOR = 1.5
#: Rows of the table.
MOST_ROWS = 16
PICTURE = "find_lr.png"


@dataclass(frozen=True)
class RateCurve:
    """The loss over a rising learning rate.

    Attributes:
        rates: of the steps that were made, rising.
        losses: of the same steps, each before its update.
        smooth: the same losses, smoothed.
        suggestion: the rate at which the loss falls fastest; None where it does not fall by more than its noise.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smooth: NDArray[np.float64]
    suggestion: float | None


def search_rate(
    task: Task,
    dataset: Dataset[dict[str, Tensor]],
    config: TrainConfig,
    steps: int,
    fabric: Fabric,
    told: Callable[[int], None] = lambda done: None,
) -> RateCurve:
    """Trains a copy of `task` with a learning rate that rises exponentially, until the loss has diverged.

    Args:
        task: as in `fit`; it stays as it is.
        dataset: samples by index.
        config: of the run that a rate is sought for; its `lr`, `steps` and schedule do not matter.
        steps: of the ramp from `LOWEST_RATE` to `HIGHEST_RATE`.
        fabric: one process, launched.
        told: hears how many steps are done.

    Raises:
        InputError: a batch that cannot be shared out, an image that cannot be read, or a first loss that is not finite.
    """
    copy = copied(task)
    freeze(copy.sam, config.freeze)
    model, optimizer = fabric.setup(copy, create_optimizer(copy, config.optimizer, LOWEST_RATE, config.weight_decay))
    rates, progress = np.geomspace(LOWEST_RATE, HIGHEST_RATE, steps), Progress()
    losses: list[float] = []
    sigma = max(LEAST_SMOOTHING, SMOOTHING_SHARE * steps)
    with stream_batches(dataset, replace(config, steps=steps), 0, fabric) as stream:
        for rate in rates:
            try:
                parts = [next(stream) for _ in range(config.accumulate)]
                numbers = take_step(fabric, model, copy.sam, optimizer, parts, config, progress, float(rate))
            except NotFiniteError:
                if not losses:
                    raise
                break
            losses.append(numbers["loss"])
            told(len(losses))
            smooth = smoothed(losses, sigma)
            if smooth[-1] > DIVERGED_FACTOR * smooth.min():
                break
    return read_curve(rates[: len(losses)], losses, sigma)


def smoothed(losses: Sequence[float], sigma: float) -> NDArray[np.float64]:
    """Losses averaged with their neighbours, by a Gaussian of `sigma` steps, which shifts nothing."""
    return np.asarray(gaussian_filter1d(np.asarray(losses, np.float64), sigma, mode="reflect"))


def read_curve(rates: NDArray[np.float64], losses: Sequence[float], sigma: float) -> RateCurve:
    """Finds the steepest fall, per factor of the rate, on the way to the lowest loss.

    Args:
        rates: (N,), rising.
        losses: (N,), of the steps at these rates.
        sigma: of the smoothing, in steps.
    """
    smooth = smoothed(losses, sigma)
    curve = RateCurve(rates, np.asarray(losses, np.float64), smooth, None)
    lowest = int(smooth.argmin())
    noise = float(np.std(curve.losses[: lowest + 1] - smooth[: lowest + 1]))
    if lowest == 0 or smooth[0] - smooth[lowest] <= NOISE_FACTOR * noise:
        return curve
    slopes = np.gradient(smooth[: lowest + 1], np.log(rates[: lowest + 1]))
    return replace(curve, suggestion=float(rates[slopes.argmin()]))


def rate_table(curve: RateCurve) -> Table:
    """Some of the curve's steps, evenly spread, and the suggested one."""
    shown = set(np.linspace(0, len(curve.rates) - 1, MOST_ROWS).round().astype(int).tolist())
    chosen = None if curve.suggestion is None else int(np.flatnonzero(curve.rates == curve.suggestion)[0])
    table = Table("learning rate", "loss", "smoothed", "", title="Loss over a rising learning rate")
    for row in sorted(shown | ({chosen} if chosen is not None else set())):
        mark = "falls fastest" if row == chosen else ""
        table.add_row(f"{curve.rates[row]:.1e}", f"{curve.losses[row]:.4f}", f"{curve.smooth[row]:.4f}", mark)
    return table


def save_curve(path: Path, curve: RateCurve) -> None:
    """Draws the curve as a PNG.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="0.75", linewidth=1, label="each step")
    axes.plot(curve.rates, curve.smooth, color="tab:blue", label="smoothed")
    if curve.suggestion is not None:
        label = f"falls fastest: {curve.suggestion:.1e}"
        axes.axvline(curve.suggestion, color="tab:red", linestyle="--", label=label)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend()
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)
