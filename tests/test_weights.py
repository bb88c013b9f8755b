"""Weights: layouts that load, files that must not."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ENCODER
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.registry import create_sam
from zoo.sam.model import Sam
from zoo.weights import cards, load_card_or_file, load_weights, random_seed_of, read_checkpoint, seeded
from zoo.weights.cards import weight_card


@pytest.fixture
def module() -> nn.Module:
    return nn.Linear(3, 2)


@pytest.fixture
def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: torch.rand_like(value) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "optimizer": {"lr": 0.1}, "epoch": 3},
                                  lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
                                  lambda s: {f"_orig_mod.{k}": v for k, v in s.items()}])  # fmt: skip
def test_layouts_load(tmp_path: Path, module: nn.Module, state: dict[str, Tensor], wrap: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path)  # type: ignore[operator]
    identity = load_weights(module, path)
    torch.testing.assert_close(module.weight, state["weight"])
    assert identity.trained
    assert identity.name == "weights.pth"


def test_safetensors_load(tmp_path: Path, module: nn.Module, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    load_weights(module, tmp_path / "weights.safetensors")
    torch.testing.assert_close(module.bias, state["bias"])


def test_mismatch_is_told_and_nothing_loads(tmp_path: Path, module: nn.Module, state: dict[str, Tensor]) -> None:
    before = {key: value.clone() for key, value in module.state_dict().items()}
    torch.save({"weight": state["weight"].T.contiguous(), "extra": state["bias"]}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1 missing: bias; 1 unknown: extra; .*weight \(3, 2\) instead of \(2, 3\)"):
        load_weights(module, tmp_path / "w.pth")
    torch.testing.assert_close(dict(module.state_dict()), before)


class Hostile:
    """Unpickles into a call."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.witness,)


def test_a_hostile_pickle_does_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    for name, save in (("zip.pth", torch.save), ("raw.pth", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        save({"model": Hostile(witness)}, tmp_path / name)
        with pytest.raises(InputError, match="pickled Python objects"):
            read_checkpoint(tmp_path / name)
    assert not witness.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="broken"):
        read_checkpoint(path)


def test_truncated_checkpoint(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "cut.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.pth"):
        read_checkpoint(path)


def test_nan_weights_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(InputError, match="NaN or infinite values in bias"):
        read_checkpoint(tmp_path / "nan.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], {0: torch.zeros(2)},
                                     {"model": {1: torch.zeros(2)}}])  # fmt: skip
def test_a_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "none.pth")
    with pytest.raises(InputError, match="without a state dict"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("tensor", [
    torch.eye(3).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.float8_e4m3fn)
])  # fmt: skip
def test_tensors_that_are_not_dense(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"fine": torch.zeros(2), "odd": tensor}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"odd\.pth: found odd, torch\.float.*; expected dense tensors"):
        read_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_anywhere_is_told_in_one_line(tmp_path: Path, zipped: bool) -> None:
    path, rng = tmp_path / "damaged.pth", random.Random(0)
    torch.save({f"a.{i}": torch.randn(4) for i in range(5)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except InputError:
            refused += 1
    assert refused > 10


def test_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth: found no such file"):
        create_sam("repvit", "nowhere.pth")


def test_equal_seeds_give_equal_decoders_behind_different_encoders() -> None:
    one, other, third = (
        create_sam(*args) for args in (("repvit", "random:0"), ("tinyvit", "random:0"), ("repvit", "random:1"))
    )
    torch.testing.assert_close(one.mask_decoder.state_dict(), other.mask_decoder.state_dict())
    assert one.weights is not None
    assert third.weights is not None
    assert one.weights.sha256 != third.weights.sha256
    assert create_sam("repvit", "random:0").weights == one.weights
    assert not one.weights.trained


@pytest.mark.parametrize("seed", ["x", "²", "-1", str(2**64)])
def test_random_needs_a_number_that_torch_takes(seed: str) -> None:
    with pytest.raises(InputError, match=f"whole number up to {2**64 - 1}"):
        random_seed_of(f"random:{seed}")
    with seeded(random_seed_of(f"random:{2**64 - 1}") or 0):
        assert torch.initial_seed() == 2**64 - 1


@pytest.mark.parametrize("word", ["random", "random:", "random:0"])
def test_random_without_a_number_is_the_first_seed(word: str) -> None:
    assert random_seed_of(word) == 0
    assert random_seed_of("randomly.pth") is None


def test_a_seed_draws_torchs_own_numbers_and_touches_no_other_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(5)
    before = torch.get_rng_state()

    def of_gpus(seed: int) -> None:
        raise AssertionError("generators of GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", of_gpus)
    with seeded(3):
        assert torch.equal(torch.rand(4), expected)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("named", "change", "told"),
    [
        (ENCODER, {}, False),
        (ENCODER, {"fit": "squash"}, True),
        (ENCODER, {"normalisation": "min_max"}, True),
        (ENCODER, {"resize": "cubic"}, True),
        (ENCODER.replace("@64", "@128"), {}, False),  # a stage of training at another size
        ("resnet50", {"fit": "squash"}, False),  # another program's word
        (None, {"fit": "squash"}, False),
    ],
)
def test_weights_for_images_prepared_otherwise_are_noted(
    sam: Sam, tmp_path: Path, caplog: pytest.LogCaptureFixture, named: str | None, change: dict[str, Any], told: bool
) -> None:
    save_file(sam.state_dict(), tmp_path / "w.safetensors", {"encoder": named} if named else None)
    loaded = create_sam(ENCODER, "random:1")
    loaded.spec = replace(loaded.spec, **change, name="mine")
    load_weights(loaded, tmp_path / "w.safetensors")
    prepared = ", ".join(change.get(key, getattr(sam.spec, key)) for key in ("fit", "resize", "normalisation"))
    end = f"w.safetensors: weights of {named}, for images prepared by pad, area, imagenet; mine prepares by {prepared}"
    assert [message.endswith(end) for message in caplog.messages] == [True] * told


def test_the_weights_of_a_card_for_images_prepared_otherwise_are_noted(
    sam: Sam, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with SAM's and MedSAM's ViT-B, whose layout is one."""
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path))
    catalog = {
        encoder: replace(weight_card("sam_vit_b"), name=encoder, encoder=encoder, file="w.safetensors", sha256=None)
        for encoder in (ENCODER, "vit_b")
    }
    monkeypatch.setattr(cards, "catalog", lambda: catalog)
    save_file(sam.state_dict(), tmp_path / "w.safetensors")
    load_card_or_file(create_sam(ENCODER, "random:1"), ENCODER)
    assert not caplog.messages
    load_card_or_file(create_sam(ENCODER, "random:1"), "vit_b")
    assert f"weights of vit_b, for images prepared by squash, cubic, min_max; {ENCODER} " in caplog.messages[0]
