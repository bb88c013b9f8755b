"""`repmedsam weights`: list, pull, verify, convert, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zoo.weights.detect import Fit


@click.group(short_help="List, pull, verify, convert, inspect checkpoints.")
def weights() -> None:
    """Published checkpoints: list, pull, verify, convert and inspect them.

    \b
    Examples:
      repmedsam weights list
      repmedsam weights pull mobile_sam
      repmedsam bench --encoder mobile_sam --weights mobile_sam --cases scans/
    """


@weights.command("list")
def list_cards() -> None:
    """Show the weight cards: for which encoder, where from, under which licence, and what is here."""
    from rich.console import Console
    from rich.table import Table

    from zoo.weights.cards import catalog, checkpoints_folder, non_commercial

    table = Table("name", "encoder", "model", "licence", "here")
    for column in table.columns:
        column.no_wrap, column.overflow = column.header == "name", "fold"
    for card in catalog().values():
        table.add_row(card.name, card.encoder, card.title, card.licence, "yes" if card.path.is_file() else "")
    console = Console()
    console.print(table)
    console.print(f"Kept in {checkpoints_folder()}.")
    console.print(f"Not for commercial use: {', '.join(non_commercial(catalog().values()))}.")


@weights.command()
@click.argument("name")
@click.option("--from", "source", metavar="SOURCE", help="http(s) address, hf:OWNER/REPO/FILE, or a downloaded file.")
def pull(name: str, source: str | None) -> None:
    """Download the weights of the card NAME, check them, and pin their hash.

    A transfer that breaks goes on from where it stopped. Nothing is put in place before it is whole and its hash is
    the catalog's, or the one that the first download pinned in ckpts/lock.json.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from zoo.weights import pull as transfer
    from zoo.weights.cards import non_commercial, weight_card

    card = weight_card(name)
    if non_commercial([card]):
        click.echo(f"{name}: {card.licence}", err=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(name, total=None)
        path = transfer.pull(card, source, lambda done, total: bar.update(task, completed=done, total=total))
    click.echo(f"{path}   next: repmedsam bench --encoder {card.encoder} --weights {name}")


@weights.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Compare downloaded files (of the cards NAMES, or all) with their hashes; exit 1 if one differs or is not here."""
    from zoo.errors import InputError
    from zoo.files import sha256_of
    from zoo.weights.cards import catalog, check_sha256, expected_sha256, weight_card

    bad = 0
    for card in [weight_card(name) for name in names] or catalog().values():
        if not card.path.is_file():
            if names:
                bad += 1
                click.echo(f"{card.name}: not here; {card.by_hand}")
            continue
        digest = sha256_of(card.path)
        try:
            check_sha256(card, digest)
            click.echo(f"{card.name}: {'as pinned' if expected_sha256(card) else 'not pinned yet'}, sha256 {digest}")
        except InputError as error:
            bad += 1
            click.echo(f"{card.name}: {error}")
    if bad:
        raise click.ClickException(f"{bad} of the weights are missing or not what they should be")


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Tell what is in a checkpoint, and which encoder it loads into; exit 1 if none.

    FILE may be the name of a card, whose file is here.
    """
    from compress.reparam import reparameterise
    from zoo.errors import InputError
    from zoo.files import sha256_of
    from zoo.weights import read_checkpoint
    from zoo.weights.cards import catalog
    from zoo.weights.detect import fits_of, nearest

    if not file.exists() and (card := catalog().get(str(file))):
        file = card.path
        if not file.exists():
            raise InputError(card.name, "a card whose file is not here", f"`repmedsam weights pull {card.name}` first")
    checkpoint = read_checkpoint(file)
    state = checkpoint.state
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})
    click.echo(f"file      {file}")
    click.echo(f"sha256    {sha256_of(file)}")
    millions = sum(value.numel() for value in state.values()) / 1e6
    click.echo(f"tensors   {len(state)}, {millions:.2f} M values, {', '.join(dtypes)}")
    click.echo(f"wrappers  {' > '.join(checkpoint.wrappers) or 'none, a flat state dict'}")
    for name, value in checkpoint.scalars.items():
        click.echo(f"{name:9} {value}")
    if checkpoint.beside:
        click.echo(f"beside    {', '.join(checkpoint.beside)}")
    fits = fits_of(checkpoint, {"reparam": reparameterise})
    for fit in fits:
        click.echo(f"fits      {_in_words(fit)}")
    if not fits:
        near = nearest(state)
        raise click.ClickException(f"{file}: fits no encoder; nearest is {near.encoder}: {near.problems}")


def _in_words(fit: Fit) -> str:
    from zoo.registry import encoder_spec

    spec = encoder_spec(fit.encoder)
    part = "whole model" if fit.part == "model" else "image encoder alone"
    graph = "" if fit.variant == "train" else f", {fit.variant} graph"
    return f"{fit.encoder}: {spec.title}, {part}{graph}, {spec.image_size} px, {spec.normalisation}"


@weights.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--encoder", metavar="NAME", help="Whose weights they are, where several encoders share the layout.")
@click.option("--half", is_flag=True, help="Matrices and kernels as float16: half the size.")
def convert(source: Path, target: Path, encoder: str | None, half: bool) -> None:
    """Rewrite the checkpoint SOURCE as TARGET (.safetensors with metadata, or .pth as published).

    Every tensor keeps its bits, unless --half is given.

    \b
    Examples:
      repmedsam weights convert rep_medsam.pth rep_medsam.safetensors
      repmedsam weights convert runs/student/last.pth student.safetensors --encoder repvit --half
    """
    from compress.reparam import reparameterise
    from zoo.weights.convert import convert as rewrite

    of = rewrite(source, target, encoder, {"reparam": reparameterise}, half=half)
    click.echo(f"{target}: {of['encoder']}, {of['variant']} graph, source sha256 {of['source_sha256']}")
