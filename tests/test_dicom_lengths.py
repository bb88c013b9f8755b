"""DICOM files with values that are said to be longer than the file, and such as are odd and no damage."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from test_dicom import stored_voxels, write_dicom
from test_dicom_labels import SQUARE, labels_of, series, write_structures

from zoo.data.readers import itk
from zoo.data.readers.dicom import check_lengths
from zoo.data.scan import read_scan
from zoo.errors import InputError


def write_extended(path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """A CT slice with a private element and a sequence of one."""
    image = dcmread(next(write_dicom(path.parent / "plain", stored_voxels()[:1]).iterdir()))
    image.add_new(0x00091010, "OB", b"element!")
    item = Dataset()
    item.add_new(0x00111010, "OB", b"nested!!")
    image.add_new(0x00111011, "SQ", [item])
    if syntax == RLELossless:
        image.compress(RLELossless)
    elif syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    image.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(exist_ok=True)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dcmwrite(path, image, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return path


def damage(path: Path, what: bytes, offset: int, order: Literal["little", "big"] = "little") -> Path:
    """Writes a length of 900 MiB so many bytes behind where something begins, the last time that it is there."""
    content = bytearray(path.read_bytes())
    at = content.rindex(what) + offset
    content[at : at + 4] = (900 * 2**20).to_bytes(4, order)
    path.write_bytes(content)
    return path


#: By what a length is found, and how far behind; the last two take the place of a kind of value, which then has none.
DAMAGES = {
    "element": (b"element!", -4),
    "nested": (b"nested!!", -4),
    "pixels": (b"\xe0\x7f\x10\0OW\0\0", 8),
    "kind": (b"element!", -8),
    "meta": (b"\2\0\2\0UI", 4),
}


@pytest.mark.parametrize("kind", [b"\0\0", b"??", b",\0"])
def test_an_element_of_no_known_kind_whose_length_fits_is_no_damage(tmp_path: Path, kind: bytes) -> None:
    """Such as some makers write, and GDCM reads: with a length of 16 bits, in front of a sound element."""
    path = write_extended(tmp_path / "one" / "x.dcm")
    image = dcmread(path)
    image.ImageComments = "!" * 600
    image.save_as(path)
    content = path.read_bytes()
    at = content.index(b"LT", content.index(b"\x20\0\0\x40"))
    path.write_bytes(content[:at] + kind + content[at + 2 :])
    check_lengths(path)


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("is_slice", [False, True])
def test_a_value_that_is_far_longer_than_its_file_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, is_slice: bool
) -> None:
    """GDCM would take the memory that it asks for."""
    path = damage(write_extended(tmp_path / "one" / "x.dcm"), *DAMAGES[what])
    monkeypatch.setattr(itk, "_read_header", pytest.fail)
    monkeypatch.setattr(itk.sitk.ImageSeriesReader, "GetGDCMSeriesIDs", pytest.fail)
    with pytest.raises(InputError, match=r"x\.dcm: found an element of 943,718,400 bytes in a file of [0-9,]+; "):
        read_scan(path.parent if is_slice else path)


@pytest.mark.parametrize(
    ("syntax", "what", "offset", "order"),
    [(RLELossless, b"\xfe\xff\0\xe0", 4, "little"), (ExplicitVRBigEndian, b"element!", -4, "big")],
    ids=["piece", "big"],
)
def test_so_is_a_piece_of_compressed_pixels_and_what_is_big_endian(
    tmp_path: Path, syntax: str, what: bytes, offset: int, order: Literal["little", "big"]
) -> None:
    path = damage(write_extended(tmp_path / "one" / "x.dcm", syntax), what, offset, order)
    with pytest.raises(InputError, match=r"x\.dcm: found an element of 943,718,400 bytes"):
        read_scan(path)


@pytest.mark.parametrize(
    ("syntax", "slip"),
    [
        (ExplicitVRLittleEndian, b"\t\0\x11\x10UL\6\0four\t\0\x12\x10LO\4\0text"),
        (ExplicitVRLittleEndian, b"\t\0\x11\x10ZZ\0\0\4\0\0\0four\t\0\x12\x10LO\4\0text"),
        (ExplicitVRLittleEndian, b"\t\0\x11\x10\4\0\0\0four\t\0\x12\x10LO\4\0text"),
        (ImplicitVRLittleEndian, b"\t\0\x11\x10\r\0\0\0ten bytes!\t\0\x12\x10\4\0\0\0text"),
    ],
    ids=["Siemens", "unknown kind", "no kind", "GE"],
)
def test_makers_slips_with_lengths_that_gdcm_mends_are_no_damage(tmp_path: Path, syntax: str, slip: bytes) -> None:
    """Lengths that are too large by 2 and by 3, a kind of value that nobody knows, and none at all."""
    path = write_extended(tmp_path / "one" / "x.dcm", syntax)
    content = path.read_bytes()
    at = content.index(b"element!") + 8
    path.write_bytes(content[:at] + slip + content[at:])
    np.testing.assert_array_equal(read_scan(path).voxels, stored_voxels()[0] - 1024.0)


@pytest.mark.parametrize(
    "syntax",
    [
        *(ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian),
        *(RLELossless, DeflatedExplicitVRLittleEndian),
    ],
)
def test_lengths_of_every_syntax_are_read(tmp_path: Path, syntax: str) -> None:
    scan = read_scan(write_extended(tmp_path / "one" / "x.dcm", syntax))
    np.testing.assert_array_equal(scan.voxels, stored_voxels()[0] - 1024.0)


def test_structures_with_a_value_far_longer_than_their_file_are_refused(tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", {1: [(3.0, SQUARE)]})
    file = dcmread(path)
    file.add_new(0x00091010, "OB", b"element!")
    file.save_as(path)
    damage(path, b"element!", -4)
    with pytest.raises(InputError, match=r"rs\.dcm: found an element of 943,718,400 bytes in a file of"):
        labels_of(path, series(tmp_path / "ct"))
