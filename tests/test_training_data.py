"""Training data: prompts, augmentation, files, and that training sees what inference computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from compress.training.config import TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from zoo.data.dataset import (
    FileImages,
    LabelledImage,
    SyntheticImages,
    epoch_order,
    images_of,
    indices_once,
    names_digest,
    open_source,
)
from zoo.data.npz import save_challenge_npz
from zoo.data.phantom import load_phantom
from zoo.data.prompting import PairedImages, PromptedImages, Prompting, augment
from zoo.errors import InputError
from zoo.registry import create_sam, encoder_spec


def square(height: int, width: int, box: tuple[int, int, int, int]) -> LabelledImage:
    labels = np.zeros((height, width), np.uint16)
    x0, y0, x1, y1 = box
    labels[y0 : y1 + 1, x0 : x1 + 1] = 1
    return LabelledImage(np.repeat((labels * 200).astype(np.uint8)[..., None], 3, axis=2), labels, "square")


def test_prompts_lie_in_the_encoders_frame() -> None:
    """A 100 x 200 image: scaled by 1.28, padded below."""
    prompting = Prompting(encoder_spec("repvit"), objects=2, box_jitter_px=0, augment=False)
    prompted = prompting.apply(square(100, 200, (50, 25, 149, 74)), 0)
    assert prompted is not None
    assert prompted["image"].shape == (3, 256, 256)
    assert prompted["boxes"].tolist() == [[64, 32, 190, 94]] * 2, "149 * 1.28 = 190.7, cut as when predicting"
    assert prompted["content"].tolist() == [0.5, 1]
    rows, columns = np.flatnonzero(prompted["masks"][0].any(1)), np.flatnonzero(prompted["masks"][0].any(0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (64, 32, 191, 95)


def test_smaller_training_keeps_the_prompt_frame() -> None:
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, TrainConfig(size=64))
    assert (prompting.spec.image_size, prompting.spec.prompt_frame, prompting.mask_size, side) == (64, 256, 64, 16)
    with pytest.raises(InputError, match="--size"):
        training_geometry(create_sam("vit_b@256"), TrainConfig(size=128))


def test_boxes_hold_their_masks_and_jitter_stays_in_the_image() -> None:
    prompting = Prompting(encoder_spec("repvit"), box_jitter_px=20)
    data = PromptedImages(SyntheticImages(96), prompting)
    loose = 0
    for index in range(20):
        prompted = data[index]
        for box, mask in zip(prompted["boxes"], prompted["masks"], strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert box[0] <= columns[0] + 2
            assert box[1] <= rows[0] + 2
            assert box[2] >= columns[-1] - 3
            assert box[3] >= rows[-1] - 3
            assert box.min() >= 0
            assert box.max() <= 256
            loose += int(box[0] < columns[0] - 3)
    assert loose > 5


def test_some_boxes_fit_as_badly_as_those_of_a_neighbouring_slice() -> None:
    """A square, 40 px from its first to its last, in a frame that is as large as the image."""
    drawn = square(256, 256, (100, 100, 140, 140))
    prompting = Prompting(encoder_spec("repvit"), objects=400, box_jitter_px=0, walk_share=0.5, augment=False)
    prompted = prompting.apply(drawn, 0)
    assert prompted is not None
    outward = (prompted["boxes"] - torch.tensor([100, 100, 140, 140])) * torch.tensor([-1, -1, 1, 1])
    tight = (outward == 0).all(1).float().mean()
    assert 0.4 < tight < 0.6
    assert outward.min() >= -0.1 * 40 - 1, "whole pixels"
    assert outward.max() <= 40
    widths = outward[:, 0] + outward[:, 2] + 40
    assert (widths > 1.5 * 40).float().mean() > 0.1, "the object takes up less than two thirds of such a box"
    assert (outward < 0).any(), "some cut a little of it off"


def test_augmentation_moves_labels_with_the_image() -> None:
    drawn = square(40, 60, (5, 10, 20, 30))
    seen = set()
    for seed in range(30):
        changed = augment(drawn, np.random.default_rng(seed))
        inside, outside = changed.image[changed.labels == 1], changed.image[changed.labels == 0]
        assert inside.min() > outside.max()
        rows, columns = np.nonzero(changed.labels)
        seen.add((changed.labels.shape, int(rows[0]), int(columns[0])))
    assert len(seen) == 8, "all flips and transpositions"


def test_augmentation_tints_colour_alone() -> None:
    """Channels of a coloured image change by factors of their own; a grey image stays grey."""
    grey = square(40, 60, (5, 10, 20, 30))
    colours = replace(grey, image=(grey.image // 4 + np.array([40, 80, 120])).astype(np.uint8))
    ratios = set()
    for seed in range(10):
        assert not np.ptp(augment(grey, np.random.default_rng(seed)).image, axis=2).any()
        means = augment(colours, np.random.default_rng(seed)).image.mean((0, 1))
        assert means[0] < means[2], "blue stays blue"
        ratios.add(round(means[2] / means[0], 3))
    assert len(ratios) == 10


def npy_folder(root: Path, count: int = 3) -> Path:
    for part in ("imgs", "gts"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        drawn = square(64, 64, (10, 10, 40, 20 + i))
        np.save(root / "imgs" / f"{i}.npy", drawn.image.astype(np.float32) / 255)
        np.save(root / "gts" / f"{i}.npy", drawn.labels)
    return root


def test_npy_folders(tmp_path: Path) -> None:
    source = open_source([str(npy_folder(tmp_path))], 64)
    assert isinstance(source, FileImages)
    first, second = ([source.image(epoch * 3 + i).name for i in range(3)] for epoch in (0, 1))
    assert sorted(first) == sorted(second), "each image once an epoch"
    assert source.image(0).image.max() == 200
    mixed = open_source([str(tmp_path), "synthetic"], 64)
    assert [mixed.image(i).name.startswith("seed") for i in range(4)] == [False, True, False, True]


def test_equal_sources_do_not_go_in_step(tmp_path: Path) -> None:
    """One source alone goes in the order that it always had."""
    one, other = (str(npy_folder(tmp_path / name, 12)) for name in ("one", "other"))
    alone = [open_source([one], 64, 6).image(i).name for i in range(12)]
    assert alone == [f"{one}/imgs/{sorted(range(12), key=str)[place]}.npy" for place in epoch_order(6, 0, 12)]
    assert open_source(["synthetic"], 64, 6).image(3).name == f"seed {(6 << 32) + 3}"
    for specs in ([one, one], [one, other], ["synthetic", "synthetic"]):
        source = open_source(specs, 64, 6)
        first, second = ([Path(source.image(i).name).name for i in range(start, 24, 2)] for start in (0, 1))
        assert first != second
        assert specs[0] == "synthetic" or (first == [Path(name).name for name in alone] and set(first) == set(second))


def test_no_file_is_taken_once_by_two_sources(tmp_path: Path) -> None:
    one, other = (str(npy_folder(tmp_path / name, 2)) for name in ("one", "other"))
    (tmp_path / "link").symlink_to(one)
    assert indices_once(open_source([one, other], 64), 9) == [0, 1, 2, 3]
    for again in (one, str(tmp_path / "link")):
        with pytest.raises(InputError, match=r"one/imgs/0.npy: found a file that two sources have; expected each once"):
            indices_once(open_source([one, other, again], 64), 9)


@pytest.mark.parametrize(("change", "message"), [
    (lambda root: (root / "gts" / "0.npy").unlink(), "no readable array"),
    (lambda root: (root / "imgs" / "0.npy").write_bytes(b"\x93NUMPY"), "no readable array"),
    (lambda root: np.save(root / "imgs" / "0.npy", np.full((64, 64), np.nan)), r"floats in \[0, 1\]"),
    (lambda root: np.save(root / "imgs" / "0.npy", np.zeros((64, 64), np.int32)), "uint8 or float"),
    (lambda root: np.save(root / "imgs" / "0.npy", np.zeros((0, 64))), r"found float64 \(0, 64\)"),
    (lambda root: np.save(root / "imgs" / "0.npy", np.zeros(64)), r"found float64 \(64,\)"),
    (lambda root: np.save(root / "gts" / "0.npy", np.zeros((32, 64), np.uint8)), "labels uint8"),
    (lambda root: np.save(root / "gts" / "0.npy", np.zeros((64, 64), np.uint8)),
     "0.npy: found 100 images in a row without an object of 10 pixels at 256 px; expected larger"),
    (lambda root: np.save(root / "gts" / "0.npy", np.full((64, 64), -1)), r"gts/0.npy: found int64 values -1 to -1"),
    (lambda root: np.save(root / "gts" / "0.npy", np.full((64, 64), 65537)), "expected whole labels 0 to 65535"),
])  # fmt: skip
def test_bad_training_images(tmp_path: Path, change: object, message: str) -> None:
    source = open_source([str(npy_folder(tmp_path, 1))], 64)
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        PromptedImages(source, Prompting(encoder_spec("repvit")))[0]


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(("change", "message"), [
    (lambda root: (root / "imgs" / "1.npy").write_bytes(b"\x93NUMPY"), r"\(imgs/1.npy: no readable array"),
    (lambda root: (root / "gts" / "1.npy").write_bytes(b"text"), r"\(gts/1.npy: no readable array"),
    (lambda root: shorten(root / "gts" / "1.npy"), r"\(gts/1.npy: an array that lacks 5 bytes\)"),
    (lambda root: np.save(root / "imgs" / "1.npy", np.zeros((64, 64), np.int32)), r"\(imgs/1.npy: int32 \(64, 64\)\)"),
    (lambda root: np.save(root / "imgs" / "1.npy", np.array([None])), r"\(imgs/1.npy: object \(1,\)\)"),
    (lambda root: np.save(root / "imgs" / "1.npy", np.zeros((0, 5), np.uint8)), r"\(imgs/1.npy: uint8 \(0, 5\)\)"),
    (lambda root: np.save(root / "gts" / "1.npy", np.zeros((32, 64), np.uint8)), r"\(imgs/1.npy: labels uint8 \(32"),
    (lambda root: np.save(root / "gts" / "1.npy", np.zeros((64, 64))), r"\(imgs/1.npy: labels float64 \(64, 64\)\)"),
])  # fmt: skip
def test_headers_are_read_before_a_run_begins(tmp_path: Path, change: object, message: str) -> None:
    """Otherwise the run would end at the file's turn, and be another without it."""
    change(npy_folder(tmp_path))  # type: ignore[operator]
    with pytest.raises(InputError, match=f"found 1 of 3 images that cannot be used {message}"):
        open_source([str(tmp_path)], 64)


