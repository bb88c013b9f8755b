"""Converting: bit for bit, both ways, of graphs as trained and folded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import filled
from click.testing import CliRunner
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.candidate import Recipe
from cli import main
from compress.build import build_candidate
from compress.reparam import reparameterise
from zoo.errors import InputError
from zoo.files import sha256_of
from zoo.registry import create_sam
from zoo.weights import convert as conversion
from zoo.weights import read_checkpoint
from zoo.weights.cards import weight_card
from zoo.weights.convert import convert

VARIANTS = {"reparam": reparameterise}
SHIPPED = weight_card("light_repvit_m0_9").path


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].numpy().tobytes() == other[key].numpy().tobytes() for key in one
    )


def folded_state() -> dict[str, Tensor]:
    sam = create_sam("repvit", "random:0")
    sam.image_encoder = reparameterise(sam.image_encoder)
    return dict(sam.state_dict())


@pytest.mark.parametrize("variant", ["train", "reparam"])
def test_round_trip_keeps_every_bit(tmp_path: Path, variant: str) -> None:
    state = filled("rep_medsam") if variant == "train" else folded_state()
    first, second, third = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    torch.save({"model": state, "epoch": 3}, first)
    metadata = convert(first, second, variants=VARIANTS)
    again = convert(second, third, variants=VARIANTS)
    assert same_bits(read_checkpoint(second).state, state)
    assert same_bits(torch.load(third, weights_only=True), state)
    assert metadata == again, "what a checkpoint says of its source goes along"
    assert (metadata["encoder"], metadata["variant"], metadata["part"]) == ("repvit", variant, "model")
    assert metadata["source_sha256"] == sha256_of(first)
    assert json.loads(metadata["training"]) == {"epoch": "3"}
    assert json.loads(metadata["spec"])["image_size"] == 256


def test_what_a_pth_cannot_say_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shipped = Path(__file__).parent.parent / "ckpts" / "light_repvit_m0_9.safetensors"
    convert(shipped, tmp_path / "x.safetensors")
    assert not caplog.messages
    convert(shipped, tmp_path / "x.pth")
    assert "cannot say that these weights were trained with masks" in " ".join(caplog.messages)


def test_metadata_is_in_the_file(tmp_path: Path) -> None:
    torch.save(filled("edge_sam"), tmp_path / "edge.pth")
    convert(tmp_path / "edge.pth", tmp_path / "edge.safetensors")
    with safe_open(tmp_path / "edge.safetensors", framework="pt") as stream:
        assert stream.metadata()["encoder"] == "edge_sam"


def test_folded_weights_run_like_the_ones_they_were_folded_from(tmp_path: Path) -> None:
    torch.save(create_sam("repvit", "random:0").state_dict(), tmp_path / "train.pth")
    torch.save(folded_state(), tmp_path / "folded.pth")
    image = torch.rand(1, 3, 256, 256)
    one, other = (
        build_candidate(Recipe("repvit", str(tmp_path / name), "reparam", "torch", "fp32", 2))
        for name in ("train.pth", "folded.pth")
    )
    with torch.inference_mode():
        torch.testing.assert_close(one.sam.image_encoder(image), other.sam.image_encoder(image), rtol=0, atol=0)
    with pytest.raises(InputError, match="repvit"):
        build_candidate(Recipe("repvit", str(tmp_path / "folded.pth"), "train", "torch", "fp32", 2))


def test_layouts_that_several_encoders_share_need_a_name(tmp_path: Path) -> None:
    torch.save(filled("medsam_vit_b"), tmp_path / "vit.pth")
    with pytest.raises(InputError, match="sam_vit_b, vit_b alike; expected --encoder"):
        convert(tmp_path / "vit.pth", tmp_path / "vit.safetensors")
    convert(tmp_path / "vit.pth", tmp_path / "vit.safetensors", encoder="vit_b")
    assert read_checkpoint(tmp_path / "vit.safetensors").scalars["encoder"] == "vit_b"


def test_weights_that_fit_nothing_leave_no_file(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 2)}, tmp_path / "other.pth")
    result = CliRunner().invoke(
        main, ["weights", "convert", str(tmp_path / "other.pth"), str(tmp_path / "o.safetensors")]
    )
    assert result.exit_code == 1
    assert "nearest is" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_target_that_cannot_be_written(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("disk") if suffix == ".pth" else SafetensorError("disk")

    for target, name in ((torch, "save"), (conversion, "save_file")):
        monkeypatch.setattr(target, name, full)
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(InputError, match=f"w{suffix}: found no room or no right to write"):
            convert(SHIPPED, folder / f"w{suffix}", "light_repvit_m0_9")


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix '\.onnx'"):
        convert(tmp_path / "a.pth", tmp_path / "a.onnx")


def test_half_the_size_and_about_the_same_weights(tmp_path: Path) -> None:
    """Matrices are rounded to the nearest float16 (11 bits), vectors and counters keep every bit."""
    sam = create_sam("light_repvit_m0_9", "random:0")
    torch.save(sam.state_dict(), tmp_path / "whole.pth")
    convert(tmp_path / "whole.pth", tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.52 * (tmp_path / "whole.pth").stat().st_size
    loaded = create_sam("light_repvit_m0_9", tmp_path / "half.safetensors").state_dict()
    for key, value in sam.state_dict().items():
        assert loaded[key].dtype == value.dtype
        error = (loaded[key] - value).norm() / value.norm().clamp(min=1e-9) if value.is_floating_point() else 0
        assert error <= (2**-11 if value.ndim > 1 else 0), key


def test_half_cannot_hold_everything(tmp_path: Path) -> None:
    state = filled("edge_sam")
    key = next(key for key, value in state.items() if value.ndim == 4)
    state[key] = state[key] * 1e9
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(InputError, match="at most 65504"):
        convert(tmp_path / "large.pth", tmp_path / "large.safetensors", half=True)
    assert not (tmp_path / "large.safetensors").exists()


def test_another_programs_word_for_an_encoder_is_no_name_of_ours(tmp_path: Path) -> None:
    source = tmp_path / "a.pth"
    torch.save({"model": create_sam("repvit", "random:0").state_dict(), "encoder": "resnet50"}, source)
    assert convert(source, tmp_path / "a.safetensors")["encoder"] == "repvit"
