"""Names of imaging modalities."""

from __future__ import annotations

import re

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


def modality_from_name(name: str) -> str:
    """The modality that a token of the file name tells, or `unknown`."""
    tokens = re.split(r"[^a-z0-9]+", name.lower().replace("x-ray", "xray"))
    return next((MODALITIES[token] for token in tokens if token in MODALITIES), "unknown")
