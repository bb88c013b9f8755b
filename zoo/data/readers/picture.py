"""Pictures: PNG, JPEG, TIFF, BMP and npy; a TIFF of several pages is a volume."""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from zoo.data.case import check_size
from zoo.data.intensity import is_unit, unit_to_uint8
from zoo.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def read_picture(path: Path, *, labels: bool = False) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, 3) as a viewer shows them, or (D, H, W) of a TIFF of several pages.

    Args:
        path: of the file.
        labels: numbers into a palette are labels, not colours. Transparency is left out in any case.

    Raises:
        InputError: no readable picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                # Behind a phone's photograph, an MPO holds smaller ones of it.
                pages = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
                check_size(path, (pages, *file.size, len(file.getbands())))
                arrays = [_pixels(page, labels) for page in islice(ImageSequence.Iterator(file), pages)]
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their format's code does.
        raise InputError(path, f"no readable picture ({error})", f"a whole {', '.join(SUFFIXES)} file") from error
    if len({array.shape for array in arrays}) > 1 or (len(arrays) > 1 and arrays[0].ndim > 2):
        raise InputError(path, f"{len(arrays)} pages of different or coloured pictures", "grey pages of one size")
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)


def read_npy(path: Path, *, labels: bool = False) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, 3) of an npy file; floats in [0, 1] as 0 to 255.

    Args:
        path: of the file.
        labels: those of labels are not rounded.

    Raises:
        InputError: no readable array of that kind.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        check_size(path, mapped.shape)
        array = np.array(mapped)
    except InputError:
        raise
    except Exception as error:  # numpy evaluates the header's text, which fails in a dozen ways.
        raise InputError(path, f"no readable array ({error})", "a whole .npy file without pickles") from error
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype.kind not in "biuf" or not is_picture or not array.size:
        raise InputError(path, f"{array.dtype} {array.shape}", "numbers (H, W) or (H, W, 3)")
    if is_unit(array):
        return array * 255 if labels else unit_to_uint8(array)
    return array


def _pixels(page: Image.Image, labels: bool) -> NDArray[Any]:
    page = ImageOps.exif_transpose(page)
    if page.mode == "P" and labels:
        return np.asarray(page)
    if page.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB", "RGBA", "RGBX", "PA"):
        page = page.convert("RGB")
    elif page.mode in ("LA", "1"):
        page = page.convert("L")
    return np.asarray(page)
