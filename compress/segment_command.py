"""`repmedsam segment`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compress.options import CANDIDATE_HELP, PROTOCOL_HELP, PROTOCOLS, protocols_of, rule_options
from zoo.cores import usable_cores
from zoo.data.commands import WINDOW_HELP, check_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.candidate import Recipe
    from zoo.data.cases import CaseSource
    from zoo.executors import Executor


@click.command(short_help="Segment the objects inside given boxes.")
@click.option(
    "-i",
    "--in",
    "inputs",
    multiple=True,
    required=True,
    metavar="SCANS",
    help="File, folder, glob or IMAGE=LABELS: npz, NIfTI, NRRD, MetaImage, DICOM (a folder a series), pictures; "
    "repeat for more.",
)
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option(
    "--boxes",
    "boxes_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON of boxes and clicks, or CSV of boxes.",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="X0,Y0[,Z0],X1,Y1[,Z1]",
    help="A box of a picture, or of a volume; repeat for more objects.",
)
@click.option(
    "--click",
    "clicks",
    multiple=True,
    metavar="X,Y[,Z],1|0",
    help="A voxel in a --box that belongs to its object (1) or does not (0), where a first mask was wrong; repeat for "
    "more.",
)
@click.option("--encoder", metavar="NAME", help="See `list`.  [default: that of the candidate, or light_repvit_m0_9]")
@click.option(
    "--weights",
    metavar="WEIGHTS",
    help="Checkpoint, card, or random:0 for a dry run of the pipeline.  [default: what ships]",
)
@click.option("--candidate", type=click.Path(exists=True, file_okay=False, path_type=Path), help=CANDIDATE_HELP)
@click.option("--backend", metavar="NAME", help="Runtime, see `list`.  [default: that of the candidate, or torch]")
@click.option(
    "--precision", metavar="NAME", help="Of the runtime, see `list`.  [default: that of the candidate, or fp32]"
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads of one operator.  [default: cores / jobs: one case alone gets all cores]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Worker processes, a case each at a time.  [default: one per core (cores / --threads, if given), no more than "
    "cases, and no more than free memory has room for at --max-memory each]",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="This machine, or the workers of a Dask cluster (extra `dask`).",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of the Dask cluster, such as tcp://10.0.0.1:8786.")
@click.option("--protocol", type=PROTOCOLS, default="batched", show_default=True, help=PROTOCOL_HELP)
@rule_options
@click.option(
    "--max-memory",
    default="2GiB",
    show_default=True,
    metavar="SIZE",
    help="Of a process: a volume's embeddings beyond it are computed again; images and models are not limited.",
)
@click.option("--modality", metavar="NAME", help="CT, MR, ...: overrides file name and header.")
@click.option(
    "--window",
    default="soft_tissue",
    show_default=True,
    metavar="NAME|LEVEL/WIDTH",
    help=WINDOW_HELP,
)
@click.option("--overlay", is_flag=True, help="Also a picture of each case, and an animation of each volume.")
@click.option("--dicom-seg", is_flag=True, help="Of DICOM series (folders) also a DICOM segmentation (extra `dicom`).")
@click.option("--overwrite", is_flag=True, help="Also segment what OUT holds already.")
@click.option("--dry-run", is_flag=True, help="Only tell which images are found, and where their boxes come from.")
def segment(
    inputs: tuple[str, ...],
    out: Path,
    boxes_file: Path | None,
    boxes: tuple[str, ...],
    clicks: tuple[str, ...],
    encoder: str | None,
    weights: str | None,
    candidate: Path | None,
    backend: str | None,
    precision: str | None,
    threads: int | None,
    jobs: int | None,
    executor: str,
    scheduler: str | None,
    protocol: str,
    max_memory: str,
    modality: str | None,
    window: str,
    overlay: bool,
    dicom_seg: bool,
    overwrite: bool,
    dry_run: bool,
    **rule: Any,
) -> None:
    """Segment the objects inside given boxes: npz to npz, scans to NIfTI in their own geometry, pictures to PNG.

    Boxes come from the npz, from --boxes or --box (voxel indices in the file's own axes from 0, both ends included), or
    from a label file beside the image. Files are written whole or not at all: the same command resumes a run that was
    stopped. Cases that fail are reported, the others are segmented, and the exit code is 1 then.

    \b
    Examples:
      repmedsam segment -i photo.png --box 30,40,120,160 -o out
      repmedsam segment -i photo.png --box 30,40,120,160 --click 50,70,1 --click 110,150,0 -o out
      repmedsam segment -i patient_1.nii.gz --boxes boxes.json -o out --overlay --backend openvino
      repmedsam segment -i inputs/ -o outputs/ --encoder repvit --weights rep_medsam
      repmedsam segment -i inputs/ -o outputs/ --candidate runs/repvit-int8
    """
    from bench.progress import TerminalProgress
    from compress.deploy import ALL_CORES, OpenBackend
    from zoo.data.boxes import names_cases
    from zoo.data.cases import check_out, distinct, find_cases
    from zoo.data.intensity import parse_window
    from zoo.data.modality import parse_modality
    from zoo.data.prepare import Preparation
    from zoo.files import check_folder
    from zoo.memory import parse_size
    from zoo.segment import check_names, parse_boxes, parse_clicks, told_boxes
    from zoo.segment_run import SegmentRun, left_to_do, segment_all

    if boxes and boxes_file:
        raise click.UsageError("name one of --box and --boxes")
    if clicks and not boxes:
        raise click.UsageError("--click goes with --box; a JSON of --boxes has its own clicks")
    given_boxes = parse_boxes(boxes)
    given_clicks = () if given_boxes is None else parse_clicks(clicks, given_boxes)
    if dicom_seg and importlib.util.find_spec("highdicom") is None:
        raise click.UsageError("--dicom-seg: highdicom is not installed; pip install 'rep-medsam[dicom]'")
    sources = distinct([source.absolute() for spec in inputs for source in find_cases(spec)])
    check_out(sources, out)
    check_options(sources)
    if boxes_file and not names_cases(boxes_file) and len(sources) > 1:
        click.echo(
            f"{boxes_file.name} names no cases: all its boxes are used for each of {len(sources)} images", err=True
        )
    if boxes_file:
        check_names(boxes_file, sources)
    if dry_run:
        given = [told_boxes(boxes_file, source) if boxes_file else " ".join(boxes) for source in sources]
        click.echo("\n".join(source.told(own or None) for source, own in zip(sources, given, strict=True)))
        return
    max_memory_bytes = parse_size(max_memory)
    recipe = _recipe(encoder, weights, candidate, backend, precision, threads or 1)
    if (recipe.weights or "").startswith("random"):
        click.echo("random weights: masks will tell nothing", err=True)
    for doubt in recipe.doubts:
        click.echo(doubt, err=True)
    (volumes,), images = protocols_of([protocol], **rule)
    run = SegmentRun(
        out=out.absolute(),
        open_backend=OpenBackend(recipe),
        model=f"{recipe.encoder} {_known_weights(recipe)} {recipe.variant} {recipe.precision}",
        preparation=Preparation(modality=modality and parse_modality(modality), window=parse_window(window)),
        protocol=volumes,
        image_protocol=images,
        boxes_file=boxes_file and boxes_file.absolute(),
        boxes=given_boxes,
        clicks=given_clicks,
        overlay=overlay,
        dicom_seg=dicom_seg,
        overwrite=overwrite,
        max_memory_bytes=max_memory_bytes,
        calibrated_with=recipe.calibrated_with,
    )
    check_folder(out)
    if dicom_seg:
        _tell_no_series(sources)
    if jobs and scheduler:
        raise click.UsageError("--jobs is of this machine; how many cases a cluster works on, its workers say")
    todo, taken = (sources, []) if overwrite else left_to_do(run, sources)
    if scheduler is None:
        jobs = jobs or _default_jobs(len(todo), threads or 1, max_memory_bytes)
        threads = threads or max(1, usable_cores() // jobs)
    run = replace(run, open_backend=OpenBackend(replace(recipe, threads=threads or ALL_CORES)))
    if held := len(sources) - len(todo) - len(taken):
        click.echo(f"{held} of {len(sources)} were in {out} already (--overwrite segments them again)")
    for error in taken:
        click.echo(str(error), err=True)
    with TerminalProgress() as progress:
        try:
            failures = segment_all(run, todo, _executor(executor, jobs or 1, scheduler), progress)
        except KeyboardInterrupt:
            progress.message(f"stopped; what was segmented is in {out}, the same command goes on from there")
            raise SystemExit(130) from None
    if todo:
        click.echo(f"{len(todo) - failures} of {len(todo)} segmented in {out}")
    if failed := failures + len(taken):
        raise click.ClickException(f"{failed} could not be segmented")


def _tell_no_series(sources: Sequence[CaseSource], most: int = 5) -> None:
    """Says of which sources there will be no DICOM segmentation."""
    from zoo.errors import first_of

    others = [source.case_id for source in sources if source.image_path is None or not source.image_path.is_dir()]
    if others:
        click.echo(
            f"--dicom-seg: none of {first_of(others, most)}; it needs a DICOM series, a folder of slices", err=True
        )


def _default_jobs(cases: int, threads: int, max_memory_bytes: int) -> int:
    """As many as fill the cores, and no more: one thread a case wastes less than many threads on one case do."""
    import psutil

    room = psutil.virtual_memory().available // max_memory_bytes
    return max(1, min(usable_cores() // threads, cases, room))


def _recipe(
    encoder: str | None,
    weights: str | None,
    candidate: Path | None,
    backend: str | None,
    precision: str | None,
    threads: int,
) -> Recipe:
    from bench.candidate import Recipe
    from compress.deploy import recipe_of

    if weights is not None and Path(weights).is_file():
        # A worker of a cluster runs in a folder of its own.
        weights = str(Path(weights).absolute())
    if candidate is not None:
        if encoder is not None:
            raise click.UsageError("name one of --encoder and --candidate")
        return recipe_of(candidate.absolute(), weights, backend, threads, precision)
    # It loads torch, which a candidate does without.
    from zoo.registry import encoder_spec
    from zoo.weights import DEFAULT_ENCODER, RANDOM, default_weights

    encoder = encoder or DEFAULT_ENCODER
    own = default_weights(encoder_spec(encoder).name)
    if weights is None and own == RANDOM:
        raise click.UsageError(
            f"--weights: none ship for {encoder}; name trained ones, or {RANDOM} for a dry run of the pipeline"
        )
    chosen = own if weights is None else weights
    return Recipe(encoder, chosen, "reparam", backend or "torch", precision or "fp32", threads)


def _known_weights(recipe: Recipe) -> str:
    """Weights by the content of their file, as what ships or is downloaded under a name may be another one day."""
    if recipe.folder:
        from compress.card import is_made_of, read_card

        card = read_card(Path(recipe.folder))
        if is_made_of(Path(recipe.folder), card, recipe.weights):
            return card.weights_sha256
    if recipe.weights is None or recipe.weights.startswith("random"):
        return str(recipe.weights)
    # It loads torch, which a candidate does without.
    from zoo.files import sha256_of
    from zoo.weights.cards import locate

    path, _ = locate(recipe.weights)
    return sha256_of(path) if path.is_file() else recipe.weights


def _executor(name: str, jobs: int, scheduler: str | None) -> Executor:
    if (name == "dask") != (scheduler is not None):
        raise click.UsageError("--executor dask and --scheduler ADDRESS go together")
    if scheduler is not None:
        from zoo.executors.dask_cluster import DaskExecutor

        return DaskExecutor(scheduler)
    from zoo.executors.local import LocalExecutor

    return LocalExecutor(jobs)
