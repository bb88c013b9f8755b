"""Names of imaging modalities."""

from __future__ import annotations

import re
from collections.abc import Collection

from zoo.errors import unknown_name

#: Tokens of a file name that tell the modality.
MODALITIES = {
    "ct": "CT",
    "mr": "MR",
    "mri": "MR",
    "t1": "MR",
    "t2": "MR",
    "pet": "PET",
    "us": "US",
    "xray": "XRay",
    "dermoscopy": "Dermoscopy",
    "endoscopy": "Endoscopy",
    "fundus": "Fundus",
    "mammography": "Mammography",
    "mamm": "Mammography",
    "microscope": "Microscopy",
    "microscopy": "Microscopy",
    "oct": "OCT",
}
#: Of the values of DICOM's modality tag.
DICOM_MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PET", "US": "US", "CR": "XRay", "DX": "XRay", "MG": "Mammography"}
#: Of a case whose name and header do not tell.
UNKNOWN = "unknown"


def modality_from_name(name: str) -> str:
    """The modality that the tokens of a file name tell, or `unknown`; of a challenge's name its second token."""
    tokens = re.split(r"[^a-z0-9]+", name.lower().replace("x-ray", "xray"))
    told = list(dict.fromkeys(MODALITIES[token] for token in tokens if token in MODALITIES))
    if not told or (len(told) > 1 and tokens[0] not in ("2dbox", "3dbox")):
        return UNKNOWN
    return told[0]


def parse_modality(text: str) -> str:
    """The modality of a name in any case, or of another name of it such as `mri`.

    Raises:
        InputError: no modality that is known.
    """
    names = {name.lower(): name for name in MODALITIES.values()} | MODALITIES
    if (found := names.get(text.lower().replace("-", ""))) is None:
        raise unknown_name("modality", text, set(MODALITIES.values()))
    return found


def calibration_doubt(modality: str, calibrated_with: Collection[str]) -> str | None:
    """What to tell a person who gives a case to a quantised model.

    Args:
        modality: of the case.
        calibrated_with: modalities that the model was calibrated with; none for a model in float.

    Returns:
        A line, or None where the model was calibrated with that modality, or one of the two is not known.
    """
    known = {name.lower() for name in calibrated_with}
    if not known or {UNKNOWN, modality.lower()} & known or modality.lower() == UNKNOWN:
        return None
    shown = ", ".join(calibrated_with)
    return f"{modality} is none of the modalities that this candidate was calibrated and checked with ({shown})"
