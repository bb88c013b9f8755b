"""Scans of every format: geometry, intensities, labels, and files that cannot be used."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from zoo.data.cases import distinct, find_cases
from zoo.data.grid import Grid
from zoo.data.intensity import Window, parse_window, to_uint8
from zoo.data.scan import read_labels, read_scan, stem
from zoo.errors import InputError
from zoo.files import append_json

AXES = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "SI"))
    for codes in itertools.product(*order)
]  # fmt: skip


def grid(codes: str, shape: tuple[int, int, int] = (5, 4, 3)) -> Grid:
    """A file's grid in the orientation `codes`, 0.9 x 0.7 x 5 mm along L, P and S, of (x, y, z) `shape` in LPS."""
    lps = np.diag([-0.9, -0.7, 5.0, 1.0])
    turn = ornt_transform(axcodes2ornt(tuple("LPS")), axcodes2ornt(tuple(codes)))
    own = tuple(shape[int(np.argwhere(turn[:, 0] == axis)[0, 0])] for axis in range(3))
    return Grid(lps @ inv_ornt_aff(turn, shape), (own[0], own[1], own[2]))


@pytest.mark.parametrize("codes", AXES)
def test_a_box_goes_where_its_voxels_go(codes: str) -> None:
    where = grid(codes)
    assert "".join(nib.aff2axcodes(where.affine)) == codes
    assert where.spacing_mm == pytest.approx((5.0, 0.7, 0.9))
    voxels = np.zeros(where.shape, np.uint8)
    low, high = np.array([1, 0, 1]), np.array(where.shape) - [1, 2, 1]
    voxels[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = 1
    turned = where.to_slices(voxels)
    assert turned.shape == (3, 4, 5)
    found = np.argwhere(turned)[:, ::-1]
    box = where.boxes_to_slices(np.array([[*low, *high]]))
    assert box.tolist() == [[*found.min(0), *found.max(0)]]
    np.testing.assert_array_equal(where.to_file(turned), voxels)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR"])
def test_the_affine_of_the_slices_leads_to_the_same_points(codes: str) -> None:
    where = grid(codes)
    voxels = np.arange(60).reshape(where.shape)
    turned = where.to_slices(voxels)
    for ijk in np.argwhere(voxels > -1):
        zyx = np.argwhere(turned == voxels[tuple(ijk)])[0]
        expected = where.affine @ [*ijk, 1]
        np.testing.assert_allclose(where.slices_affine @ [*zyx[::-1], 1], expected, atol=1e-9)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_itk_and_nibabel_agree_on_where_voxels_are(tmp_path: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5)).astype(np.int16))
    image.SetSpacing((0.9, 0.7, 5.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    path = tmp_path / f"x{suffix}"
    sitk.WriteImage(image, str(path))
    scan, reference = read_scan(path), sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(scan.voxels, sitk.GetArrayFromImage(reference))
    assert scan.spacing_mm == pytest.approx(reference.GetSpacing()[::-1])
    assert scan.grid is not None
    origin = scan.grid.slices_affine[:3, 3] * (-1, -1, 1)
    np.testing.assert_allclose(origin, reference.GetOrigin(), atol=1e-5)


def test_a_huge_header_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(path))
    path.write_bytes(path.read_bytes().replace(b"DimSize = 5 4 3", b"DimSize = 9999 9999 9999"))
    with pytest.raises(InputError, match="elements"):
        read_scan(path)


@pytest.mark.parametrize("place", ["/dev/zero", "../x.raw", "LIST", "x%03d.raw 1 3 1", 300 * "x"])
def test_headers_that_name_files_elsewhere_are_refused(tmp_path: Path, place: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(tmp_path / "a.mhd"))
    assert read_scan(tmp_path / "a.mhd").voxels.shape == (3, 4, 5)
    (tmp_path / "a.mhd").write_text((tmp_path / "a.mhd").read_text().replace("a.raw", place))
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\n"
    (tmp_path / "a.nhdr").write_text(f"{head}data file: {place}\n")
    for name in ("a.mhd", "a.nhdr"):
        with pytest.raises(InputError, match="voxels in another place"):
            read_scan(tmp_path / name)


#: BMP has no transparency.
MODES = {".png": "L RGB RGBA LA P 1", ".tif": "L RGB RGBA LA P 1", ".bmp": "L RGB P 1"}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix in MODES for mode in MODES[suffix].split()])
def test_pictures_of_every_mode(tmp_path: Path, suffix: str, mode: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / f"x{suffix}")
    colours = 3 if mode in ("RGB", "RGBA", "P") else 1
    pixels = read_scan(tmp_path / f"x{suffix}").voxels
    assert pixels.shape == ((6, 7, 3) if colours == 3 else (6, 7))
    np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB" if colours == 3 else "L")))


