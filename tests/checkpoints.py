"""Checkpoints of the published layouts, filled by the golden rule."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from fill import fill_state_dict
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
#: Published layout and the encoders that it fits.
LAYOUTS = {
    "rep_medsam": {"repvit", "repvit_m1_0"},
    "lite_medsam": {"tinyvit"},
    "medsam_vit_b": {"vit_b", "sam_vit_b"},
    "mobile_sam": {"mobile_sam"},
    "repvit_sam": {"repvit_sam"},
    "edge_sam": {"edge_sam"},
    "efficientvit_sam_l0": {"efficientvit_sam_l0"},
}


@cache
def filled(layout: str) -> dict[str, Tensor]:
    """The state dict of a published layout; the same tensors each time, so do not write to them."""
    return fill_state_dict(json.loads((GOLDEN / f"{layout}.json").read_text()))