def test_bad_files_are_told_of_together(tmp_path: Path) -> None:
    for number in range(1, len(list((npy_folder(tmp_path, 6) / "imgs").iterdir()))):
        shorten(tmp_path / "imgs" / f"{number}.npy")
    with pytest.raises(InputError, match=r"5 of 6 images .*imgs/1\.npy.*2\.npy.*imgs/3\.npy.* bytes and 2 more\); exp"):
        open_source([str(tmp_path)], 64)


def test_one_usable_image_of_many_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However far away it is; of more than a hundred others in a row it is told."""
    source = open_source([str(npy_folder(tmp_path, 130))], 64)
    for number in range(129):
        np.save(tmp_path / "gts" / f"{number}.npy", np.zeros((64, 64), np.uint8))
    data = PromptedImages(source, Prompting(encoder_spec("repvit"), mask_size=64, augment=False))
    place = next(i for i in range(130) if source.image(i).labels.any())
    for index in (place, place + 1):
        assert data[index]["masks"].any()
    assert data[place + 1]["index"] >= 130
    assert "100 images in a row without an object of 10 pixels at 64 px; looking on" in caplog.messages


def test_images_to_validate_on_are_used_once_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A neighbour's object is no stand-in: it would count as often as images beside it have none."""
    source = open_source([str(npy_folder(tmp_path, 6))], 64)
    for number in (0, 2, 3):
        np.save(tmp_path / "gts" / f"{number}.npy", np.zeros((64, 64), np.uint8))
    data = PromptedImages(source, Prompting(encoder_spec("repvit"), mask_size=64, augment=False))
    usable = [i for i in range(6) if source.image(i).labels.any()]
    assert [int(sample["index"]) for sample in data.usable(range(6))] == usable
    assert "validation leaves out 3 of 6 images without an object of 10 pixels at 64 px" in caplog.messages
    with pytest.raises(InputError, match=r"npy: found 3 of 3 images without an object .*expected larger labelled"):
        data.usable([i for i in range(6) if i not in usable])


