"""How much memory a process may take, and what it may keep within that."""

from __future__ import annotations

import re

import psutil

from zoo.data.case import Case, box_pixels
from zoo.errors import InputError
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE

#: That a process may take by default: fits a laptop of 8 GiB beside everything else.
DEFAULT_MAX_BYTES = 2 * 2**30
EMBEDDING_BYTES = 4 * EMBEDDING_CHANNELS * EMBEDDING_SIZE**2
#: A volume's label map, and the logits that decide where objects overlap.
BYTES_A_VOXEL = 4
#: What is said of a voxel in an object's box, where several planes are asked.
BYTES_A_VOTE = 2
#: Set aside for what encoding, decoding and writing take for a moment: a guess on the safe side of a light encoder.
WORKING_BYTES = 512 * 2**20
#: Of the machine's memory, what must be available for another model to be started beside those that are there.
LEAST_FREE = 0.1
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """Bytes of `2GiB`, `1500M` or `0.5 g`; units are powers of 1024.

    Raises:
        InputError: no such size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise InputError("--max-memory", repr(text), "a size such as 2GiB or 1500MiB")
    return size


def kept_embeddings(case: Case, limit_bytes: int, *, multiplanar: bool = False) -> int:
    """Embeddings that a volume's segmentation may keep for its second sweep; others are encoded again.

    Args:
        case: that has been read, by a process that has opened its model.
        limit_bytes: of the process's resident memory.
        multiplanar: whether planes across the slices are asked, too.
    """
    resident = psutil.Process().memory_info().rss
    free = limit_bytes - resident - WORKING_BYTES - BYTES_A_VOXEL * case.image.size
    if multiplanar:
        # Planes are drawn when embeddings have gone.
        free -= BYTES_A_VOTE * int(box_pixels(case.boxes).sum())
    return max(0, free // EMBEDDING_BYTES)


def expect_room() -> None:
    """Tells before the system would end this process without a word.

    Raises:
        MemoryError: too little is available for another model.
    """
    memory = psutil.virtual_memory()
    if memory.available < LEAST_FREE * memory.total:
        free, total = (f"{size / 2**30:.1f}" for size in (memory.available, memory.total))
        raise MemoryError(
            f"found {free} of {total} GiB of memory available; expected more for another candidate: ask "
            "for fewer encoders, runtimes or precisions at once"
        )
