"""Layouts: every published one is recognised, flat, wrapped and as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import LAYOUTS, filled
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

from cli import main
from compress.reparam import reparameterise
from zoo.errors import InputError
from zoo.registry import create_encoder, create_sam
from zoo.weights import MismatchError, load_weights, read_checkpoint
from zoo.weights.detect import Fit, fitting, nearest


def wrapped(state: dict[str, Tensor]) -> dict[str, object]:
    """As a training script with DataParallel writes it."""
    return {
        "model": {f"module.{key}": value for key, value in state.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 7,
        "loss": 0.25,
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inspect_recognises_every_published_layout(tmp_path: Path, layout: str) -> None:
    state = filled(layout)
    torch.save(state, tmp_path / "flat.pth")
    torch.save(wrapped(state), tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "st.safetensors")
    for name, around in (("flat.pth", "none"), ("wrapped.pth", "model > module."), ("st.safetensors", "none")):
        result = CliRunner().invoke(main, ["weights", "inspect", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        fits = {line.split()[1].rstrip(":") for line in result.output.splitlines() if line.startswith("fits")}
        assert fits == LAYOUTS[layout]
        assert f"wrappers  {around}" in result.output
    assert {fit.encoder for fit in fitting(read_checkpoint(tmp_path / "wrapped.pth").state)} == LAYOUTS[layout]


def test_what_is_beside_the_weights_is_told(tmp_path: Path) -> None:
    torch.save(wrapped(filled("rep_medsam")), tmp_path / "run.pth")
    checkpoint = read_checkpoint(tmp_path / "run.pth")
    assert checkpoint.scalars == {"epoch": "7", "loss": "0.25"}
    assert checkpoint.beside == ("optimizer",)


@pytest.mark.parametrize("prefix", ["", "image_encoder.", "module.image_encoder."])
def test_encoder_alone(tmp_path: Path, prefix: str) -> None:
    encoder = create_encoder("tinyvit")
    torch.save({prefix + key: value for key, value in encoder.state_dict().items()}, tmp_path / "encoder.pth")
    assert fitting(read_checkpoint(tmp_path / "encoder.pth").state) == [Fit("tinyvit", "train", "encoder")]
    other = create_encoder("tinyvit")
    load_weights(other, tmp_path / "encoder.pth")
    torch.testing.assert_close(dict(other.state_dict()), dict(encoder.state_dict()))
    with pytest.raises(MismatchError, match="it is the image encoder alone of: tinyvit"):
        create_sam("tinyvit", tmp_path / "encoder.pth")


def test_an_encoder_takes_its_part_of_a_whole_model(tmp_path: Path) -> None:
    state = filled("lite_medsam")
    torch.save(state, tmp_path / "model.pth")
    encoder = create_encoder("tinyvit")
    load_weights(encoder, tmp_path / "model.pth")
    torch.testing.assert_close(
        encoder.state_dict()["patch_embed.seq.0.c.weight"], state["image_encoder.patch_embed.seq.0.c.weight"]
    )


@pytest.mark.parametrize(("layout", "encoder", "right"), [("mobile_sam", "tinyvit", "mobile_sam"),
                                                          ("repvit_sam", "repvit", "repvit_sam")])  # fmt: skip
def test_the_wrong_variant_is_told_with_the_right_one(tmp_path: Path, layout: str, encoder: str, right: str) -> None:
    torch.save(filled(layout), tmp_path / "w.pth")
    with pytest.raises(MismatchError, match=rf"tensors of encoder '{encoder}' \(it fits: {right}\)"):
        create_sam(encoder, tmp_path / "w.pth")


def test_folded_checkpoints_are_recognised() -> None:
    sam = create_sam("repvit", "random:0")
    sam.image_encoder = reparameterise(sam.image_encoder)
    fits = fitting(sam.state_dict(), {"reparam": reparameterise})
    assert fits == [Fit("repvit", "reparam", "model"), Fit("repvit_m1_0", "reparam", "model")]


def test_nearest_of_a_damaged_checkpoint() -> None:
    state = dict(filled("edge_sam"))
    del state["mask_decoder.mask_tokens.weight"]
    near = nearest(state)
    assert near.encoder == "edge_sam"
    assert near.problems == "1 missing: mask_decoder.mask_tokens.weight"


def test_weights_of_no_model(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 2)}, tmp_path / "other.pth")
    result = CliRunner().invoke(main, ["weights", "inspect", str(tmp_path / "other.pth")])
    assert result.exit_code == 1
    assert "fits no encoder" in result.output


def test_keys_that_clash(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.zeros(2), "weight": torch.ones(2)}, tmp_path / "clash.pth")
    with pytest.raises(InputError, match="'weight' twice"):
        read_checkpoint(tmp_path / "clash.pth")


def test_integers_where_weights_belong(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    torch.save({"weight": torch.zeros(2, 3, dtype=torch.int8), "bias": torch.zeros(2)}, tmp_path / "int8.pth")
    with pytest.raises(MismatchError, match="1 of another dtype: weight int8"):
        load_weights(module, tmp_path / "int8.pth")


def test_half_precision_loads(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    torch.save({key: value.half() for key, value in module.state_dict().items()}, tmp_path / "half.pth")
    load_weights(module, tmp_path / "half.pth")
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize(("content", "what"), [
    (b"", "an empty file"),
    (b"<!DOCTYPE html><html>login</html>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_downloads_leave_behind_is_named(tmp_path: Path, content: bytes, what: str, suffix: str) -> None:
    path = tmp_path / f"left{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"found {what}"):
        read_checkpoint(path)


def test_a_header_as_long_as_an_opening_tag_is_no_web_page(tmp_path: Path) -> None:
    """Its length comes first, and 0x3C20 bytes are a blank and `<`."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(0x3C20)
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert read_checkpoint(path).state["a"].tolist() == [0]