class Listed:
    """Some images, again and again."""

    def __init__(self, *images: LabelledImage) -> None:
        self.images = images

    def image(self, index: int) -> LabelledImage:
        return self.images[index % len(self.images)]


@pytest.mark.parametrize(("own", "other"), [("pad", "pad"), ("pad", "squash"), ("squash", "pad")])
def test_a_pair_is_what_either_encoder_alone_would_get(
    own: Literal["pad", "squash"], other: Literal["pad", "squash"]
) -> None:
    """Bit for bit. The first object, 10 x 20 pixels of 40 x 400, is too small where the image is not squashed."""
    prompting = Prompting(replace(encoder_spec("repvit"), fit=own), mask_size=64, objects=2, seed=3)
    for_teacher = replace(prompting, spec=replace(encoder_spec("repvit"), image_size=96, fit=other))
    images = Listed(square(40, 400, (100, 10, 119, 19)), SyntheticImages(64).image(0), square(50, 90, (5, 9, 50, 40)))
    pairs = PairedImages(images, prompting, for_teacher.spec)
    for index in range(6):
        alone = ((each.apply(images.image(i), i) for each in (prompting, for_teacher)) for i in range(index, index + 3))
        student, teacher = next((one, two) for one, two in alone if one and two)
        assert (student["index"] == index) == (index % 3 > 0)
        wanted = {**student, "teacher_image": teacher["image"], "teacher_content": teacher["content"]}
        assert pairs[index].keys() == wanted.keys()
        assert all(torch.equal(pairs[index][key], wanted[key]) for key in wanted)


