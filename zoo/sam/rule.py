"""The rules by which images and volumes are segmented from one box an object: Rep-MedSAM's and LiteMedSAM's scripts'.

In a volume, for each object the middle slice of its box, or the one of a few about it whose mask the model itself
thinks best, is segmented with the box's own x and y; then every slice upwards, then every slice downwards, prompted by
the box of its neighbour's mask, or by the object's own box where that mask is empty; weights that were trained for it
get that mask, too, and a box between the two. All of `PROTOCOLS` follow this rule; they differ in what they compute
again. `MULTIPLANAR` goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats
from zoo.data.case import Case, validate_boxes
from zoo.errors import InputError, unknown_name
from zoo.registry import EncoderSpec
from zoo.sam.overlap import Overlap
from zoo.transforms import MASK_LOGIT, BoxRounding, Fit, mask_box, mask_in_frame, scale_boxes, scale_points

#: `per_object` encodes every slice again for every object; `cached` encodes every slice once; `batched` encodes once
#: and decodes all objects of a slice together, by the decoder's fast path. With a fovea all three decode by that.
PROTOCOLS = ("per_object", "cached", "batched")
#: `batched`, and then what it found asked for again in the planes across the slices, see `zoo.sam.multiplanar`.
MULTIPLANAR = "multiplanar"
#: How far from an object's middle slice the others lie that it may begin at, as a share of the way to its ends.
START_REACH = 0.6
#: By how much the predicted IoU of another slice must be higher than the middle one's.
START_GAIN = 0.02
#: Where the published scripts' rule differs from the defaults: for images, and for volumes.
PUBLISHED_2D: Mapping[str, Any] = {
    "overlap": "last",
    "within_box": False,
    "box_prior": 0.0,
    "zoom": False,
    "fovea": False,
    "box_margin_px": 0,
    "best_dice": False,
}
PUBLISHED_3D: Mapping[str, Any] = {
    "overlap": "last",
    "within_box": False,
    "box_prior": 0.0,
    "zoom": False,
    "fovea": False,
    "starts": 1,
    "mask_prompts": False,
    "mask_value": "label",
}
#: Options that records leave out where they are off, as records of before do.
TOLD_IF_ON = ("box_prior", "box_margin_px", "best_dice", "fovea")
#: Options of volumes that mean nothing where no mask prompts.
OF_MASKS = ("mask_prompts", "own_box_share")
#: Points (1, P, 2) in the prompt frame and their labels (1, P), of one object.
Clicks = tuple[Floats, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What images and volumes have alike. Defaults are Rep-MedSAM's where nothing else is said.

    Attributes:
        box_rounding: of the object's own box, scaled to the prompt frame.
        resize: how images are brought to the encoder's size; None is the encoder's own way.
        overlap: who owns a pixel that several objects cover, see `zoo.sam.overlap`. Rep-MedSAM: `last`, which costs
            objects that touch much of each other.
        within_box: whether an object's masks, and the boxes that prompt for them, end where its own box does in x and
            y; in a volume, a walk that has lost its way comes back. Rep-MedSAM: False.
        box_prior: what a box alone says about its pixels is added to their logits, so many times, see
            `zoo.sam.box_prior`. Rep-MedSAM: 0.
        zoom: whether small objects of what is larger than the encoder's input are segmented in a tile of it, see
            `zoo.tiles`: of an image each object, of a volume all of them in the same tile, where they are small
            together. Rep-MedSAM: False, which loses what is small.
        fovea: whether the decoder sees of an embedding what is around an object's own box as it is, and means of the
            rest, see `zoo.fovea`; where masks end at boxes (`within_box`), and not beside clicks. Rep-MedSAM: False.
    """

    box_rounding: BoxRounding = "truncate"
    resize: Literal["area", "linear", "cubic"] | None = None
    overlap: Overlap = "density"
    within_box: bool = True
    box_prior: float = 0.5
    zoom: bool = True
    fovea: bool = True

    def as_record(self) -> dict[str, Any]:
        """All options by name, see `protocol_of`."""
        return asdict(self)

    def recorded(self, spec: EncoderSpec) -> dict[str, Any]:
        """The options by name as a record tells them: what a model of this spec makes of them.

        `TOLD_IF_ON` are left out where they are off.
        """
        made = self.as_record() | {"fovea": self.has_fovea}
        return {option: value for option, value in made.items() if option not in TOLD_IF_ON or value}

    @property
    def has_fovea(self) -> bool:
        """Whether decoders have a fovea: where masks may leave their boxes, they see all."""
        return self.fovea and self.within_box

    def applied_to(self, spec: EncoderSpec) -> EncoderSpec:
        """An encoder's spec, with images resized as the protocol says."""
        return replace(spec, resize=self.resize or spec.resize)


