"""What a run keeps when something fails, what it refuses to go on with, and what it tells of its data."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ENCODER
from lightning_fabric import Fabric
from test_training import SMALL, losses, run, small_task
from test_training_data import npy_folder
from torch import Tensor, nn

from cli import main
from compress.training.batches import WATCHED_STEPS, Waits
from compress.training.config import RunOptions
from compress.training.distill import Distillation
from compress.training.embed import write_store
from compress.training.finetune import Finetuning
from compress.training.loop import fit
from compress.training.optim import copied
from compress.training.options import validation_of
from compress.training.processes import by_first, launch
from compress.training.run import run_training
from compress.training.state import LAST, LOG, Progress
from compress.training.step import NotFiniteError, take_step
from zoo.data.dataset import FileImages, Mixture, epoch_order, open_source
from zoo.data.prompting import PromptedImages
from zoo.errors import InputError
from zoo.registry import create_sam


def test_a_validation_that_fails_loses_no_step_and_is_made_up_for(tmp_path: Path) -> None:
    config, calls = replace(SMALL, steps=4), 0

    def validate(task: nn.Module) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("out of memory")
        return {"dsc": calls / 10}

    def go_on() -> Any:
        return fit(*small_task(config), validate, config, tmp_path, Fabric(accelerator="cpu", devices=1))

    with pytest.raises(RuntimeError, match="out of memory"):
        go_on()
    assert torch.load(tmp_path / LAST, weights_only=True)["progress"]["step"] == 4
    assert go_on().best_step == 4
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [2, 4]
    assert len(losses(tmp_path)) == 4


@pytest.mark.parametrize("changed", ["data", "validation"])
def test_a_folder_that_has_changed_is_another(tmp_path: Path, changed: str) -> None:
    folders = {name: npy_folder(tmp_path / name) for name in ("data", "validation")}
    config = replace(SMALL, steps=1)

    def go_on() -> Any:
        task, synthetic = small_task(config)
        images = PromptedImages(open_source([str(folders["data"])], 64), synthetic.prompting)
        options = RunOptions((str(folders["validation"]),), 1, 1, tmp_path / "run")
        return run_training(task, images, config, options, {})

    assert go_on().step == go_on().step == 1
    for part in ("imgs", "gts"):
        (folders[changed] / part / "0.npy").rename(folders[changed] / part / "9.npy")
    with pytest.raises(InputError, match=f"a run with {changed}_files"):
        go_on()


def test_embeddings_of_other_images_are_refused(tmp_path: Path) -> None:
    """Unless the checkpoint is of before, and does not tell of which it was."""
    for name, size, seed in (("first", 64, 0), ("larger", 96, 0), ("other", 64, 2)):
        write_store(create_sam(ENCODER, "random:1"), ["synthetic"], size, seed, 1, tmp_path / name)
    words = ["distill", "--student", ENCODER, "--teacher", ENCODER, "--teacher-weights", "random:1", "--steps", "1"]
    words += ["--batch-size", "1", "--workers", "0", "--validation-count", "1", "-o", str(tmp_path / "run")]

    def go_on(store: str) -> str:
        return CliRunner().invoke(main, [*words, "--embeddings", str(tmp_path / store)]).output

    assert '"step": 1' in go_on("first")
    assert "a run with embeddings_size 64 instead of 96; expected the same settings" in go_on("larger")
    assert "a run with embeddings_seed 0 instead of 2; expected the same settings" in go_on("other")
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    known = json.loads(state["identity"])
    assert (known.pop("embeddings_size"), known.pop("embeddings_seed")) == (64, 0)
    torch.save({**state, "identity": json.dumps(known)}, tmp_path / "run" / LAST)
    assert '"step": 1' in go_on("other")


def test_labels_are_missed_before_a_run_begins(tmp_path: Path) -> None:
    (npy_folder(tmp_path, 3) / "gts" / "1.npy").unlink()
    with pytest.raises(InputError, match=r"gts: found no labels of 1 of 3 images \(1.npy first\)"):
        open_source([str(tmp_path)], 64)


def test_what_is_best_on_own_images_is_not_left_to_synthetic_ones(tmp_path: Path) -> None:
    folder = str(npy_folder(tmp_path))
    words = ["train", "--encoder", ENCODER, "--data", folder, "--steps", "1", "-o", str(tmp_path / "run")]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 1
    assert f"--validation: found none beside {folder}" in told.output
    write_store(create_sam("light_repvit_m0_9", "random:1"), [folder], 0, 0, 2, tmp_path / "store")
    light = "light_repvit_m0_9"
    words = ["distill", "--student", light, "--teacher", light, "--teacher-weights", "random:1", "--steps", "1"]
    told = CliRunner().invoke(main, [*words, "--embeddings", str(tmp_path / "store"), "-o", str(tmp_path / "run")])
    assert f"--validation: found none beside {folder}" in told.output
    assert validation_of((), (), None) == validation_of((), ("synthetic",), None) == ("synthetic",)
    assert validation_of((folder,), (folder,), None) == (folder,)
    assert validation_of((), (folder,), 10) == ("synthetic",), "a search for a rate validates on nothing"


def test_bfloat16_leaves_prompts_as_they_are() -> None:
    """A box at 203.5 in float32, where bfloat16 has 203 or 204; the same corners as in use, bit for bit."""
    config = replace(SMALL, precision="bf16-mixed")
    fabric = launch(config, 1)
    task, _ = small_task(config)
    seen: dict[str, Tensor] = {}

    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.task = task

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            seen.update(batch, embedded=task._embedded(batch["boxes"], None))
            return self.task.sam.image_encoder(batch["image"]).mean()

    boxes = torch.tensor([[[1.25, 2.5, 203.5, 99.75]]])
    model = fabric.setup(Recording())
    model(fabric.to_device({"boxes": boxes, "image": torch.rand(1, 3, 64, 64)}))
    assert torch.equal(seen["boxes"].cpu(), boxes)
    with torch.no_grad():
        assert torch.equal(seen["embedded"], task.sam.prompt_encoder.embed_boxes(seen["boxes"][0])[None])


def test_every_process_looks_twice_in_its_own_way() -> None:
    task, images = small_task(SMALL)
    batch = {key: value[None] for key, value in images[0].items()}
    optimizer = torch.optim.SGD(task.parameters(), lr=0)
    drawn = []

    class Rank:
        def __init__(self, rank: int) -> None:
            self.global_rank = rank

        def __getattr__(self, name: str) -> Any:
            return getattr(one, name)

    one = Fabric(accelerator="cpu", devices=1)
    model, optimizer = one.setup(task, optimizer)
    for rank in (0, 1, 0):
        take_step(Rank(rank), model, task.sam, optimizer, [batch], SMALL, Progress(), 0.0)  # type: ignore[arg-type]
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_what_the_first_process_cannot_do_ends_the_others() -> None:
    """Each raises: the first its own message, the others that there is one."""

    class OfTwo:
        world_size, device = 2, torch.device("cpu")
        failed = False

        def __init__(self, rank: int) -> None:
            self.is_global_zero = rank == 0

        def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
            OfTwo.failed |= bool(value)
            return torch.tensor(float(OfTwo.failed))

    def fail() -> None:
        raise OSError("no room, as TensorBoard's writer says it")

    first, second = OfTwo(0), OfTwo(1)
    assert (by_first(first, lambda: 7), by_first(second, lambda: 8)) == (7, None)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no room"):
        by_first(first, fail)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--devices: found a failure of the first process"):
        by_first(second, fail)  # type: ignore[arg-type]


def test_few_images_are_validated_on_once_each(tmp_path: Path) -> None:
    """Not again and again up to `--validation-count`, nor in place of a neighbour without an object."""
    drawn: list[int] = []

    class Counted(PromptedImages):
        def _prompted(self, index: int) -> dict[str, Tensor] | None:
            drawn.append(index)
            return super()._prompted(index)

    config = replace(SMALL, steps=1)
    task, synthetic = small_task(config)
    unseen = tuple(str(npy_folder(tmp_path / name, count)) for name, count in (("some", 3), ("more", 5)))
    np.save(tmp_path / "more" / "gts" / "1.npy", np.zeros((64, 64), np.uint16))
    options = RunOptions(unseen, 64, 1, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.training.run.PromptedImages", Counted)
        run_training(task, synthetic, config, options, {})
    assert drawn == [0, 1, 2, 3, 4, 5, 7, 9], "in turns, until one has no more"


def test_a_loss_that_another_process_lost_ends_this_one(tmp_path: Path) -> None:
    """Otherwise it would wait for that one's next gradients, for half an hour."""

    class OfTwo:
        world_size = 2

        def all_reduce(self, value: Tensor, reduce_op: str) -> Tensor:
            assert (reduce_op, float(value)) == ("max", 0)
            return torch.ones(())

        def __getattr__(self, name: str) -> Any:
            return getattr(one, name)

    one = Fabric(accelerator="cpu", devices=1)
    task, images = small_task(SMALL)
    batch = {key: value[None] for key, value in images[0].items()}
    model, optimizer = one.setup(task, torch.optim.SGD(task.parameters(), lr=1))
    before = {key: value.clone() for key, value in task.sam.named_parameters()}
    with pytest.raises(NotFiniteError, match="step 0: found a loss of another process that is not finite"):
        take_step(OfTwo(), model, task.sam, optimizer, [batch], SMALL, Progress(), 1.0)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[key]) for key, value in task.sam.named_parameters())


