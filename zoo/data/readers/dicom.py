"""What a DICOM file is, by the first bytes of it."""

from __future__ import annotations

import re
from pathlib import Path

#: What comes before the header's first fields, among which the class is one of the first.
_HEAD_BYTES = 512
_CLASS = re.compile(rb"\x02\x00\x02\x00UI..([0-9.]+)", re.DOTALL)
#: Classes of storage without an image (DICOM PS3.4, annex B.5): plans and structures of radiotherapy but not its images
#: and doses, reports, presentation states, documents, waveforms, raw data, registrations, maps of values, spectra,
#: segmentations, tracts; and, of their makers' own, Philips' spectra, series data and exam cards, and Siemens' CSA.
_NO_IMAGE = re.compile(
    rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\."
    rb"(481\.(?!(?:1|2|23|24)$)\d+|(?:88|11|104|9)\..+|66(\.[1-7])?|67|4\.2)"
    rb"|1\.3\.46\.670589\.11\.0\.0\.12\..+|1\.3\.12\.2\.1107\.5\.9\.1"
)
#: Structures of radiotherapy, and segmentations: of a bit a voxel and of labels.
_LABELS = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(481\.3|66\.4|66\.7)")


def holds_no_image(path: Path) -> bool:
    """Whether a DICOM file says of itself that it is something else than an image."""
    return _NO_IMAGE.fullmatch(_class_of(path)) is not None


def holds_labels(path: Path) -> bool:
    """Whether a DICOM file says of itself that it holds structures or a segmentation."""
    return _LABELS.fullmatch(_class_of(path)) is not None


def _class_of(path: Path) -> bytes:
    """The UID of a file's class; empty where there is none to be found."""
    try:
        with path.open("rb") as stream:
            found = _CLASS.search(stream.read(_HEAD_BYTES))
    except OSError:
        return b""
    return b"" if found is None else found[1].rstrip(b".")
