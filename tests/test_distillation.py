"""Distillation: what a student learns from a teacher, live or stored, and stores that are not the teacher's."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ENCODER
from descend import descend
from safetensors.torch import load_file
from test_training_data import npy_folder as labelled_folder
from torch import Tensor, nn

from cli import main
from compress.training import embed
from compress.training.batches import image_name
from compress.training.config import TrainConfig
from compress.training.distill import Distillation, reframe
from compress.training.embed import EmbeddingStore, shard_paths, write_store
from compress.training.finetune import Finetuning, training_geometry
from compress.training.second_look import draw_clicks
from compress.training.stored import NpyEmbeddings, StoredPairs, open_embeddings
from zoo.data.dataset import LabelledImage, SyntheticImages, epoch_order, images_of, open_source
from zoo.data.prompting import PairedImages, Prompting
from zoo.errors import InputError
from zoo.registry import create_sam

SMALL = TrainConfig(objects=1)


def test_reframing_moves_content_between_frames() -> None:
    """A ramp over a squashed image, moved to a frame that the image fills by half: the ramp, twice as steep, then 0."""
    ramp = ((torch.arange(64) + 0.5) / 64)[None, None, :, None].expand(1, 1, 64, 64).contiguous()
    moved = reframe(ramp, torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 1.0]]))[0, 0, :, 0]
    torch.testing.assert_close(moved[1:31], (torch.arange(1, 31) + 0.5) / 32)
    assert moved[32:].eq(0).all()
    same = reframe(ramp, torch.tensor([[0.7, 1.0]]), torch.tensor([[0.7, 1.0]]))
    torch.testing.assert_close(same[0, 0, :44], ramp[0, 0, :44])


def test_distillation_learns_from_the_teacher_alone() -> None:
    """A student that is its teacher has nothing to learn; another one comes nearer, and only its encoder changes."""
    teacher = create_sam("light_repvit_m0_9", "random:1")
    prompting, _ = training_geometry(teacher, SMALL)
    data = PairedImages(SyntheticImages(256), prompting, teacher.spec)
    batch = {key: value[None] for key, value in data[0].items()}
    torch.testing.assert_close(batch["teacher_image"], batch["image"])
    same = Distillation(create_sam("light_repvit_m0_9", "random:1"), teacher, "both", mask_weight=1).eval()
    assert same(batch)["embedding"].item() == pytest.approx(0, abs=1e-6)
    other = Distillation(create_sam("light_repvit_m0_9", "random:2"), teacher).eval()
    before = {key: value.clone() for key, value in other.state_dict().items()}
    assert torch.equal(other.sam.mask_decoder.iou_token.weight, teacher.mask_decoder.iou_token.weight)
    losses = descend(other, batch, 4, partial(torch.optim.AdamW, lr=1e-3))
    assert losses[-1] < 0.9 * losses[0]
    changed = {key for key, value in other.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all("sam.image_encoder" in key for key in changed)


@pytest.mark.parametrize("taught", [True, False])
def test_a_student_prompts_with_masks_where_its_decoder_learnt_to(taught: bool) -> None:
    student, teacher = (create_sam("light_repvit_m0_9", f"random:{seed}") for seed in (1, 2))
    student.spec = replace(student.spec, mask_prompts=not taught)
    teacher.spec = replace(teacher.spec, mask_prompts=taught)
    assert Distillation(student, teacher).sam.spec.mask_prompts is taught


def test_stored_embeddings_are_the_teachers(tmp_path: Path) -> None:
    teacher = create_sam("light_repvit_m0_9", "random:1")
    card = write_store(teacher, ["synthetic"], 96, 4, count=5, folder=tmp_path, shard_size=2)
    first, second, third = shard_paths(tmp_path, card)
    kept = (first.stat().st_mtime_ns, third.stat().st_mtime_ns)
    second.unlink()
    with pytest.raises(InputError, match="1 files missing"):
        EmbeddingStore(tmp_path)
    write_store(teacher, ["synthetic"], 96, 4, count=5, folder=tmp_path, shard_size=2)
    assert (first.stat().st_mtime_ns, third.stat().st_mtime_ns) == kept, "goes on with what is missing"
    store = EmbeddingStore(tmp_path)
    prompting = Prompting(teacher.spec, objects=1, augment=False)
    pairs = StoredPairs(store, prompting, teacher.spec)
    live = PairedImages(SyntheticImages(96, 4 << 32), prompting, teacher.spec)
    for index in (0, 3, 4, 5):
        stored, place = pairs[index], int(epoch_order(prompting.seed, index // 5, 5)[index % 5])
        assert image_name(pairs, index) == f"seed {(4 << 32) + place}"
        image = live[place]["teacher_image"]
        torch.testing.assert_close(stored["image"], image)
        with torch.inference_mode():
            expected = teacher.image_encoder(image[None])[0]
        torch.testing.assert_close(stored["teacher_embedding"].float(), expected, rtol=1e-2, atol=1e-2)
    task = Distillation(create_sam("light_repvit_m0_9", "random:1"), teacher).eval()
    assert task({key: value[None] for key, value in pairs[3].items()})["loss"].item() < 1e-4


def test_batches_and_processes_change_nothing_in_a_store(tmp_path: Path) -> None:
    """Batches end where files do, also where only a file in the middle is missing."""
    teacher, told = create_sam("light_repvit_m0_9", "random:1"), []
    for name, how in (("alone", {}), ("together", {"batch_size": 2, "workers": 1})):
        card = write_store(teacher, ["synthetic"], 96, 4, 8, tmp_path / name, shard_size=3, **how)
    shard_paths(tmp_path / "together", card)[1].unlink()
    write_store(teacher, ["synthetic"], 96, 4, 8, tmp_path / "together", 3, 2, told=lambda *done: told.append(done))
    assert told == [(5, 8), (7, 8), (8, 8)]
    for own, other in zip(*(shard_paths(tmp_path / name, card) for name in ("alone", "together")), strict=True):
        alone, together = load_file(own), load_file(other)
        assert torch.equal(alone["images"], together["images"])
        torch.testing.assert_close(alone["embeddings"], together["embeddings"], rtol=1e-2, atol=1e-3)


class Holed(SyntheticImages):
    """Image 3 cannot be read."""

    def image(self, index: int) -> LabelledImage:
        if index == 3:
            raise InputError("scan3.npy", "half a file", "a whole one")
        return super().image(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_embedded_costs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    teacher = create_sam("light_repvit_m0_9", "random:1")
    monkeypatch.setattr(embed, "open_source", lambda *given: Holed(96))
    with pytest.raises(InputError, match=r"^scan3.npy: found half a file"):
        write_store(teacher, ["synthetic"], 96, 0, 6, tmp_path, shard_size=2, batch_size=2, workers=workers)
    assert [path.name for path in sorted(tmp_path.glob("*.safetensors"))] == ["embeddings-00000.safetensors"]


def test_an_embedding_that_is_not_finite_is_named(tmp_path: Path) -> None:
    class Overflowing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack(
                [torch.full((256, 64, 64), 7e4 if number == 1 else 1.0) for number in range(len(images))]
            )

    teacher = create_sam("light_repvit_m0_9", "random:1")
    teacher.image_encoder = Overflowing()  # more than float16 holds
    with pytest.raises(InputError, match=r"^seed 1: found an embedding that is not finite in float16"):
        write_store(teacher, ["synthetic"], 96, 0, 3, tmp_path, batch_size=3)


def test_each_epoch_has_every_embedding_in_an_order_of_its_own(tmp_path: Path) -> None:
    teacher = create_sam("light_repvit_m0_9", "random:1")
    write_store(teacher, ["synthetic"], 96, 0, count=3, folder=tmp_path)
    pairs = StoredPairs(EmbeddingStore(tmp_path), Prompting(teacher.spec, objects=1, augment=False), teacher.spec)
    sums = [round(float(pairs[index]["teacher_embedding"].double().sum()), 3) for index in range(12)]
    epochs = [sums[start : start + 3] for start in (0, 3, 6, 9)]
    assert len(set(sums)) == 3
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert any(epoch != epochs[0] for epoch in epochs)


def test_splitting_a_batch_changes_nothing() -> None:
    """Images of unlike shape, one of which fills a quarter of its frame: each counts the same, as in `--accumulate`."""
    student, teacher = (create_sam("light_repvit_m0_9", f"random:{seed}") for seed in (1, 2))
    task, images = Distillation(student, teacher).eval(), torch.rand(2, 3, 256, 256)
    batch = {"image": images, "teacher_image": images, "content": torch.tensor([[1.0, 1.0], [0.25, 1.0]])}
    with torch.inference_mode():
        whole, *parts = (task({k: v[part] for k, v in batch.items()})["loss"].item() for part in ([0, 1], [0], [1]))
    assert whole == pytest.approx(np.mean(parts), rel=1e-5)
    assert parts[0] != pytest.approx(parts[1], rel=1e-3)


def test_distil_has_no_loss_to_choose() -> None:
    result = CliRunner().invoke(main, ["distill", "--loss", "sum"])
    assert "No such option" in result.output


def test_files_are_embedded_once(tmp_path: Path) -> None:
    teacher, told = create_sam("light_repvit_m0_9", "random:1"), []
    files = str(npy_folder(tmp_path))
    card = write_store(teacher, [files], 0, 0, 1000, tmp_path / "all", told=lambda *done: told.append(done))
    assert (card.count, told) == (2, [(0, 2), (1, 2), (2, 2)])
    assert images_of(open_source([files, files], 0)) == 4
    assert images_of(open_source([files, "synthetic"], 64)) == np.inf


def test_files_of_several_sources_are_embedded_once_each(tmp_path: Path) -> None:
    """In turns, until one has no more; synthetic images make up the rest."""
    teacher = create_sam(ENCODER, "random:1")
    sources = [str(labelled_folder(tmp_path / f"of{count}", count)) for count in (1, 3)]
    for data, most, names in (
        (sources, 1000, ["0.npy", "0.npy", "1.npy", "2.npy"]),
        ([sources[0], "synthetic"], 3, ["0.npy", f"seed {1 << 72}", f"seed {(1 << 72) + 1}"]),
    ):
        folder = tmp_path / str(most)
        card = write_store(teacher, data, 64, 0, most, folder, shard_size=2)
        assert (card.count, card.once) == (len(names), True)
        shard_paths(folder, card)[1].unlink()
        assert write_store(teacher, data, 64, 0, most, folder, shard_size=2) == card, "goes on with what is missing"
        store = EmbeddingStore(folder)
        source = store.source()
        drawn = [source.image(index) for index in store.indices(source)]
        assert sorted(Path(image.name).name for image in drawn) == names
        for place, image in enumerate(drawn):
            store.embedding(place, image)
        pairs = StoredPairs(store, Prompting(teacher.spec, objects=1, augment=False), teacher.spec)
        sums = {round(float(pairs[index]["teacher_embedding"].double().sum()), 3) for index in range(len(names))}
        assert len(sums) == len({image.image.tobytes() for image in drawn})


def test_a_store_of_before_has_its_files_again(tmp_path: Path) -> None:
    """Of 1 and 2 files 4 images; its card knows nothing of passing over, but of a size that files do not have."""
    teacher = create_sam(ENCODER, "random:1")
    sources = [str(labelled_folder(tmp_path / f"of{count}", count)) for count in (1, 2)]
    source = open_source(sources, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "indices_once", lambda source, most: list(range(4)))
        write_store(teacher, sources, 0, 0, 4, tmp_path / "store")
    card = json.loads((tmp_path / "store" / embed.CARD).read_text())
    del card["once"]
    (tmp_path / "store" / embed.CARD).write_text(json.dumps({**card, "size": 256}))
    store = EmbeddingStore(tmp_path / "store")
    assert list(store.indices(source)) == [0, 1, 2, 3]
    for place in range(4):
        store.embedding(place, source.image(place))
    with pytest.raises(InputError, match="a store of another teacher, count or version, or of other images"):
        write_store(teacher, sources, 0, 0, 4, tmp_path / "store")


def test_a_store_goes_on_with_the_files_that_it_began_with(tmp_path: Path) -> None:
    """Where one is gone, the others come in another order, and files of the store would be of other images."""
    teacher, files = create_sam(ENCODER, "random:1"), labelled_folder(tmp_path / "files", 5)
    for count in (4, 1000):
        embed_them = partial(write_store, teacher, [str(files)], 0, 0, count, tmp_path / str(count), shard_size=2)
        shard_paths(tmp_path / str(count), embed_them())[1].unlink()
    for part in ("imgs", "gts"):
        (files / part / "3.npy").unlink()
    for count in (4, 1000):
        with pytest.raises(InputError, match="a store of files of which some have since got another name or"):
            write_store(teacher, [str(files)], 0, 0, count, tmp_path / str(count), shard_size=2)
        assert not (tmp_path / str(count) / "embeddings-00001.safetensors").exists()


def test_the_size_of_synthetic_images_is_nothing_to_files(tmp_path: Path) -> None:
    teacher, files = create_sam(ENCODER, "random:1"), [str(labelled_folder(tmp_path / "files", 1))]
    cards = [write_store(teacher, files, size, 0, 1, tmp_path / "store") for size in (64, 96)]
    assert cards[0] == cards[1]
    write_store(teacher, ["synthetic"], 64, 0, 1, tmp_path / "drawn")
    with pytest.raises(InputError, match="a store of another teacher, count or version, or of other images"):
        write_store(teacher, ["synthetic"], 96, 0, 1, tmp_path / "drawn")


@pytest.mark.parametrize(("words", "told"), [
    (["--freeze", "mask_decoder"], "--freeze mask_decoder: distill trains nothing but the image encoder"),
    (["--freeze", "batch_norm", "--freeze", "points_and_boxes"], "--freeze points_and_boxes: distill trains nothing"),
    (["--mask-rounds", "3"], "--mask-rounds: without --mask-weight no masks are compared"),
])  # fmt: skip
def test_what_would_change_nothing_is_refused(words: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["distill", "--teacher-weights", "nowhere.pth", *words, "-o", "unused"])
    assert result.exit_code == 2
    assert told in result.output


def test_a_store_of_another_teacher_is_refused(tmp_path: Path) -> None:
    teacher, other = (create_sam("light_repvit_m0_9", f"random:{seed}") for seed in (1, 2))
    write_store(teacher, ["synthetic"], 96, 0, count=1, folder=tmp_path)
    store = EmbeddingStore(tmp_path)
    store.check_teacher(teacher)
    with pytest.raises(InputError, match="embeddings of light_repvit_m0_9 with weights"):
        store.check_teacher(other)
    with pytest.raises(InputError, match="another teacher"):
        write_store(other, ["synthetic"], 96, 0, count=1, folder=tmp_path)
    shard_paths(tmp_path, store.card)[0].write_bytes(b"torn")
    with pytest.raises(InputError, match="no readable embeddings"):
        store.embedding(0, SyntheticImages(96).image(0))
    with pytest.raises(InputError, match="no store of embeddings"):
        EmbeddingStore(tmp_path / "nowhere")


def test_images_that_changed_since_they_were_embedded_are_told_of(tmp_path: Path) -> None:
    teacher = create_sam("light_repvit_m0_9", "random:1")
    write_store(teacher, ["synthetic"], 96, 0, count=2, folder=tmp_path)
    store, images = EmbeddingStore(tmp_path), SyntheticImages(96)
    store.embedding(1, images.image(1))
    changed = images.image(1).image.copy()
    changed[5, 5, 0] ^= 1
    with pytest.raises(InputError, match="seed 1: found another image than was embedded at place 1"):
        store.embedding(1, replace(images.image(1), image=changed))


def npy_folder(root: Path, count: int = 2) -> Path:
    """The layout of other tools, with the embeddings of `random:1`."""
    teacher = create_sam("light_repvit_m0_9", "random:1").eval()
    images = SyntheticImages(96)
    write_store(teacher, ["synthetic"], 96, 0, count, root / "store")
    for part in ("imgs", "gts", "embeddings"):
        (root / part).mkdir()
    for index in range(count):
        drawn = images.image(index)
        embedding = EmbeddingStore(root / "store").embedding(index, drawn).numpy()
        for part, array in (("imgs", drawn.image), ("gts", drawn.labels), ("embeddings", embedding)):
            np.save(root / part / f"{index}.npy", array)
    return root


def test_embeddings_beside_images_are_used_by_name(tmp_path: Path) -> None:
    teacher, other = (create_sam("light_repvit_m0_9", f"random:{seed}") for seed in (1, 2))
    (npy_folder(tmp_path) / "imgs" / "._0.npy").write_bytes(b"as macOS leaves it")
    embeddings = open_embeddings(tmp_path)
    assert (embeddings.count, embeddings.data) == (2, [str(tmp_path)])
    embeddings.check_teacher(teacher)
    with pytest.raises(InputError, match="an embedding whose cosine to that of light_repvit_m0_9 is"):
        embeddings.check_teacher(other)
    pairs = StoredPairs(embeddings, Prompting(teacher.spec, objects=1, augment=False), teacher.spec)
    task = Distillation(create_sam("light_repvit_m0_9", "random:1"), teacher).eval()
    for index in range(2):
        assert task({key: value[None] for key, value in pairs[index].items()})["loss"].item() < 1e-4


def test_bad_embeddings_beside_images(tmp_path: Path) -> None:
    embeddings = NpyEmbeddings(npy_folder(tmp_path))
    drawn = embeddings.source().image(0)
    path = tmp_path / "embeddings" / Path(drawn.name).name
    for array in (np.zeros((256, 32, 32), np.float16), np.full((256, 64, 64), np.nan, np.float16)):
        np.save(path, array)
        with pytest.raises(InputError, match="finite floats"):
            embeddings.embedding(0, drawn)
    path.unlink()
    with pytest.raises(InputError, match="no embeddings of 1 of 2 images"):
        open_embeddings(tmp_path)


def test_clicks_say_where_masks_differ() -> None:
    """Pixel (row 2, column 5) of 8 is at 5.5 * 32 - 0.5 and 2.5 * 32 - 0.5 in a frame of 256."""
    wanted, found = torch.zeros(4, 8, 8, dtype=torch.bool), torch.zeros(4, 8, 8, dtype=torch.bool)
    wanted[0, 2, 5] = True
    found[1, 2, 5] = True
    wanted[3, 7, 7] = True
    inside = torch.ones(4, 8, 8, dtype=torch.bool)
    inside[3, 6:] = False
    clicks = draw_clicks(found, wanted, inside, 256)
    assert clicks[:2].tolist() == [[175.5, 79.5, 1], [175.5, 79.5, 0]]
    assert clicks[2:, 2].tolist() == [-1, -1], "nothing differs, or only in the padding"
    many = torch.zeros(50, 8, 8, dtype=torch.bool)
    many[:, 4, :] = True
    drawn = draw_clicks(torch.zeros_like(many), many, torch.ones_like(many), 256)
    assert set(drawn[:, 1].tolist()) == {143.5}
    assert len(set(drawn[:, 0].tolist())) > 4, "anywhere in it"


def test_clicks_are_decoded_as_by_the_plain_decoder() -> None:
    sam = create_sam("light_repvit_m0_9", "random:1").eval()
    embedding = torch.randn(1, 256, 64, 64)
    boxes = torch.tensor([[10.0, 20, 90, 80], [100, 30, 200, 220]])
    clicks = torch.tensor([[[50.5, 40.5, 1], [20, 30, 0]], [[150, 100, 0], [0, 0, -1]]])
    with torch.inference_mode():
        logits, iou = Finetuning(sam).decode(embedding, boxes[None], clicks[None])
        plain, plain_iou = sam.mask_decoder(
            embedding,
            sam.prompt_encoder.get_dense_pe(),
            *sam.prompt_encoder((clicks[..., :2], clicks[..., 2]), boxes, None),
            False,
        )
    torch.testing.assert_close(logits, plain[:, 0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(iou, plain_iou[:, 0], rtol=1e-3, atol=1e-3)


def test_masks_of_the_teacher_are_learned_in_rounds_of_prompting() -> None:
    """The student comes nearer to the teacher's masks, and the second round sees a click that the first did not."""
    teacher = create_sam("light_repvit_m0_9", "random:1")
    prompting, _ = training_geometry(teacher, SMALL)
    batch = {k: v[None] for k, v in PairedImages(SyntheticImages(256), prompting, teacher.spec)[0].items()}
    task = Distillation(create_sam("light_repvit_m0_9", "random:2"), teacher, mask_weight=1, mask_rounds=2).eval()
    seen: list[int] = []
    decode = task.finetuning.decode
    task.finetuning.decode = lambda e, b, c: (seen.append(c.shape[2]), decode(e, b, c))[1]  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(task.sam.image_encoder.parameters(), lr=1e-3)
    losses = []
    torch.manual_seed(0)  # of the clicks, which are others in each step
    for _ in range(7):
        optimizer.zero_grad()
        numbers = task(batch)
        numbers["loss"].backward()
        optimizer.step()
        losses.append(float(numbers["masks"]))
    assert seen[:4] == [0, 0, 1, 1]
    assert losses[-1] < losses[0]


def test_embeddings_come_with_their_own_images(tmp_path: Path) -> None:
    words = ["--teacher-weights", "random:1", "--embeddings", str(tmp_path), "--data", "does/not/exist", "-o", "unused"]
    told = CliRunner().invoke(main, ["distill", *words])
    assert told.exit_code == 1
    assert "--data: found does/not/exist beside --embeddings; expected one of the two" in told.output