@dataclass(frozen=True, kw_only=True)
class Protocol2D(Protocol):
    """How an image is segmented.

    Attributes:
        box_margin_px: around a box before it prompts, in pixels of the prompt frame: models are trained with boxes that
            are larger than their objects. Rep-MedSAM: 0.
        best_dice: whether a mask's pixels are those that make its expected Dice highest, see `zoo.sam.best_dice`. In
            volumes they would be too many: a walk that has grown goes on growing. Rep-MedSAM: False, even odds.
    """

    box_margin_px: int = 2
    best_dice: bool = True


@dataclass(frozen=True)
class Protocol3D(Protocol):
    """How a volume is walked: the options that published systems set differently.

    Defaults are Rep-MedSAM's where nothing else is said.

    Attributes:
        name: one of `PROTOCOLS`, or `MULTIPLANAR`, which needs `within_box` and `propagate`.
        z_range: whether a box's z_max belongs to the object (`inclusive`) or is one past it.
        box_dilation_px: margin around a mask before it prompts its neighbour, in pixels of the prompt frame.
        starts: slices that are looked at for the one that a walk begins at, an odd number, see `starts_of`: what begins
            at another object stays there. Rep-MedSAM: 1, the middle one.
        propagate: prompt with the neighbour's mask; without it every slice gets the object's own box.
        mask_prompts: whether that mask prompts, too, and not its box alone; None where the weights were trained for it,
            as the encoder's spec says. Rep-MedSAM: False.
        own_box_share: where the box beside such a mask lies, on the way from the mask's (0) to the object's own (1): as
            the mask says which object is meant, its box may leave it room to grow.
        mask_value: what the neighbour's mask holds while it is resized: `binary`, or the object's number (`label`),
            which lets smaller coverage through the higher the number. Rep-MedSAM: `label`.
    """

    name: str = "batched"
    z_range: Literal["inclusive", "exclusive"] = "inclusive"
    box_dilation_px: int = 3
    starts: int = 3
    propagate: bool = True
    mask_prompts: bool | None = None
    own_box_share: float = 0.5
    mask_value: Literal["binary", "label"] = "binary"

    def __post_init__(self) -> None:
        if self.name not in (*PROTOCOLS, MULTIPLANAR):
            raise unknown_name("protocol", self.name, [*PROTOCOLS, MULTIPLANAR])
        if self.starts < 1 or self.starts % 2 == 0:
            raise InputError("--starts", str(self.starts), "an odd number from 1 up")
        for option, given in (("within-box", self.within_box), ("propagate", self.propagate)):
            if self.is_multiplanar and not given:
                raise InputError(f"--protocol {MULTIPLANAR}", f"--no-{option}", f"--{option} beside it")

    @property
    def is_multiplanar(self) -> bool:
        """Whether the planes across the slices are asked, too."""
        return self.name == MULTIPLANAR

    @property
    def decodes_together(self) -> bool:
        """Whether all objects of a slice are decoded together."""
        return self.name in ("batched", MULTIPLANAR)

    def recorded(self, spec: EncoderSpec) -> dict[str, Any]:
        """As `Protocol.recorded`; `zoom` likewise, `OF_MASKS` where masks prompt, `starts` where there are several."""
        options = super().recorded(spec) | {"mask_prompts": True}
        untold = [*(() if self.prompts_with_masks(spec) else OF_MASKS)]
        untold += [option for option, off in (("starts", 1), ("zoom", False)) if options[option] == off]
        return {option: value for option, value in options.items() if option not in untold}

    def prompts_with_masks(self, spec: EncoderSpec) -> bool:
        """Whether masks prompt their neighbours, of a model of this spec."""
        return self.propagate and (spec.mask_prompts if self.mask_prompts is None else self.mask_prompts)


AnyProtocol = Protocol2D | Protocol3D


def protocol_of(options: Mapping[str, Any]) -> AnyProtocol:
    """What `as_record` wrote."""
    return Protocol3D(**options) if "name" in options else Protocol2D(**options)


@dataclass(frozen=True)
class Walk:
    """Where one object's segmentation goes.

    Attributes:
        number: of the object in its case, from 0.
        start: the slice it starts from.
        up: slices after that, ascending.
        down: slices before that, descending.
    """

    number: int
    start: int
    up: range
    down: range

    def __len__(self) -> int:
        return 1 + len(self.up) + len(self.down)

    def begun_at(self, start: int) -> Walk:
        """The same slices from another one."""
        first, last = self.start - len(self.down), self.start + len(self.up)
        return Walk(self.number, start, range(start + 1, last + 1), range(start - 1, first - 1, -1))