def test_a_photograph_stands_upright_as_in_a_viewer(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    about = Image.Exif()
    about[274] = 6  # orientation: to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=about, quality=100)
    found = read_scan(tmp_path / "x.jpg").voxels
    assert found.shape == (16, 8, 3)
    assert found[:6].min() > 200
    assert found[10:].max() < 50


def test_of_a_phones_photograph_the_first_picture_is_read(tmp_path: Path) -> None:
    large, small = (Image.fromarray(np.full((side, side, 3), 99, np.uint8)) for side in (32, 16))
    large.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[small])
    assert read_scan(tmp_path / "x.jpg").voxels.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("stored", "labels"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([0, 61, 121], [0, 61, 121]),
        ([0, 0.6, 1], [0, 1, 1]),
        ([0, 3, 255], [0, 0, 1]),
        ([0, 100.5, 200], [0, 0, 1]),
    ],
)
def test_floats_of_an_npy_are_labels_or_the_greys_of_a_mask(
    tmp_path: Path, stored: list[float], labels: list[int]
) -> None:
    np.save(tmp_path / "x_seg.npy", np.array([stored], np.float32))
    assert read_labels([tmp_path / "x_seg.npy"]).tolist() == [labels]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, np.float32, bool])
def test_black_and_white_is_label_1_in_any_file(tmp_path: Path, kind: type) -> None:
    mask = np.array([[0, 0, 255], [255, 0, 0]])
    np.save(tmp_path / "x_seg.npy", (mask > 0) if kind is bool else mask.astype(kind))
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "x_seg.png")
    for file in ("x_seg.npy", "x_seg.png"):
        assert read_labels([tmp_path / file]).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_white_of_16_bits_is_label_1_too(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535, 0]], np.uint16)).save(tmp_path / "x_seg.png")
    assert read_labels([tmp_path / "x_seg.png"]).tolist() == [[0, 1, 0]]


def test_labels_that_a_slope_has_rounded_are_whole(tmp_path: Path) -> None:
    """As nibabel keeps floats under a header of integers; halves are no labels, and one is named."""
    stored = np.array([[[0, 10922, 21845], [32767, 0, 10922]]] * 2, np.int16)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "x_seg.nii")  # type: ignore[no-untyped-call]
    content = bytearray((tmp_path / "x_seg.nii").read_bytes())
    content[112:120] = np.array([3 / 32767, 0], "<f4").tobytes()  # scl_slope and scl_inter
    (tmp_path / "x_seg.nii").write_bytes(content)
    assert (nib.load(tmp_path / "x_seg.nii").get_fdata() != np.trunc(3 * stored / 32767)).any()  # type: ignore[no-untyped-call]
    assert np.unique(read_labels([tmp_path / "x_seg.nii"])).tolist() == [0, 1, 2, 3]
    labels = np.array([[[0, 1.5, 2], [3, 0, 1]]] * 2)
    nib.save(nib.Nifti1Image(labels.astype(np.float32), np.eye(4)), tmp_path / "y_seg.nii")  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=r"values 0.0 to 3.0, 1.5 among them"):
        read_labels([tmp_path / "y_seg.nii"])


def test_pages_of_a_picture_do_not_say_where_they_lie(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.zeros((4, 7), np.uint8)) for _ in range(5)]
    pages[0].save(tmp_path / "x_seg.tif", save_all=True, append_images=pages[1:])
    nib.save(nib.Nifti1Image(np.zeros((7, 4, 5), np.int16), np.eye(4)), tmp_path / "x.nii")  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="found pages of a picture, which say of no place"):
        read_labels([tmp_path / "x_seg.tif"], read_scan(tmp_path / "x.nii"))


def test_label_255_of_a_mask_that_segment_made_stays_what_it_is(tmp_path: Path) -> None:
    mask = np.array([[0, 255]], np.uint8)
    for name in ("x", "by_hand"):
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    append_json(tmp_path / "segment.jsonl", {"case_id": "x"})
    assert read_labels([tmp_path / "x.png"]).max() == 255
    assert read_labels([tmp_path / "by_hand.png"]).max() == 1
    append_json(tmp_path / "segment.jsonl", {"case_id": "by_hand"})
    assert read_labels([tmp_path / "by_hand.png"]).max() == 255


def test_a_tiff_of_pages_is_a_volume(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 60_000, (3, 6, 7)).astype(np.uint16)
    pages = [Image.fromarray(page) for page in voxels]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    scan = read_scan(tmp_path / "x.tif")
    np.testing.assert_array_equal(scan.voxels, voxels)
    assert scan.grid is not None
    assert scan.grid.to_file(voxels).shape == (7, 6, 3)


def test_labels_of_a_palette_are_its_numbers(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 7)).astype(np.uint8)
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([200, 10, 10] * 256)
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels([tmp_path / "x.png"]), labels)


