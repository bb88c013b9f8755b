"""`repmedsam prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from zoo.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.data.cases import CaseSource

#: Of `prepare` and `segment`; the numbers are those of `zoo.data.intensity.CT_WINDOWS`.
WINDOW_HELP = (
    "Of a CT, in HU; in its file's own numbers where it has none below 0. "
    "soft_tissue is 40/400, lung -600/1500, brain 40/80, bone 300/1500, mediastinum 50/350, liver 60/160."
)
#: Options that a challenge npz cannot follow.
OF_SCANS = (
    "modality",
    "window",
    "percentiles",
    "remove_labels",
    "instances",
    "min_voxels",
    "min_pixels",
    "labelled_slices",
    "box_jitter_px",
)


def check_options(sources: Sequence[CaseSource]) -> None:
    """Refuses options of the command that is run that change voxels, labels or boxes beside a challenge npz, whose own
    stay as they are.

    Raises:
        click.UsageError: such an option.
    """
    context = click.get_current_context()
    given = [name for name in OF_SCANS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    npz = next((source.npz for source in sources if source.npz), None)
    if given and npz is not None:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{options}: {npz} is prepared already and stays as it is; name scans and npz apart")


@click.command(short_help="Turn labelled scans into npz, or npy to train with.")
@click.option(
    "-i",
    "--in",
    "inputs",
    multiple=True,
    required=True,
    metavar="SCANS",
    help="File, folder, glob, or IMAGE=LABELS; repeat for more. Labels are looked for beside their images.",
)
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option(
    "--to",
    "kind",
    type=click.Choice(["npz", "npy"]),
    default="npz",
    show_default=True,
    help="Challenge npz, a file a case; or imgs/ and gts/ with an npy a labelled slice, to train with.",
)
@click.option("--modality", metavar="NAME", help="CT, MR, ...: overrides file name and header.")
@click.option(
    "--window",
    default="soft_tissue",
    show_default=True,
    metavar="NAME|LEVEL/WIDTH",
    help=WINDOW_HELP,
)
@click.option(
    "--percentiles",
    type=(click.FloatRange(0, 100), click.FloatRange(0, 100)),
    default=(0.5, 99.5),
    show_default=True,
    help="Of the non-zero voxels: the range that is shown of other modalities than CT.",
)
@click.option("--remove-labels", metavar="1,2,...", default="", help="Labels that become background.")
@click.option("--instances", is_flag=True, help="Make every connected part of a label an object of its own.")
@click.option(
    "--min-voxels", type=click.IntRange(min=0), default=1000, show_default=True, help="Smallest part kept in a volume."
)
@click.option(
    "--min-pixels", type=click.IntRange(min=0), default=100, show_default=True, help="Smallest part kept in a slice."
)
@click.option("--labelled-slices", is_flag=True, help="Keep only the slices from the first label to the last.")
@click.option(
    "--box-jitter-px", type=click.IntRange(min=0), default=0, show_default=True, help="Boxes grow by up to this a side."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the jitter.")
@click.option("--max-objects", type=click.IntRange(min=1), help="Keep only the largest objects of a case.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Keep only so many neighbouring slices of a volume.")
@click.option("--workers", type=click.IntRange(min=1), default=usable_cores(), show_default=True, help="Processes.")
@click.option("--dry-run", is_flag=True, help="Only tell which images and labels are found.")
def prepare(
    inputs: tuple[str, ...],
    out: Path,
    kind: str,
    modality: str | None,
    window: str,
    percentiles: tuple[float, float],
    remove_labels: str,
    instances: bool,
    min_voxels: int,
    min_pixels: int,
    labelled_slices: bool,
    box_jitter_px: int,
    seed: int,
    max_objects: int | None,
    max_slices: int | None,
    workers: int,
    dry_run: bool,
) -> None:
    """Turn labelled scans into the challenge's npz, or into npy to train with.

    Reads NIfTI, NRRD, MetaImage, DICOM series (a folder each), PNG, JPEG, TIFF, npy, and challenge npz. A CT goes
    through its window, other scans between percentiles; pictures of bytes and challenge npz stay as they are. Labels
    are renumbered 1 to N, as the challenge's files have them; prepare.jsonl tells what they were, and all else that was
    done, a line a file. The same command goes on where it was stopped; files that fail are reported, and the exit code
    is 1 then.

    \b
    Examples:
      repmedsam prepare -i scans/ -o npz
      repmedsam prepare -i patient_1.nii.gz=labels.nii.gz --window lung --labelled-slices -o npz
      repmedsam prepare -i npz/ --to npy -o train
    """
    from rich.console import Console
    from rich.progress import track

    from zoo.data.cases import check_out, distinct, find_cases
    from zoo.data.intensity import parse_window
    from zoo.data.modality import parse_modality
    from zoo.data.prepare import Preparation
    from zoo.data.prepare_run import prepare_all
    from zoo.files import check_folder
    from zoo.ledger import PREPARE_LEDGER

    if percentiles[0] >= percentiles[1]:
        raise click.BadParameter(f"found {percentiles[0]:g} {percentiles[1]:g}; expected the lower one first")
    preparation = Preparation(
        modality=modality and parse_modality(modality),
        window=parse_window(window),
        percentiles=percentiles,
        remove_labels=_numbers(remove_labels),
        instances=instances,
        min_voxels=min_voxels,
        min_pixels=min_pixels,
        labelled_slices=labelled_slices,
        box_jitter_px=box_jitter_px,
        seed=seed,
    )
    sources = distinct([source.limited(max_objects, max_slices) for spec in inputs for source in find_cases(spec)])
    check_out(sources, out)
    check_options(sources)
    if dry_run:
        click.echo("\n".join(source.told() for source in sources))
        return
    check_folder(out)
    console = Console(stderr=True)
    outcomes = prepare_all(sources, out, preparation, "npy" if kind == "npy" else "npz", workers)
    failed, left_out = 0, 0
    try:
        for outcome in track(outcomes, "preparing", len(sources), console=console, transient=True):
            failed += outcome.error is not None
            left_out += len(outcome.left_out)
            if outcome.error:
                console.print(outcome.error, style="red", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        click.echo(f"stopped; what was prepared is in {out}, the same command goes on from there", err=True)
        raise SystemExit(130) from None
    click.echo(f"{len(sources) - failed} of {len(sources)} prepared in {out}; what was done: {out / PREPARE_LEDGER}")
    if left_out:
        smallest = f"--min-voxels {min_voxels} and --min-pixels {min_pixels}"
        click.echo(f"left out: {left_out} labels of which no part is as large as {smallest} ask for; 0 keeps all")
    if failed:
        raise click.ClickException(f"{failed} could not be prepared")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"found {text!r}; expected numbers such as 3,5") from error