def test_a_gradient_that_is_not_finite_names_every_part(tmp_path: Path) -> None:
    class Poisoned(Finetuning):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
            numbers = super().forward(batch)
            if 0 in batch["index"]:
                numbers["loss"].register_hook(lambda gradient: gradient * float("inf"))
            return numbers

    with pytest.raises(InputError, match=r"step 0, seed 0, seed 1: found a gradient of norm.*; try a lower --lr"):
        run(tmp_path, replace(SMALL, accumulate=2), Poisoned)


def test_a_run_that_waits_for_its_data_is_told_so_once() -> None:
    quick, slow = Waits(1), Waits(2)
    assert [quick.after(0.01, 1.0) for _ in range(2 * WATCHED_STEPS)] == [None] * 2 * WATCHED_STEPS
    told = [slow.after(40.0, 40.0), *(slow.after(0.5, 1.0) for _ in range(2 * WATCHED_STEPS))]
    assert [(step, text) for step, text in enumerate(told, 1) if text] == [
        (WATCHED_STEPS, "waits for data 50% of the time; more --workers than 2 may help")
    ]


def test_the_log_tells_waiting_from_computing(tmp_path: Path) -> None:
    run(tmp_path, replace(SMALL, steps=2))
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    for row in rows:
        if row["kind"] == "step":
            assert 0 < row["data_s"] < row["step_s"]


def test_training_needs_no_signal_that_windows_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGCHLD")
    assert len(run(tmp_path, replace(SMALL, steps=1))) == 1


def test_a_teacher_is_not_copied() -> None:
    student, teacher = (create_sam(ENCODER, f"random:{seed}") for seed in (1, 2))
    task = Distillation(student, teacher)
    copy = copied(task)
    assert copy.teacher is task.teacher
    assert copy.sam is not task.sam


def test_an_epochs_order_is_drawn_once(tmp_path: Path) -> None:
    sources = [open_source([str(npy_folder(tmp_path / str(count), count))], 64) for count in (2, 3, 4)]
    assert all(isinstance(source, FileImages) for source in sources)
    epoch_order.cache_clear()
    mixture = Mixture(sources)
    for index in range(6):
        mixture.image(index)
    assert epoch_order.cache_info().misses == 3
