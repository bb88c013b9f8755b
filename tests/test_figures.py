"""Figures: what each says of its origin, that nothing sticks out, and what is left out where there is too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from record_book import CT_0860, FLOOR, REPVIT, SKIN, Book, candidate, protocol
from test_peak import peak

from reports.accuracy import accuracy_rows, on_shared_labels
from reports.load import load_records
from reports.machine import MachineReport, machine_reports
from reports.plots import DRAWINGS
from reports.plots.accuracy import MAX_STRIPS, accuracy_figure, distribution_figure, pareto_front
from reports.plots.cases import MAX_BARS, scaling_figure, stages_figure
from reports.plots.style import (
    OTHER_MARKER,
    PRECISION_MARKER,
    RUNTIME_MARKERS,
    Entry,
    by_column,
    fingerprint,
    plain_log,
)

RUNTIMES = (("torch", "fp32"), ("onnxruntime", "int8"), ("openvino", "bf16"), ("openvino", "int8"))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> MachineReport:
    """Twelve encoders of 1 ms to 4 s in four runtimes, on cases of three sizes."""
    book = Book(tmp_path_factory.mktemp("crowd") / "records.jsonl")
    peak(book)
    cases = [
        {
            **CT_0860,
            "case_id": f"phantom_3DBox_CT_with_a_long_name_{size}",
            "shape": [16 * size, 64, 64],
            "objects": size,
            "sha256": str(size),
        }
        for size in (1, 2, 4)
    ]
    for case in (*cases, SKIN):
        book.scores(FLOOR, [0.5, 0.6], case)
    for number in range(12):
        for backend, precision in RUNTIMES:
            who = candidate(f"encoder_of_a_name_{number}", trained=True, backend=backend, precision=precision)
            book.cost(who, gmacs=2.0**number)
            book.parts(who, [0.001 * 2.0**number, 0.0011 * 2.0**number])
            book.scores(who, [0.7, 0.8])
            for case in cases:
                book.one_pass(who, 10.0 * case["objects"] + number, protocol("cached"), case)
    (report,) = machine_reports(load_records([book.path]))
    return report


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "records.jsonl")


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_figures_say_where_they_come_from_and_nothing_sticks_out(crowd: MachineReport, draw: object) -> None:
    figure = draw(crowd)  # type: ignore[operator]
    for fact in ("Test CPU (avx2), 2 cores", "2 threads", "n = ", "records.jsonl (run run1)"):
        assert fact in texts(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    around, height_in = figure.get_tightbbox(canvas.get_renderer()), figure.get_figheight()
    assert around.x0 >= -0.02
    assert around.x1 <= figure.get_figwidth() + 0.02
    assert around.y0 >= -0.02
    assert around.y1 <= height_in + 0.02
    assert height_in < 20
    assert min(axes.get_position().width for axes in figure.axes) > 0.3, "what is drawn has the room, not the names"


def test_too_many_bars_are_left_to_the_table(crowd: MachineReport) -> None:
    figure = stages_figure(crowd)
    assert figure is not None
    bars = sum(len(axes.get_yticks()) for axes in figure.axes)
    assert 12 < bars <= MAX_BARS
    assert f"{3 * 12 * 4 - bars} more rows are in the table" in texts(figure)


def test_scaling_is_a_slices_seconds_against_objects(crowd: MachineReport) -> None:
    """Cases of more objects have more slices here: what slices alone do to seconds cannot be told."""
    figure = scaling_figure(crowd)
    assert figure is not None
    (objects,) = figure.axes
    line = objects.lines[0].get_xydata().tolist()  # type: ignore[union-attr]
    number = crowd.cases[0].median_s - 10.0
    assert [place for place, _ in line] == [1, 2, 4]
    assert any(
        [tuple(point) for point in each.get_xydata()]  # type: ignore[union-attr]
        == [(1, (10 + number) / 16), (2, (20 + number) / 32), (4, (40 + number) / 64)]
        for each in objects.lines
    )


def sized(objects: int, slices: int) -> dict[str, object]:
    return {**CT_0860, "shape": [slices, 64, 64], "objects": objects, "sha256": f"{objects} {slices}"}


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_seconds_against_slices_are_of_cases_with_as_many_objects(book: Book) -> None:
    for objects, slices in ((2, 4), (2, 6), (5, 40)):
        book.one_pass(REPVIT, 0.1 * slices * objects, protocol("cached"), sized(objects, slices))
    (report,) = machine_reports(load_records([book.path]))
    figure = scaling_figure(report)
    assert figure is not None
    _, slices_axes = figure.axes
    assert slices_axes.lines[0].get_xdata().tolist() == [4, 6]  # type: ignore[union-attr]


def test_slices_outside_all_boxes_are_not_counted(book: Book) -> None:
    for depth, encoded in ((40, 4), (50, 10)):
        book.one_pass(REPVIT, 0.2 * encoded, protocol("cached"), sized(1, depth), encoded_slices=encoded)
    book.one_pass(REPVIT, 1.0, protocol("cached"), sized(2, 40), encoded_slices=5)
    (report,) = machine_reports(load_records([book.path]))
    figure = scaling_figure(report)
    assert figure is not None
    objects, slices = figure.axes
    assert [tuple(point) for point in slices.lines[0].get_xydata()] == [(4, 0.8), (10, 2.0)]  # type: ignore[union-attr]
    assert objects.lines[0].get_ydata().tolist() == pytest.approx([0.2, 0.2])  # type: ignore[union-attr]


def test_encoders_are_compared_in_the_runtime_that_most_were_timed_in(book: Book) -> None:
    """Of two of three encoders another runtime has more cases."""
    for encoder in ("one", "two", "three"):
        for objects in (1, 2):
            book.one_pass(candidate(encoder), 1.0 * objects, protocol("cached"), sized(objects, 4))
        for objects in (1, 2, 3) if encoder != "three" else ():
            who = candidate(encoder, backend="openvino", precision="int8")
            book.one_pass(who, 0.1 * objects, protocol("cached"), sized(objects, 4))
    (report,) = machine_reports(load_records([book.path]))
    figure = scaling_figure(report)
    assert figure is not None
    assert "torch fp32; n = " in texts(figure)
    assert sorted(legend_of(figure)) == ["cached", "one", "three", "two"]
    for objects in (1, 2):
        book.one_pass(candidate("four", backend="cuda"), 1.0 * objects, protocol("cached"), sized(objects, 4))
    (report,) = machine_reports(load_records([book.path]))
    figure = scaling_figure(report)
    assert figure is not None
    assert {"one, torch", "four, cuda"} <= set(legend_of(figure))


@pytest.mark.parametrize("limits", [(4.1, 4.9), (4, 6), (0.19, 0.21), (1, 1000)])
def test_a_logarithmic_axis_has_two_numbers_or_more(limits: tuple[float, float]) -> None:
    axes = Figure().subplots()
    axes.set_xlim(*limits)
    plain_log(axes, "x")
    assert sum(limits[0] <= tick <= limits[1] for tick in axes.get_xticks()) >= 2


def test_every_runtime_shows_its_precision() -> None:
    """A star's halves cannot be told apart; and no runtime looks like another one, or like a precision's sample."""
    marks = [*RUNTIME_MARKERS.values(), OTHER_MARKER, PRECISION_MARKER]
    assert len(set(marks)) == len(marks)
    assert "*" not in marks


def test_strips_of_a_modality_hold_the_same_labels(book: Book) -> None:
    """One of two candidates was also scored on a phantom and on a cut of the case."""
    cases = [{**CT_0860, "case_id": "whole", "sha256": "w"}, {**CT_0860, "case_id": "whole", "sha256": "cut"}, CT_0860]
    for case in cases:
        book.scores(FLOOR, [0.5, 0.6], case)
    for name, count in (("first", 1), ("second", 3)):
        who = candidate(name, trained=True)
        book.parts(who, [0.01, 0.011])
        for case in cases[:count]:
            book.scores(who, [0.8, 0.9], case)
    (report,) = machine_reports(load_records([book.path]))
    figure = distribution_figure(report)
    assert figure is not None
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CT 3D"]
    assert [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"] == [2, 2, 2]  # type: ignore[arg-type]
    assert "n = 2 labels a candidate" in texts(figure)


def test_strips_are_few(crowd: MachineReport) -> None:
    distribution = DRAWINGS["dsc_distribution"]
    (legend,) = distribution(crowd).legends  # type: ignore[union-attr]
    assert len(legend.get_texts()) == MAX_STRIPS


def test_strips_show_each_model_in_fp32_and_of_one_model_each_precision(book: Book) -> None:
    """In int8 the first scores more by chance."""
    book.scores(FLOOR, [0.4], CT_0860)

    def dots_with(*more: tuple[dict[str, Any], float]) -> list[float]:
        for who, dsc in more:
            book.parts(who, [0.01, 0.011])
            book.scores(who, [dsc], CT_0860)
        (report,) = machine_reports(load_records([book.path]))
        figure = distribution_figure(report)
        assert figure is not None
        lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
        return [float(line.get_xdata()[0]) for line in lines]  # type: ignore[index,arg-type]

    precisions = (("fp32", 0.9), ("bf16", 0.89), ("int8", 0.95))
    openvino = {"trained": True, "backend": "openvino"}
    first = [(candidate("first", precision=name, **openvino), dsc) for name, dsc in precisions]
    assert dots_with(*first) == [0.4, 0.95, 0.9, 0.89]
    others = [(candidate(name, trained=True), dsc) for name, dsc in (("third", 0.5), ("second", 0.6))]
    assert dots_with(*others) == [0.4, 0.9, 0.6, 0.5]


def test_a_fingerprint_is_of_what_is_said_and_drawn(crowd: MachineReport) -> None:
    first, again, other = (stages_figure(crowd) for _ in range(3))
    assert first is not None
    assert again is not None
    assert other is not None
    other.axes[0].patches[0].set_width(7.5)  # type: ignore[attr-defined]
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    again.texts[0].set_text("another heading")
    assert fingerprint(first) != fingerprint(again)


def test_legends_read_row_by_row() -> None:
    entries = [Entry(label, {}) for label in "abcde"]
    assert "".join(entry.label for entry in by_column(entries, 2)) == "acebd"


def test_front_holds_what_no_other_beats() -> None:
    points = [(3.0, 0.8), (1.0, 0.5), (2.0, 0.4), (4.0, 0.8), (1.0, 0.6)]
    assert pareto_front(points) == [(1.0, 0.6), (3.0, 0.8)]


def test_accuracy_is_compared_on_labels_that_all_have(book: Book) -> None:
    """The second candidate saw one more case, an easy one; and the first a hard protocol on a single case."""
    cases = [{**CT_0860, "case_id": name, "sha256": name} for name in ("a", "b", "easy")]
    first, second = candidate("first", trained=True), candidate("second", trained=True)
    for case in cases:
        book.scores(FLOOR, [0.5], case)
    for who, dsc in ((first, 0.8), (second, 0.7)):
        book.parts(who, [0.01, 0.011])
        for case in cases[:2]:
            book.scores(who, [dsc], case, protocol=protocol("batched"))
    book.scores(second, [1.0], cases[2], protocol=protocol("batched"))
    book.scores(first, [0.1], cases[0], protocol=protocol("cached"))
    (report,) = machine_reports(load_records([book.path]))
    shared = on_shared_labels(report.scored, {row.candidate for row in report.encoders})
    rows = {row.candidate.encoder: row.dsc for row in accuracy_rows(shared, lambda _: "all")}
    assert {name: (round(mean.mean, 6), mean.n) for name, mean in rows.items()} == {
        "box ellipse": (0.5, 2),
        "first": (0.8, 2),
        "second": (0.7, 2),
    }
    figure = accuracy_figure(report)
    assert figure is not None
    assert "DSC: n = 2 cases" in texts(figure)


def test_a_ratio_of_different_runs_is_marked_in_figures_too(book: Book) -> None:
    book.one_pass(candidate("tinyvit"), 60.0, protocol("per_object"))
    book.one_pass(candidate("repvit"), 12.0, protocol("batched"), run_id="run2")
    (report,) = machine_reports(load_records([book.path]))
    figure = stages_figure(report)
    assert figure is not None
    assert "12.0 s   5.00x u" in [text.get_text() for text in figure.axes[0].texts]
    assert "u: a ratio of different runs" in texts(figure)


def test_figures_of_accuracy_name_the_runs_that_scored(book: Book, tmp_path: Path) -> None:
    who, elsewhere = candidate("repvit", trained=True), Book(tmp_path / "scores.jsonl")
    book.parts(who, [1.0, 1.1])
    elsewhere.scores(FLOOR, [0.5], run_id="run2")
    elsewhere.scores(who, [0.9], run_id="run2")
    (report,) = machine_reports(load_records([book.path, elsewhere.path]))
    both, scores_alone = accuracy_figure(report), distribution_figure(report)
    assert both is not None
    assert scores_alone is not None
    assert "records.jsonl" in texts(both)
    assert "scores.jsonl" in texts(both)
    assert "Records: scores.jsonl" in texts(scores_alone)


def test_latencies_beside_accuracies_are_of_one_sweep(book: Book) -> None:
    """One of two candidates was timed once more, alone, on a machine that had slowed down."""
    first, second = candidate("first", trained=True), candidate("second", trained=True)
    book.scores(FLOOR, [0.5])
    for who in (first, second):
        book.parts(who, [0.01, 0.01])
        book.scores(who, [0.8])
    book.parts(first, [0.02, 0.02], run_id="run2")
    (report,) = machine_reports(load_records([book.path]))
    figure = accuracy_figure(report)
    assert figure is not None
    assert "run2" not in texts(figure)
    assert {float(x) for line in figure.axes[0].lines for x in line.get_xdata()} & {10.0, 20.0} == {10.0}  # type: ignore[union-attr]


def test_candidates_are_compared_under_the_protocol_that_most_of_them_have(book: Book) -> None:
    """One of three was also measured by another rule, before and after, and one saw nothing of what the others did."""
    cases = [{**CT_0860, "case_id": name, "sha256": name} for name in ("a", "b")]
    first, second, third, apart = (candidate(name, trained=True) for name in ("first", "second", "third", "apart"))
    for case in cases:
        book.scores(FLOOR, [0.5], case)
        book.scores(first, [0.1], case, protocol=protocol("cached"))
        for who in (first, second, third):
            book.scores(who, [0.8], case, protocol=protocol("batched"))
        book.scores(first, [0.2], case, protocol=protocol("per_object"))
    book.scores(apart, [1.0], {**CT_0860, "case_id": "c", "sha256": "c"}, protocol=protocol("batched"))
    for who in (first, second, third, apart):
        book.parts(who, [0.01, 0.011])
    (report,) = machine_reports(load_records([book.path]))
    rows = [row for row in report.compared if not row.is_floor]
    assert {row.candidate.encoder: (round(row.dsc.mean, 6), row.dsc.n) for row in rows} == dict.fromkeys(
        ("first", "second", "third"), (0.8, 2)
    )
    figure = distribution_figure(report)
    assert figure is not None
    dots = [line.get_xdata() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [list(xs) for xs in dots] == [[0.5] * 2] + [[0.8] * 2] * 3


def test_weights_that_have_a_protocol_of_their_own_are_shown_under_it(book: Book) -> None:
    """Two runtimes of one encoder walk by masks, one of them also without, as three other encoders do."""
    volume = {**CT_0860, "case_id": "a", "sha256": "a"}
    own = [{**candidate("own", trained=True), "backend": runtime} for runtime in ("torch", "openvino")]
    others = [candidate(name, trained=True) for name in ("first", "second", "third")]
    book.scores(FLOOR, [0.5], volume)
    book.scores(own[0], [0.1], volume, protocol=protocol("batched"))
    for who in own:
        book.scores(who, [0.9], volume, protocol={**protocol("batched"), "mask_prompts": True})
    for who in others:
        book.scores(who, [0.7], volume, protocol=protocol("batched"))
    for who in (*own, *others):
        book.parts(who, [0.01, 0.011])
    (report,) = machine_reports(load_records([book.path]))
    means = {row.candidate.backend: row.dsc.mean for row in report.compared if row.candidate.encoder == "own"}
    assert {runtime: round(mean, 6) for runtime, mean in means.items()} == {"torch": 0.9, "openvino": 0.9}


def test_figures_of_scaling_take_several_sizes(book: Book) -> None:
    out = book.path.parent / "report"
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    book.one_pass(REPVIT, 10.0, protocol("batched"))
    book.report(out)
    assert not (out / "case_scaling.png").exists()
    book.one_pass(REPVIT, 20.0, protocol("cached"), case={**CT_0860, "case_id": "long", "objects": 4, "sha256": "l"})
    book.report(out)
    assert (out / "case_scaling.png").exists()