def walks_of(case: Case, protocol: Protocol3D) -> list[Walk]:
    """One walk for each object of a volume, in order.

    Raises:
        InputError: a 2D case, or a box that reaches past the volume, in z under the protocol's `z_range`, or is not of
            whole numbers.
    """
    if not case.is_volume:
        raise InputError(case.source, f"a 2D case of shape {case.image.shape}", "a volume (D, H, W)")
    walks = [_walk(number, box[2], box[5], case, protocol) for number, box in enumerate(case.boxes)]
    if walks:
        depth, height, width = case.image.shape
        # z has been looked at under `z_range`, which may allow the depth itself.
        validate_boxes(case.source, case.boxes, (depth + 1, height, width))
    return walks


def _walk(number: int, z_min: float, z_max: float, case: Case, protocol: Protocol3D) -> Walk:
    depth = len(case.image)
    last, order, end = (z_max, "<=", depth - 1) if protocol.z_range == "inclusive" else (z_max - 1, "<", depth)
    if not 0 <= z_min <= last < depth:
        expected = f"z_min {order} z_max within 0..{end} ({protocol.z_range})"
        raise InputError(case.source, f"a box with z {z_min}..{z_max} in {depth} slices", expected)
    middle = int((z_max - z_min) / 2 + z_min)
    return Walk(number, middle, range(middle + 1, int(last) + 1), range(middle - 1, int(z_min) - 1, -1))


def starts_of(walk: Walk, protocol: Protocol3D) -> list[int]:
    """Slices that a walk may begin at, ascending: its own start, and `starts` - 1 others evenly on both sides of it."""
    if protocol.starts == 1 or not protocol.propagate:
        return [walk.start]
    sides = np.linspace(-START_REACH, START_REACH, protocol.starts)
    ends = np.where(sides < 0, len(walk.down), len(walk.up))
    return sorted({walk.start + int(offset) for offset in np.round(sides * ends)})


def clicks_for(
    case: Case, number: int, fit: Fit, z: int | None = None, corner: tuple[int, int] = (0, 0)
) -> Clicks | None:
    """The clicks beside an object's box, of an image or of one slice of a volume, in the prompt frame.

    Args:
        case: the image or volume.
        number: of the object, from 0.
        fit: of the image or its part in the prompt frame.
        z: the slice; None for an image.
        corner: (x, y) in the image of the part's first pixel.

    Returns:
        Points (1, P, 2) and labels (1, P), 1 for the object and 0 for what it is not; None where there are none.
    """
    own = [click for click in case.clicks if click.number == number and click.voxel[2:] == (() if z is None else (z,))]
    if not own:
        return None
    points = scale_points(np.array([click.voxel[:2] for click in own]) - corner, fit)
    return points[None], np.array([[int(click.belongs) for click in own]])


def prompt_for(
    case: Case,
    number: int,
    previous: NDArray[np.bool_] | None,
    fit: Fit,
    protocol: Protocol3D,
    *,
    beside_mask: bool = False,
) -> Floats:
    """The box (4,) in the prompt frame that asks for an object's slice.

    Args:
        case: the volume.
        number: of the object, from 0.
        previous: the neighbouring slice's mask (H, W); None for the middle slice.
        fit: of a slice in the prompt frame.
        protocol: the options.
        beside_mask: whether `previous` itself prompts, too.
    """
    own = scale_boxes(case.boxes[number : number + 1, [0, 1, 3, 4]], fit, protocol.box_rounding)[0]
    if previous is None or not protocol.propagate:
        return own
    value = number + 1 if protocol.mask_value == "label" else 1
    around = mask_box(mask_in_frame(previous, fit, value), protocol.box_dilation_px)
    if around is None:
        return own
    if protocol.within_box:
        around = np.clip(around, np.tile(own[:2], 2), np.tile(own[2:], 2))
    if beside_mask:
        around = around + protocol.own_box_share * (own - around)
    return around.astype(np.float32)


def mask_prompt(previous: NDArray[np.bool_] | None, fit: Fit) -> Floats | None:
    """The mask of a slice as what prompts the next, beside its box; None where there is nothing in it.

    Args:
        previous: (H, W).
        fit: of a slice in a frame of `LOW_RES_PX`.

    Returns:
        Logits (1, 256, 256).
    """
    framed = None if previous is None else mask_in_frame(previous, fit)
    if framed is None or not framed.any():
        return None
    return np.where(framed, np.float32(MASK_LOGIT), np.float32(-MASK_LOGIT))[None]
