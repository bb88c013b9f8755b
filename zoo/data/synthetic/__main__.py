"""`python -m zoo.data.synthetic FILE`: a picture of what the generator draws."""

from __future__ import annotations

from pathlib import Path

import click
import cv2

from zoo.data.synthetic.sheet import contact_sheet, volume_sheet
from zoo.errors import InputError


@click.command()
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the first sample.")
@click.option("--rows", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--columns", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--size", default=160, show_default=True, type=click.IntRange(min=64), help="Side of a sample in pixels.")
@click.option("--look", help="ct, mr, us, xray, rgb or micro; drawn for each sample by default.")
@click.option("--volumes", is_flag=True, help="A volume a row (ct or mr), its slices side by side.")
def main(picture: Path, seed: int, rows: int, columns: int, size: int, look: str | None, volumes: bool) -> None:
    """Draw samples side by side, their labels outlined, into PICTURE (.png or .jpg)."""
    try:
        sheet = (volume_sheet if volumes else contact_sheet)(seed, rows, columns, size, look)
    except InputError as error:
        raise click.ClickException(str(error)) from error
    if picture.suffix not in (".png", ".jpg") or not cv2.imwrite(str(picture), sheet[..., ::-1]):
        raise click.ClickException(f"{picture}: found a name or folder that cannot be written; expected .png or .jpg")


main()
