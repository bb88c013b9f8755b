"""What a DICOM file is, by the first bytes of it, and whether its elements fit into it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from zoo.errors import InputError

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
#: What stands before the first element.
_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"
#: Kinds of values whose length has 16 bits; that of others has 32, behind two bytes of zero (DICOM PS3.5, 7.1.2).
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_KINDS = _SHORT.union(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_META_GROUP, _ITEM_GROUP = 0x0002, 0xFFFE
_SYNTAX, _PIXELS, _ITEM = (0x0002, 0x0010), (0x7FE0, 0x0010), (0xFFFE, 0xE000)
#: Behind which there are no lengths: padding, the swapped bytes of some of Philips' sequences, pixels of Papyrus.
_ODD = ((0x0000, 0x0000), (0xFEFF, 0x00E0), (0x00FF, 0x4AA5))
#: Syntaxes that name no kinds, whose lengths GDCM checks itself, and the one that is deflated.
_NOT_WALKED = (b"1.2.840.10008.1.2", b"1.2.840.113619.5.2", b"1.2.840.10008.1.2.1.99")
_BIG_ENDIAN = b"1.2.840.10008.1.2.2"
#: How far a value may reach beyond its file: smaller slips GDCM may mend.
MOST_BEYOND_BYTES = 2**24


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


class _Element(NamedTuple):
    """An element's group and number, the kind of its value where it names one, and the value's length in bytes."""

    tag: tuple[int, int]
    kind: bytes
    length: int


def check_lengths(path: Path) -> None:
    """Refuses a DICOM file with a value that is far longer than the file: GDCM would take as much memory to find out.

    Elements are gone through as GDCM does it, up to the pixels. Where the way is not clear nothing is refused, nor is a
    file that cannot be opened: whoever reads it tells of that.

    Raises:
        InputError: such a value.
    """
    if not path.is_file():
        return
    with suppress(OSError), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        for length in _lengths(stream):
            if length > size - stream.tell() + MOST_BEYOND_BYTES:
                raise InputError(path, f"an element of {length:,} bytes in a file of {size:,}", "a whole DICOM file")


def _lengths(stream: BinaryIO) -> Iterator[int]:
    """Lengths of values that are read in one piece, each while the stream is at its first byte, to be left there."""
    if stream.read(_PREAMBLE_BYTES + len(_MAGIC))[_PREAMBLE_BYTES:] != _MAGIC:
        return
    syntax = yield from _lengths_of_meta(stream)
    order = ">" if syntax == _BIG_ENDIAN else "<"
    while syntax not in _NOT_WALKED and (element := _next_element(stream, order)) is not None:
        if element.tag == _PIXELS:
            yield from _lengths_of_pixels(stream, order, element.length)
            return
        if element.kind == b"SQ" or element.tag[0] == _ITEM_GROUP:
            continue  # into it, or out of it
        if element.length == _UNDEFINED or element.tag in _ODD:
            return
        yield element.length
        stream.seek(element.length, os.SEEK_CUR)


def _lengths_of_meta(stream: BinaryIO) -> Generator[int, None, bytes]:
    """Those of the elements in front, which say in what syntax the others are written; that is returned."""
    syntax, start = b"", stream.tell()
    while (element := _next_element(stream, "<")) is not None:
        if element.tag[0] != _META_GROUP or element.length == _UNDEFINED:
            break
        yield element.length
        if element.tag == _SYNTAX:
            syntax = stream.read(element.length).rstrip(b"\0 ")
        else:
            stream.seek(element.length, os.SEEK_CUR)
        start = stream.tell()
    stream.seek(start)
    return syntax


def _lengths_of_pixels(stream: BinaryIO, order: str, length: int) -> Iterator[int]:
    """The one of pixels as they are, or those of the pieces of compressed ones."""
    if length != _UNDEFINED:
        yield length
        return
    while (piece := _next_element(stream, order)) is not None and piece.tag == _ITEM:
        yield piece.length
        stream.seek(piece.length, os.SEEK_CUR)


def _next_element(stream: BinaryIO, order: str) -> _Element | None:
    """What stands before the next value; None at the end. An element that names no kind has a length all the same."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    group, number = struct.unpack(f"{order}HH", head[:4])
    kind = head[4:6] if group != _ITEM_GROUP and head[4:6] in _KINDS else b""
    if kind in _SHORT or (group != _ITEM_GROUP and not kind and _goes_on(stream, order, head)):
        (length,) = struct.unpack(f"{order}H", head[6:])
        if (group, kind, length) == (0x0009, b"UL", 6):  # Siemens' slip, which GDCM mends
            length = 4
    else:
        size = stream.read(4) if kind else head[4:]
        if len(size) < 4:
            return None
        (length,) = struct.unpack(f"{order}L", size)
    return _Element((group, number), kind, length)


def _goes_on(stream: BinaryIO, order: str, head: bytes) -> bool:
    """Whether an element of no known kind is followed by a sound one if its length has 16 bits, as GDCM tries first."""
    start, (length,) = stream.tell(), struct.unpack(f"{order}H", head[6:])
    stream.seek(length, os.SEEK_CUR)
    following = stream.read(8)
    stream.seek(start)
    return len(following) == 8 and following[4:6] in _KINDS