def test_several_masks_are_objects_in_order(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((6, 7, 3), 9, np.uint8)).save(tmp_path / "images" / "a.png")
    for name, row in (("a_liver", 1), ("a_spleen", 4)):
        mask = np.zeros((6, 7), np.uint8)
        mask[row] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (source,) = find_cases(str(tmp_path))
    case = source.load()
    assert case.labels is not None
    assert case.labels[:, 0].tolist() == [0, 1, 0, 0, 2, 0]
    (again,) = find_cases(source.reference)
    assert again == source


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no readable picture"), (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "no readable picture")],
)
def test_broken_pictures_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_scan(tmp_path / "x.png")


@pytest.mark.parametrize("array", [np.zeros((0, 7)), np.zeros((2, 3, 4)), np.array(["a"]), np.zeros(5)])
def test_arrays_that_are_no_pictures_are_named(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=r"x\.npy: found"):
        read_scan(tmp_path / "x.npy")


def test_an_unknown_suffix_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a name that ends in \.docx"):
        read_scan(tmp_path / "x.docx")


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nii.gz", "a"), ("a.b.NII", "a.b"), ("a.npz", "a"), ("series", "series"), ("a.x", "a.x")]
)
def test_stem(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


def test_ids_that_clash_get_as_many_folders_in_front_as_part_them(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "b/x_2.png", "s1/p/ct.png", "s2/p/ct.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = ["a_x", "b_x", "x_2", "s1_p_ct", "s2_p_ct"]
    assert [source.case_id for source in find_cases(str(tmp_path))] == expected
    found = [source for folder in ("a", "b", "s1", "s2") for source in find_cases(str(tmp_path / folder))]
    assert [source.case_id for source in found] == ["x", "x", "x_2", "p_ct", "p_ct"]
    assert [source.case_id for source in distinct([*found, found[0]])] == expected


def test_images_that_only_their_suffixes_part_have_them_in_their_ids(tmp_path: Path) -> None:
    for name in ("x.png", "x.nii.gz", "y.png"):
        (tmp_path / name).touch()
    assert [source.case_id for source in find_cases(str(tmp_path))] == ["x_nii_gz", "x_png", "y"]


def test_an_image_with_two_labels_is_refused(tmp_path: Path) -> None:
    for name in ("x.png", "x_seg.png", "other.png"):
        (tmp_path / name).touch()
    image = tmp_path / "x.png"
    twice = [*find_cases(str(image)), *find_cases(f"{image}={tmp_path / 'other.png'}")]
    with pytest.raises(InputError, match="expected each image once"):
        distinct(twice)


# Windows


def test_windows_by_name_and_by_numbers() -> None:
    assert parse_window("lung") == Window(-600, 1500)
    assert parse_window("50/250") == Window(50, 250)
    hu = np.array([-1350.0, -600.0, 150.0])
    assert to_uint8(hu, "CT", parse_window("lung")).tolist() == [0, 127, 255]


@pytest.mark.parametrize("text", ["lungs", "40/0", "40/x", "nan/100", "40/-5", ""])
def test_bad_windows_are_named(text: str) -> None:
    with pytest.raises(InputError):
        parse_window(text)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_long_header_hides_no_file_elsewhere(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(60))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"a{suffix}"
    begun, comment, end = {
        ".mhd": ("ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_UCHAR\n", "Comment = {}\n",
                 "ElementDataFile = ../secret.raw\n"),
        ".nhdr": ("NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 4 3\nencoding: raw\n", "# {}\n",
                  "data file: ../secret.raw\n"),
    }[suffix]  # fmt: skip
    path.write_text(begun + comment.format("x" * 200) * 400 + end)
    with pytest.raises(InputError, match="found voxels in another place"):
        read_scan(path)
    path.write_text(begun + comment.format("x" * 200) * 6000 + end)
    with pytest.raises(InputError, match="found a header that has not ended after 1,048,576 bytes"):
        read_scan(path)


def test_the_header_of_a_segmentation_of_many_segments_is_read(tmp_path: Path) -> None:
    """3D Slicer's tell a dozen fields of each."""
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    for segment in range(400):
        for name in ("Color", "Extent", "ID", "Name", "Tags"):
            image.SetMetaData(f"Segment{segment}_{name}", "x" * 40)
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    assert (tmp_path / "a.seg.nrrd").stat().st_size > 2**16
    assert read_labels([tmp_path / "a.seg.nrrd"]).max() == 59


def test_a_name_against_the_values_of_a_ct_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is believed: a header tells what a scan is, and so does who named it."""
    voxels = np.full((4, 5, 3), -1024, np.int16)
    for name, least in (("pat3_T1", -1024), ("pat4_T1", 0), ("pat5_ct", -1024), ("pat6", -1024)):
        nib.save(nib.Nifti1Image(np.maximum(voxels, np.int16(least)), np.eye(4)), tmp_path / f"{name}.nii")
        assert read_scan(tmp_path / f"{name}.nii").modality == ("MR" if "T1" in name else "CT")
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path / 'pat3_T1.nii'}: read as MR, as its name says, though -1024 is a CT's value")
