"""Groups of command-line options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.record import SCRIPTS

if TYPE_CHECKING:
    from zoo.sam.rule import Protocol2D, Protocol3D


def options(*group: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator, in the order they are listed in the help."""

    def decorate(command: Any) -> Any:
        for option in reversed(group):
            command = option(command)
        return command

    return decorate


class Between(click.FloatRange):
    """A number within two limits, as `click.FloatRange` takes it; a finite one, whatever the limits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


CANDIDATE_HELP = "Folder that `export` or `quantize` wrote"
PROTOCOLS = click.Choice(["per_object", "cached", "batched", "multiplanar", *SCRIPTS])
PROTOCOL_HELP = (
    "Volumes. per_object: encode a slice once for each of its objects; cached: once; batched: once, and decode its "
    "objects together; multiplanar: batched, then planes across the slices (better masks, two to many times as long); "
    "litemedsam, rep_medsam: per_object, cached with the published scripts' options, but for those given here. Images "
    "use the published options only where every --protocol is a script."
)

rule_options = options(
    click.option(
        "--z-range",
        type=click.Choice(["inclusive", "exclusive"]),
        default="inclusive",
        show_default=True,
        help="Whether a box's z_max belongs to the object; of npz alone: boxes of scans hold both ends.",
    ),
    click.option(
        "--box-dilation-px",
        type=click.IntRange(min=0),
        default=3,
        show_default=True,
        help="Margin around a mask before it prompts its neighbour.",
    ),
    click.option(
        "--starts",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        help="Slices of an object, an odd number, that are looked at for the one to begin at; 1 is the middle one, as "
        "published.",
    ),
    click.option(
        "--box-rounding",
        type=click.Choice(["truncate", "float"]),
        default="truncate",
        show_default=True,
        help="Of boxes scaled to the encoder's frame.",
    ),
    click.option(
        "--resize",
        type=click.Choice(["area", "linear", "cubic"]),
        help="How images and slices are brought to the encoder's size.  [default: as the encoder was published]",
    ),
    click.option(
        "--propagate/--no-propagate",
        default=True,
        show_default=True,
        help="Prompt each slice with its neighbour's mask.",
    ),
    click.option(
        "--mask-prompts/--no-mask-prompts",
        default=None,
        help="Whether that mask prompts, too, and not its box alone.  [default: where the weights were trained for it]",
    ),
    click.option(
        "--own-box-share",
        type=Between(0, 1),
        default=0.5,
        show_default=True,
        help="Where the box beside such a mask lies: 0 is the mask's own, 1 that of the whole object.",
    ),
    click.option(
        "--mask-value",
        type=click.Choice(["binary", "label"]),
        default="binary",
        show_default=True,
        help="What a neighbour's mask holds while it is resized.",
    ),
    click.option(
        "--overlap",
        type=click.Choice(["density", "logit", "last"]),
        default="density",
        show_default=True,
        help="Who owns a pixel that several objects cover: the highest odds over the size of the box, the highest "
        "logit, or the last, as published.",
    ),
    click.option(
        "--within-box/--no-within-box",
        default=True,
        show_default=True,
        help="Whether masks end where the object's own box does in x and y; published systems let them go.",
    ),
    click.option(
        "--box-prior",
        type=Between(0, 10),
        default=0.5,
        show_default=True,
        help="Weight of what a box alone says: that its object is in its middle more often than in its corners.",
    ),
    click.option(
        "--zoom/--no-zoom",
        default=True,
        show_default=True,
        help="Segment small objects of large images in a tile of them; in volumes only where all are small together.",
    ),
    click.option(
        "--fovea/--no-fovea",
        default=True,
        show_default=True,
        help="Decode full detail around each box and 4x4 means elsewhere; only with --within-box.",
    ),
    click.option(
        "--box-margin-px",
        type=click.IntRange(min=0),
        default=2,
        show_default=True,
        help="Images: margin around a box before it prompts; masks end at the box that was given all the same.",
    ),
    click.option(
        "--best-dice/--no-best-dice",
        default=True,
        show_default=True,
        help="Images: masks of the pixels whose odds exceed the predicted IoU, which makes the expected Dice highest; "
        "published: even odds.",
    ),
)


def protocols_of(names: Sequence[str], **rule: Any) -> tuple[tuple[Protocol3D, ...], Protocol2D]:
    """What `--protocol` and `rule_options` ask for: protocols of volumes, and that of images.

    Images go by a published rule where all of `names` are `SCRIPTS`.
    """
    from zoo.sam.rule import PUBLISHED_2D, PUBLISHED_3D, Protocol2D, Protocol3D

    images, volumes = (
        {field.name: rule[field.name] for field in fields(kind) if field.name in rule}
        for kind in (Protocol2D, Protocol3D)
    )
    if SCRIPTS.keys() >= set(names):
        images |= _not_given(PUBLISHED_2D)
    published = volumes | _not_given(PUBLISHED_3D)
    return tuple(
        Protocol3D(SCRIPTS[name], **published) if name in SCRIPTS else Protocol3D(name, **volumes)
        for name in dict.fromkeys(names)
    ), Protocol2D(**images)


def _not_given(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Those for which the command line has no option."""
    context = click.get_current_context()
    default = ParameterSource.DEFAULT
    return {name: value for name, value in defaults.items() if context.get_parameter_source(name) is default}
