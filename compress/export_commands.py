"""`repmedsam export` and `repmedsam quantize`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.options import Between, options

if TYPE_CHECKING:
    from bench.candidate import Candidate
    from zoo.data.cases import CaseSource

#: That an export is checked with.
REAL_IMAGES = 4


#: Which model, and where the result goes.
_model_options = options(
    click.option("--encoder", required=True, metavar="NAME", help="Encoder, see `list`."),
    click.option("--weights", metavar="WEIGHTS", help="Checkpoint, card or random:SEED.  [default: what ships]"),
    click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of one operator."),
    click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder."),
)


@click.command(short_help="Write a model as ONNX graphs with a card.")
@_model_options
@click.option("--variant", type=click.Choice(["train", "reparam"]), default="reparam", show_default=True)
@click.option(
    "--cases", multiple=True, default=["phantom"], show_default=True, help="Images to check the graphs with, at most 4."
)
def export(encoder: str, weights: str | None, threads: int, out: Path, variant: str, cases: tuple[str, ...]) -> None:
    """Write a model as ONNX graphs with a card, checked against the model.

    encoder.onnx takes a normalised image to its embedding; boxes.onnx takes the embedding and boxes to one mask each,
    by the fast path, windows.onnx to some places of it, and masks.onnx those of boxes with a neighbouring slice's mask,
    for volumes; fovea.onnx and fovea_masks.onnx are as windows.onnx and masks.onnx, with a fovea, which `segment` uses
    by default; prompts.onnx takes points, boxes and masks. Stock ONNX Runtime runs them.

    \b
    Example:
      repmedsam export --encoder repvit -o runs/repvit-onnx
    """
    from compress.calibration import calibration_inputs, evenly
    from compress.export import export_candidate

    candidate = _candidate(encoder, weights, threads, variant)
    images, _ = calibration_inputs(evenly(_sources(cases), REAL_IMAGES), candidate.sam.spec, REAL_IMAGES)
    card = export_candidate(candidate, out, images)
    for name, error in card.checks.items():
        click.echo(f"{name:15} relative error {error:.1e}")
    click.echo(f"{out}   next: repmedsam bench --candidate {out}")


@click.command(short_help="Quantise an encoder to int8, within limits.")
@_model_options
@click.option(
    "--calib",
    "cases",
    multiple=True,
    required=True,
    metavar="CASES",
    help="Cases to calibrate with and to test on, or `synthetic`.",
)
@click.option(
    "--calib-images", type=click.IntRange(min=1), default=16, show_default=True, help="Images of them at most."
)
@click.option("--max-objects", type=click.IntRange(min=1), help="Keep only the largest objects of a case.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Keep only so many slices of a volume.")
@click.option(
    "--method",
    type=click.Choice(["static", "nncf"]),
    default="static",
    show_default=True,
    help="By ONNX Runtime, with ranges of activations from calibration; or all of it by NNCF, made for OpenVINO (extra "
    "`nncf`).",
)
@click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    help="How static calibration chooses them: all values seen, 99.999 % of them, the nearest distribution, or the "
    "least squared error of rounding and clipping.  [default: mse]",
)
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    metavar="NAME",
    help="What will be segmented (CT, MR, ...; repeat for more): other cases to calibrate with are refused.",
)
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "openvino"]),
    default="onnxruntime",
    show_default=True,
    help="Runtime that it is for.",
)
@click.option(
    "--max-dsc-drop", type=Between(0, 100), default=0.5, show_default=True, help="Points of DSC that may be lost."
)
@click.option(
    "--min-cosine",
    type=Between(0, 1),
    default=0.99,
    show_default=True,
    help="Least cosine between its embeddings and the float ones, averaged over the images or volumes of a modality.",
)
def quantize(
    encoder: str,
    weights: str | None,
    threads: int,
    out: Path,
    cases: tuple[str, ...],
    calib_images: int,
    max_objects: int | None,
    max_slices: int | None,
    method: str,
    ranges: str | None,
    modalities: tuple[str, ...],
    backend: str,
    max_dsc_drop: float,
    min_cosine: float,
) -> None:
    """Quantise an encoder to int8, leaving in float the layers that the accuracy gate asks for.

    The result is a candidate for `bench --candidate` whose card tells the method, the calibration, what each layer
    costs, and whether the quantisation is worth it: a graph that is not faster, or fails the gate, says so.

    \b
    Example:
      repmedsam quantize --encoder repvit --weights rep_medsam --calib scans/ --backend openvino -o runs/repvit-int8
    """
    from rich.console import Console

    from bench.machine import lacks_vnni
    from compress.quantize_run import Options, least_cosine, quantise_candidate
    from zoo.data.modality import parse_modality

    if ranges and method != "static":
        raise click.UsageError(f"--ranges: --method {method} chooses them itself")
    candidate = _candidate(encoder, weights, threads, "reparam")
    sources = [source.limited(max_objects, max_slices) for source in _sources(cases)]
    chosen: Any = ranges or ("mse" if method == "static" else method)
    options = Options(chosen, backend, calib_images, max_dsc_drop, min_cosine, tuple(map(parse_modality, modalities)))
    if lacks_vnni():
        click.echo("This CPU lacks VNNI: weights of 7 bits, and int8 may be slower than float, which will be timed.")
    console = Console(stderr=True)
    with console.status("starting") as status:
        card = quantise_candidate(candidate, out, sources, options, status.update)
    told = card.quantisation
    in_float = f"{len(told['excluded'])} of {told['layers']} layers in float"
    click.echo(f"least cosine of embeddings {least_cosine(told['cosines'])}, {in_float}")
    click.echo(_gated(told["dsc_drops"]))
    click.echo(f"{told['verdict']}   next: repmedsam bench --candidate {out}")


def _gated(dsc_drops: dict[str, float]) -> str:
    """What the gate saw of the DSC."""
    if not dsc_drops:
        return "DSC was not gated: the weights are random, or no case has labels"
    told = ", ".join(f"{name} {drop:+.2f}" for name, drop in dsc_drops.items())
    unseen = (
        "" if any(name.endswith("3D") for name in dsc_drops) else "; no volume was among the cases, where losses add up"
    )
    return f"points of DSC lost: {told}{unseen}"


def _candidate(encoder: str, weights: str | None, threads: int, variant: str) -> Candidate:
    from bench.candidate import Recipe
    from compress.build import build_as_can_be
    from zoo.registry import encoder_spec
    from zoo.weights import RANDOM, default_weights

    chosen = default_weights(encoder_spec(encoder).name) if weights is None else weights
    if weights is None and chosen == RANDOM:
        click.echo(f"no weights ship for {encoder}: random ones are taken, good for timing only (--weights)", err=True)
    recipe = Recipe(encoder, chosen, variant, "torch", "fp32", threads)
    return build_as_can_be(recipe, partial(click.echo, err=True))


def _sources(cases: tuple[str, ...]) -> list[CaseSource]:
    from zoo.data.cases import find_cases

    return [source for spec in cases for source in find_cases(spec)]
