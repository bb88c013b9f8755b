"""Processes that make data: what befalls them is told in one line, and costs no step."""

from __future__ import annotations

import errno
import multiprocessing.util
import os
import pickle
import signal
from dataclasses import replace
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENCODER
from lightning_fabric import Fabric
from test_training import SMALL
from test_training_data import npy_folder
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from compress.training.batches import image_name, stream_batches
from compress.training.config import TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from compress.training.loop import fit
from compress.training.state import LAST
from zoo.data.dataset import SyntheticImages, open_source
from zoo.data.prompting import PromptedImages, Prompting
from zoo.errors import InputError
from zoo.registry import create_sam

CONFIG = replace(SMALL, workers=1, validate_every=100)


class Numbers(Dataset[dict[str, Tensor]]):
    """Index and maker of each sample; `signals` reach the maker before sample 2; 4 cannot be read, 6 not be made."""

    def __init__(self, *signals: int) -> None:
        self.signals = signals

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == 4:
            raise InputError("scan4.npy", "half a file", "a whole one")
        if index == 6:
            raise TypeError("no\n  number")
        for number in self.signals if index == 2 else ():
            os.kill(os.getpid(), number)
        return {"index": torch.tensor(index), "process": torch.tensor(os.getpid())}


def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_told_of_as_without_workers(workers: int) -> None:
    with stream_batches(Numbers(), replace(CONFIG, workers=workers), 0, fabric()) as stream:
        assert [next(stream)["index"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        with pytest.raises(InputError, match=r"^scan4.npy: found half a file; expected a whole one$"):
            next(stream)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_of_which_no_sample_can_be_made_is_told_of_in_one_line(workers: int) -> None:
    with (
        stream_batches(Numbers(), replace(CONFIG, workers=workers), 3, fabric()) as stream,
        pytest.raises(InputError, match=r"^image 6: found TypeError: no number; expected an image that a sample can"),
    ):
        next(stream)


def test_an_images_name_is_that_of_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """Of a mixture, and where one without objects is passed over; one that cannot be read has no name."""
    folder = npy_folder(tmp_path, 3)
    mixture = open_source([str(folder), "synthetic"], 64)
    images = PromptedImages(mixture, Prompting(create_sam(ENCODER, "random:0").spec))
    for index in (1, 3, 4):
        assert image_name(images, index) == mixture.image(index).name
    empty = Path(mixture.image(0).name)
    np.save(folder / "gts" / empty.name, np.zeros((64, 64), np.uint16))
    assert image_name(images, 0) == mixture.image(1).name
    empty.write_bytes(b"torn")
    assert image_name(images, 0) == "image 0"


def test_signals_to_all_processes_leave_the_makers_of_data_alone() -> None:
    """They end with the block all the same: otherwise Python would wait for them at its exit."""
    with stream_batches(Numbers(signal.SIGINT, signal.SIGTERM), CONFIG, 0, fabric()) as stream:
        batches = [next(stream) for _ in range(2)]
        assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2, 3]]
        assert {int(maker) for batch in batches for maker in batch["process"]} == {child.pid for child in makers()}
    assert not makers()


def makers() -> list[BaseProcess]:
    """Processes that make data."""
    return [child for child in active_children() if child.daemon]


def test_a_killed_maker_of_data_is_told_of_where_its_data_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nowhere else: torch would raise wherever the program is, in the middle of a checkpoint, too."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    before = signal.getsignal(signal.SIGCHLD)
    with stream_batches(Numbers(signal.SIGKILL), CONFIG, 0, fabric()) as stream:
        assert signal.getsignal(signal.SIGCHLD) == before
        with pytest.raises(InputError, match=r"--workers: found 1, of which one was killed .*try fewer"):
            list(stream)


def test_a_maker_of_data_that_cannot_send_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk it has no place for the socket that batches go through; its parent would wait for ever."""

    def full() -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", full)
    with (
        stream_batches(Numbers(), CONFIG, 0, fabric()) as stream,
        pytest.raises(InputError, match=r"--workers: found 1, .*; expected memory and temporary files"),
    ):
        next(stream)


class Missing(PromptedImages):
    """Only images 0 to 4 can be read: all of steps 1 and 2, and of step 3 the first."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index > 4:
            raise InputError("scan.npy", "nothing", "something")
        return super().__getitem__(index)


def train(out: Path, config: TrainConfig, images: type[PromptedImages]) -> None:
    sam = create_sam(ENCODER, "random:0")
    prompting, side = training_geometry(sam, config)
    data = images(SyntheticImages(64), prompting)
    fit(Finetuning(sam, config.loss, side), data, lambda task: {"dsc": 0.5}, config, out, fabric())


def test_steps_before_an_image_that_cannot_be_read_are_kept(tmp_path: Path) -> None:
    """Bit by bit: the first of a step's two parts must not move BatchNorm's statistics where the second is missing."""
    config = replace(CONFIG, steps=3, accumulate=2, workers=0)
    with pytest.raises(InputError, match=r"scan.npy: found nothing"):
        train(tmp_path / "cut", config, Missing)
    assert torch.load(tmp_path / "cut" / LAST, weights_only=True)["progress"]["step"] == 2
    for name in ("cut", "whole"):
        train(tmp_path / name, config, PromptedImages)
    cut, whole = (torch.load(tmp_path / name / LAST, weights_only=True)["trained"] for name in ("cut", "whole"))
    for key, value in whole.items():
        torch.testing.assert_close(cut[key], value, rtol=0, atol=0)


def test_a_run_that_fails_at_its_first_image_leaves_no_checkpoint(tmp_path: Path) -> None:
    """It would refuse other data."""

    class AllMissing(Missing):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            raise InputError("scan.npy", "nothing", "something")

    with pytest.raises(InputError, match=r"scan.npy: found nothing"):
        train(tmp_path, replace(CONFIG, workers=0), AllMissing)
    assert not (tmp_path / LAST).exists()


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError(Path("a"), "b", "c")))
    assert (error.where, error.found, error.expected, str(error)) == ("a", "b", "c", "a: found b; expected c")
