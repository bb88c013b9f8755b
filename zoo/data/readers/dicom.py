"""What a DICOM file is, by the first bytes of it."""

from __future__ import annotations

import re
from pathlib import Path

#: What comes before the header's first fields, among which the class is one of the first.
_HEAD_BYTES = 512
_CLASS = re.compile(rb"\x02\x00\x02\x00UI..([0-9.]+)", re.DOTALL)
#: Classes of storage without pixels (DICOM PS3.4, annex B.5): plans and structures of radiotherapy but not its images
#: and doses, reports, presentation states, documents, waveforms, raw data, registrations, maps of values, spectra.
_NO_IMAGE = re.compile(
    rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\."
    rb"(481\.(?!(?:1|2|23|24)$)\d+|(?:88|11|104|9)\..+|66(\.[1235])?|67|4\.2)"
)


def holds_no_image(path: Path) -> bool:
    """Whether a DICOM file says of itself that it is something else than an image."""
    try:
        with path.open("rb") as stream:
            found = _CLASS.search(stream.read(_HEAD_BYTES))
    except OSError:
        return False
    return found is not None and _NO_IMAGE.fullmatch(found[1].rstrip(b".")) is not None