def test_pictures_that_were_not_prepared_are_told_how(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "a.png").write_bytes(b"a picture")
    with pytest.raises(InputError, match=r"no training images; .*npy files in imgs/ and gts/, as `prepare --to npy`"):
        open_source([str(tmp_path)], 64)


def test_training_sees_what_inference_computes() -> None:
    """In eval mode the task's masks are those of the plain model."""
    sam = create_sam("light_repvit_m0_9", "random:0")
    prompting, side = training_geometry(sam, TrainConfig())
    prompted = PromptedImages(SyntheticImages(256), prompting)[0]
    with torch.inference_mode():
        logits, iou = Finetuning(sam, "sum", side).eval().predict(prompted["image"][None], prompted["boxes"][None])
        sparse, dense = sam.prompt_encoder(None, prompted["boxes"], None)
        embedding = sam.image_encoder(prompted["image"][None])
        plain, plain_iou = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, False)
    torch.testing.assert_close(logits, plain[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(iou, plain_iou[:, 0], rtol=1e-3, atol=1e-3)


def test_files_that_a_system_left_are_no_images(tmp_path: Path) -> None:
    """As macOS leaves `._a.npz` beside `a.npz` on other file systems; suffixes may be written large."""
    save_challenge_npz(load_phantom("ct2d"), tmp_path / "a.NPZ")
    (tmp_path / "._a.npz").write_bytes(b"resource fork")
    source = open_source([str(tmp_path)], 64)
    assert images_of(source) == 1
    assert source.image(0).image.ndim == 3
    npy_folder(tmp_path / "npy", 2)
    for part in ("imgs", "gts"):
        (tmp_path / "npy" / part / "._0.npy").write_bytes(b"resource fork")
    assert images_of(open_source([str(tmp_path / "npy")], 64)) == 2


def test_of_npz_nothing_but_labels_is_read_before_an_image_is_asked_for(tmp_path: Path) -> None:
    gts = np.zeros((4, 8, 8), np.uint8)
    gts[1:3, 2:5, 2:5] = 1
    np.savez(tmp_path / "3DBox_CT_a.npz", imgs=np.zeros((4, 8, 8), np.float32), gts=gts)
    source = open_source([str(tmp_path)], 64)
    assert isinstance(source, FileImages)
    assert [z for _, z in source.items] == [1, 2]
    with pytest.raises(InputError, match="imgs: found float32"):
        source.image(0)
    np.savez(tmp_path / "3DBox_CT_a.npz", imgs=np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(InputError, match="no gts; expected labels to train with"):
        open_source([str(tmp_path)], 64)


@pytest.mark.parametrize("part", ["imgs", "gts"])
def test_files_of_other_names_or_sizes_are_others(tmp_path: Path, part: str) -> None:
    def digest() -> str | None:
        return names_digest(open_source([str(tmp_path)], 64))

    file = npy_folder(tmp_path, 3) / part / "1.npy"
    before, array = digest(), np.load(file)
    np.save(file, array[::-1])
    assert digest() == before, "contents of the same size are not looked at"
    np.save(file, array.astype(np.float64 if part == "imgs" else np.uint8))
    larger = digest()
    for folder in ("imgs", "gts"):
        (tmp_path / folder / "0.npy").rename(tmp_path / folder / "9.npy")
    assert len({before, larger, digest()}) == 3


def test_a_case_of_another_size_is_another(tmp_path: Path) -> None:
    def digest(noise: int) -> str | None:
        imgs, gts = np.zeros((2, 16, 16), np.uint8), np.ones((2, 16, 16), np.uint8)
        imgs[0, :noise] = np.random.default_rng(0).integers(0, 255, (noise, 16))
        np.savez_compressed(tmp_path / "3DBox_CT_a.npz", imgs=imgs, gts=gts)
        return names_digest(open_source([str(tmp_path)], 64))

    assert digest(2) == digest(2) != digest(9)
