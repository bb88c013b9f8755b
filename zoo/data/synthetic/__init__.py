"""Endless promptable-segmentation samples, drawn from nothing: shapes, tissues, artefacts and looks at random.

Domain randomisation in the spirit of SynthSeg (Billot et al., arXiv:2107.09559), for images with labelled instances.
"""

from zoo.data.synthetic.generator import LOOK_NAMES, SyntheticSample, sample
from zoo.data.synthetic.sheet import contact_sheet, volume_sheet
from zoo.data.synthetic.volume import VOLUME_LOOK_NAMES, SyntheticVolume, volume

__all__ = [
    "LOOK_NAMES",
    "VOLUME_LOOK_NAMES",
    "SyntheticSample",
    "SyntheticVolume",
    "contact_sheet",
    "sample",
    "volume",
    "volume_sheet",
]
