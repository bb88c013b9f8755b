"""Feeds mutated files to every reader: each must be read, or refused by the typed error, in bounded time and memory.

    python tests/fuzz.py --count 10000 --seed 0

Exit code 1 and a line a failure (kind and number, which reproduce it with `--only KIND:NUMBER`) where anything else
happens. A crash of the process names the file that it was reading.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import io
import resource
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom import dcmread
from pydicom.uid import RLELossless
from test_dicom import write_dicom

from zoo.data.boxes import read_boxes, read_clicks
from zoo.data.masks import Objects
from zoo.data.npz import load_challenge_npz, load_label_map
from zoo.data.prepare import Preparation, prepare_case
from zoo.data.scan import read_labels, read_scan
from zoo.errors import InputError

#: Address space that a reader may take, and the time for one file.
MEMORY_BYTES, SECONDS = 6 * 2**30, 60


def read_volume(path: Path) -> None:
    scan = read_scan(path)
    labels = read_labels([path], scan)
    prepare_case(scan, Objects(labels), Preparation(), "x")


def read_dicom(path: Path) -> None:
    read_scan(path)
    read_scan(path.parent)


#: Suffix and reader of every kind of file.
KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "npz": (".npz", load_challenge_npz),
    "segs": (".npz", load_label_map),
    "nii": (".nii", read_volume),
    "nii.gz": (".nii.gz", read_volume),
    "nrrd": (".nrrd", read_volume),
    "mha": (".mha", read_volume),
    "mhd": (".mhd", read_volume),
    "dcm": (".dcm", read_dicom),
    "rle": (".dcm", read_dicom),
    "png": (".png", read_volume),
    "tif": (".tif", read_volume),
    "pages": (".tif", read_volume),
    "jpg": (".jpg", read_volume),
    "npy": (".npy", read_volume),
    "json": (".json", lambda path: (read_boxes(path, "x"), read_clicks(path, "x"))),
    "csv": (".csv", lambda path: read_boxes(path, "x")),
}


def good_files(folder: Path) -> dict[str, bytes]:
    """A small valid file of every kind."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 4, (6, 10, 12)).astype(np.int16)
    picture = Image.fromarray(rng.integers(0, 4, (9, 11)).astype(np.uint8))
    npz = io.BytesIO()
    np.savez_compressed(
        npz, imgs=voxels.astype(np.uint8), gts=voxels.astype(np.uint8), boxes=[[1, 1, 1, 5, 5, 3]], spacing=[1.0, 1, 2]
    )
    segs = io.BytesIO()
    np.savez_compressed(segs, segs=voxels.astype(np.uint16))
    npy = io.BytesIO()
    np.save(npy, voxels[0])
    pages = io.BytesIO()
    picture.save(pages, format="TIFF", save_all=True, append_images=[picture] * 3)
    for suffix in ("nrrd", "mha"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / f"good.{suffix}"))
    series = write_dicom(folder / "series", np.abs(voxels))
    packed = dcmread(next(series.iterdir()))
    packed.compress(RLELossless)
    packed.save_as(folder / "good.dcm")
    nifti = nib.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])).to_bytes()
    found = {
        "npz": npz.getvalue(),
        "segs": segs.getvalue(),
        "npy": npy.getvalue(),
        "pages": pages.getvalue(),
        "rle": (folder / "good.dcm").read_bytes(),
        # Its voxels are the header itself, which is as many bytes as it says.
        "mhd": b"NDims = 3\nDimSize = 4 4 3\nElementType = MET_UCHAR\nElementDataFile = x.mhd\n",
        "nii": nifti,
        "nii.gz": gzip.compress(nifti),
        "nrrd": (folder / "good.nrrd").read_bytes(),
        "mha": (folder / "good.mha").read_bytes(),
        "dcm": next(series.iterdir()).read_bytes(),
        "json": b'{"x": [{"label": 1, "box": [1, 2, 3, 4, 5, 6], "clicks": [[1, 3, 5, 1]]}]}',
        "csv": b"case,label,x_min,y_min,x_max,y_max\nx,1,2,3,4,5\n",
    }
    for kind, name in (("png", "PNG"), ("tif", "TIFF"), ("jpg", "JPEG")):
        stream = io.BytesIO()
        picture.save(stream, format=name)
        found[kind] = stream.getvalue()
    return found


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Some of: flipped bits, other bytes, a cut, a repeated, removed or foreign part, extreme numbers."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            break
        # Headers come first, and are what readers trust.
        limit = len(data) if rng.random() < 0.5 else min(len(data), 400)
        at = int(rng.integers(0, limit))
        span = int(rng.integers(1, 17))
        match int(rng.integers(0, 7)):
            case 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[at : at + span] = rng.bytes(span)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = data[at : at + span] * int(rng.integers(1, 5))
            case 4:
                del data[at : at + span]
            case 5:
                kind = rng.choice(["<i2", "<i4", "<f4", "<f8", ">i4"])
                value = rng.choice([0, -1, 2**15 - 1, 2**31 - 1, -(2**31)] if "i4" in kind else [0, -1, 32767])
                extreme = np.array(np.nan if "f" in kind and rng.random() < 0.5 else value, kind).tobytes()
                data[at : at + len(extreme)] = extreme
            case 6:
                data[at : at + span] = b"9" * span
    return bytes(data)


def mutate_inside(content: bytes, rng: np.random.Generator) -> bytes:
    """A valid npz archive around a broken array."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        victim = str(rng.choice(old.namelist()))
        for name in old.namelist():
            new.writestr(name, mutate(old.read(name), rng) if name == victim else old.read(name))
    return stream.getvalue()


def mutated(kind: str, content: bytes, number: int, seed: int) -> bytes:
    rng = np.random.default_rng((seed, list(KINDS).index(kind), number))
    if kind in ("npz", "segs") and number % 2:
        return mutate_inside(content, rng)
    if kind == "nii.gz" and number % 2:
        return gzip.compress(mutate(gzip.decompress(content), rng))
    return mutate(content, rng)


def attempt(kind: str, content: bytes, folder: Path) -> str | None:
    """None where the file is read or refused; else what happened."""
    suffix, read = KINDS[kind]
    path = folder / f"x{suffix}"
    path.write_bytes(content)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except InputError as error:
        return None if str(path.name) in str(error) or "x" in str(error) else f"an error without the file: {error}"
    except BaseException as error:  # whatever it is, it is what is looked for
        return f"{type(error).__name__}: {error}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="KIND:NUMBER")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = good_files(folder)
        inbox = folder / "inbox"
        inbox.mkdir()
        kinds = list(KINDS)
        tasks = [(kinds[number % len(kinds)], number // len(kinds)) for number in range(arguments.count)]
        if arguments.only:
            kind, _, number = arguments.only.partition(":")
            tasks = [(kind, int(number))]
        for kind, number in tasks:
            print(f"\r{kind}:{number} ", end="", file=sys.stderr, flush=True)  # noqa: T201
            if found := attempt(kind, mutated(kind, good[kind], number, arguments.seed), inbox):
                failures += 1
                print(f"\n{kind}:{number} {found}", flush=True)  # noqa: T201
            for left in inbox.iterdir():
                left.unlink()
        outside = sorted(path.name for path in folder.iterdir())
        if outside != ["good.dcm", "good.mha", "good.nrrd", "inbox", "series"]:
            failures += 1
            print(f"\nfiles written beside the input: {outside}", flush=True)  # noqa: T201
    print(f"\n{len(tasks)} files, {failures} failures")  # noqa: T201
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
