"""Figures as files: which are drawn, by which process, and in which colours on light and on dark pages."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import rc_context
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from record_book import FLOOR, REPVIT, Book, candidate, protocol

from reports.commands import report
from reports.load import load_records
from reports.machine import machine_reports
from reports.pictures import CAPTIONS, drawing_process
from reports.plots import DRAWINGS
from reports.plots.style import DARK_GROUND, DARK_INK, GROUND, INK, STYLE, darkened, fingerprint, palette, save
from reports.render import render_report

#: What eyes of three kinds see of linear RGB. Source: Machado, Oliveira, Fernandes, IEEE TVCG 15 (2009), severity 1.0.
COLOUR_BLINDNESS = {
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "records.jsonl")


def test_every_figure_has_a_caption() -> None:
    assert list(DRAWINGS) == list(CAPTIONS)


def test_figures_are_drawn_where_there_is_data(book: Book) -> None:
    out = book.path.parent / "report"
    who = candidate("repvit", trained=True)
    book.parts(who, [1.0, 1.1])
    assert book.report(out).count("<picture>") == 1
    assert sorted(path.name for path in out.glob("*.png")) == ["encoder_latency.png", "encoder_latency_dark.png"]
    book.one_pass(who, 10.0, protocol("cached"))
    book.scores(FLOOR, [0.5])
    book.scores(REPVIT, [0.9])
    assert "accuracy_latency" not in book.report(out), "random weights"
    book.scores(who, [0.9])
    text = book.report(out)
    pictures = sorted(path.name for path in out.glob("*.png"))
    drawn = ("accuracy_latency", "case_stages", "dsc_distribution", "encoder_latency")
    assert pictures == [f"{name}{theme}.png" for name in drawn for theme in ("", "_dark")]
    assert all(f'="{name}"' in text for name in pictures)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert (out / "report.md").read_text().startswith(text)
    assert not list(out.glob(".*")), "nothing half written is left"


def test_another_process_draws_the_same_figures(book: Book) -> None:
    here, there = book.path.parent / "here", book.path.parent / "there"
    for machine in ("m1", "m2"):
        book.parts(REPVIT, [1.0], machine=machine)
    text = render_report([book.path], here)
    with drawing_process() as pool:
        assert render_report([book.path], there, pool=pool) == text
    pictures = sorted(path.name for path in there.glob("*.png"))
    assert len(pictures) == 4
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in pictures)
    assert (here / "report.html").read_bytes() == (there / "report.html").read_bytes()
    latest = machine_reports(load_records([book.path]))[0]
    with rc_context(STYLE):
        figure = DRAWINGS["encoder_latency"](latest)
    assert figure is not None
    with Image.open(there / "encoder_latency.png") as picture:
        assert picture.info["fingerprint"] == fingerprint(figure), "of all that the report knows"


def test_figures_of_an_earlier_report_are_removed(book: Book) -> None:
    out = book.path.parent / "report"
    out.mkdir()
    earlier = ["roofline.png", "roofline_dark.png", "case_stages_0123456789ab.png", "case_stages_0123456789ab_dark.png"]
    for name in (*earlier, "mine.png"):
        (out / name).touch()
    book.parts(REPVIT, [1.0])
    render_report([book.path], out)
    kept = sorted(path.name for path in out.glob("*.png"))
    assert kept == ["encoder_latency.png", "encoder_latency_dark.png", "mine.png"]


def test_a_drawing_process_that_ends_is_told_of(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> Executor:
        pool = drawing_process()
        pool.submit(os._exit, 9)
        return pool

    monkeypatch.setattr("reports.pictures.drawing_process", killed)
    book.parts(REPVIT, [1.0])
    result = CliRunner().invoke(report, [str(book.path), "-o", str(book.path.parent / "report")])
    assert result.exit_code == 1
    assert "Error: figures: the process that draws them was ended" in result.output
    assert "--no-figures" in result.output


def test_dark_pictures_are_as_if_drawn_in_mapped_colours(tmp_path: Path) -> None:
    plain = [to_hex(colour) for colour in palette(8)]
    mapped = [to_hex(colour / 255) for colour in darkened(np.array([to_rgb(c) for c in plain]) * 255)]

    def drawn(ink: str, ground: str, colours: list[str]) -> Figure:
        figure = Figure(figsize=(3, 2), facecolor=ground)
        for number, colour in enumerate(colours):
            figure.text(0.1, 0.1 * number, "AVWm", color=colour, fontsize=14)
            figure.text(0.6, 0.1 * number, "AVWm", color=ink, fontsize=14, alpha=0.5)
        return figure

    save(drawn(INK, GROUND, plain), tmp_path / "light.png", tmp_path / "dark.png")
    save(drawn(DARK_INK, DARK_GROUND, mapped), tmp_path / "drawn.png", tmp_path / "_.png")
    dark, drawn_dark = (np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB"), float) for n in ("dark", "drawn"))
    assert np.abs(dark - drawn_dark).mean() < 1.5, "but for the choice of 256 colours"
    assert np.abs(dark[-1, -1] - 255 * np.array(to_rgb(DARK_GROUND))).max() <= 1.01
    light, dark_file = (Image.open(tmp_path / f"{name}.png") for name in ("light", "dark"))
    assert np.array_equal(np.asarray(light), np.asarray(dark_file)), "same places in the lists of colours"


def test_colours_stand_out_on_dark_pages_as_on_light_ones() -> None:
    colours = np.array([to_rgb(colour) for colour in (INK, *palette(6))])
    for light, dark in zip(colours, darkened(colours * 255) / 255, strict=True):
        assert contrast(dark, to_rgb(DARK_GROUND)) > 0.9 * contrast(light, to_rgb(GROUND))
        assert abs(rgb_to_hsv(dark)[0] - rgb_to_hsv(light)[0]) < 0.03 or rgb_to_hsv(light)[1] < 0.1, "the same hue"


@pytest.mark.parametrize("kind", COLOUR_BLINDNESS)
def test_colours_are_apart_on_both_grounds_for_all_eyes(kind: str) -> None:
    light = np.array([to_rgb(colour) for colour in palette(6)])
    for colours in (light, darkened(light * 255) / 255):
        seen = [cie_lab(linear(colour) @ np.transpose(COLOUR_BLINDNESS[kind])) for colour in colours]
        assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 9


def cie_lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE 1976 L*a*b* of linear sRGB (3,) under D65: distances are what eyes tell apart, 2.3 being just noticed."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ rgb.clip(0.001, 1) / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def linear(rgb: ArrayLike) -> NDArray[np.float64]:
    """sRGB (0 to 1) as light."""
    values = np.asarray(rgb, float)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: ArrayLike, other: ArrayLike) -> float:
    """WCAG 2's contrast ratio of two colours (0 to 1)."""
    darker, brighter = sorted(linear([one, other]) @ (0.2126, 0.7152, 0.0722))
    return float((brighter + 0.05) / (darker + 0.05))


def test_figures_of_machines_have_their_own_files(book: Book) -> None:
    out = book.path.parent / "report"
    book.parts(REPVIT, [1.0], machine="m1")
    book.parts(REPVIT, [1.0], machine="m2")
    book.report(out)
    light = sorted(path.name for path in out.glob("*.png") if "dark" not in path.name)
    assert light == ["encoder_latency.png", "encoder_latency_m1.png"]


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), NotImplementedError("no semaphores")])
def test_without_shared_memory_figures_are_drawn_here(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As in a container without /dev/shm."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("reports.pictures.ProcessPoolExecutor", refuse)
    book.parts(candidate("repvit"), [0.1, 0.2])
    done = CliRunner().invoke(report, [str(book.path), "-o", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report" / "encoder_latency.png").is_file()
