"""Finding cases: a file, a folder, a glob, a NIfTI pair, or the built-in phantom."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.data.case import Case
from zoo.data.nifti import load_nifti_pair, stem
from zoo.data.npz import MODALITIES, load_challenge_npz
from zoo.data.phantom import DEFAULT_PHANTOMS, load_phantom
from zoo.errors import InputError

#: Tokens of a file or folder name that mark labels.
LABEL_TOKENS = {"seg", "segs", "label", "labels", "labelstr", "labelsts", "mask", "masks", "gt", "gts"}
SUFFIXES = (".npz", ".nii", ".nii.gz")


@dataclass(frozen=True)
class CaseSource:
    """A case that can be loaded, now or in another process.

    Attributes:
        case_id: unique among the cases found together.
        reference: what `find_cases` finds exactly this by.
        image_path: of a file; None for the phantom.
        labels_path: of a NIfTI pair.
        max_objects: keep only the largest objects.
        max_slices: keep only so many neighbouring slices.
    """

    case_id: str
    reference: str
    image_path: Path | None = None
    labels_path: Path | None = None
    max_objects: int | None = None
    max_slices: int | None = None

    def load(self) -> Case:
        """Reads the case.

        Raises:
            InputError: it cannot be used.
        """
        if self.image_path is None:
            case = load_phantom(self.reference.removeprefix("phantom:"))
        elif self.image_path.suffix == ".npz":
            case = load_challenge_npz(self.image_path)
        elif self.labels_path is None:
            raise InputError(self.image_path, "no label file beside it", "IMAGE=LABELS, or labels in the same folder")
        else:
            case = load_nifti_pair(self.image_path, self.labels_path)
        case = case if self.max_slices is None else case.keep_slices(self.max_slices)
        case = case if self.max_objects is None else case.keep_objects(self.max_objects)
        return replace(case, case_id=self.case_id)

    def limited(self, max_objects: int | None, max_slices: int | None) -> CaseSource:
        """The same source, whose case will be cut down."""
        return replace(self, max_objects=max_objects, max_slices=max_slices)


def find_cases(spec: str) -> list[CaseSource]:
    """Cases that `spec` names, in order of their paths.

    Args:
        spec: a file, a folder (searched with its subfolders), a glob, `IMAGE=LABELS` for a NIfTI pair, `phantom` for
            the built-in cases or `phantom:NAME` for one of them.

    Raises:
        InputError: nothing is found.
    """
    kind, _, name = spec.partition(":")
    if kind == "phantom":
        names = [name] if name else list(DEFAULT_PHANTOMS)
        return [CaseSource(f"phantom_{one}", f"phantom:{one}") for one in names]
    image, _, labels = spec.partition("=")
    if labels:
        return [CaseSource(stem(Path(image)), spec, Path(image), Path(labels))]
    paths = _paths(spec)
    if not paths:
        raise InputError(spec, "no case", f"files that end in {', '.join(SUFFIXES)}, or phantom")
    return _unique([source for path in paths if (source := _source(path)) is not None])


def _paths(spec: str) -> list[Path]:
    root = Path(spec)
    found = root.rglob("*") if root.is_dir() else map(Path, glob.glob(spec, recursive=True))  # noqa: PTH207  (absolute patterns)
    return sorted(path for path in found if path.name.endswith(SUFFIXES) and not path.name.startswith("."))


def _source(path: Path) -> CaseSource | None:
    """The source of a file, or None where it holds the labels of another."""
    if path.suffix == ".npz":
        return CaseSource(path.stem, str(path), path)
    if _is_labels(path):
        return None
    labels = _labels_of(path)
    reference = f"{path}={labels}" if labels else str(path)
    return CaseSource(stem(path), reference, path, labels)


def _tokens(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.lower())


def _is_labels(path: Path) -> bool:
    return bool(LABEL_TOKENS & {*_tokens(stem(path)), path.parent.name.lower()})


def _labels_of(image: Path) -> Path | None:
    """The label file of an image: in its folder or one beside it, with the same name but for label tokens.

    Where the folder holds a single image, its first label file will do.
    """
    beside = [folder for folder in image.parent.parent.iterdir() if folder.name.lower() in LABEL_TOKENS]
    files = sorted(file for folder in (image.parent, *sorted(beside)) for file in folder.iterdir())
    niftis = [file for file in files if file.name.endswith(SUFFIXES[1:])]
    candidates = [file for file in niftis if _is_labels(file)]
    # nnU-Net's images carry a channel number that their labels do not.
    names = {stem(image).lower(), re.sub(r"_0000$", "", stem(image)).lower()}
    for file in candidates:
        plain = "_".join(token for token in _tokens(stem(file)) if token not in LABEL_TOKENS)
        if plain in {"_".join(_tokens(name)) for name in names}:
            return file
    images = [file for file in niftis if file.parent == image.parent and not _is_labels(file)]
    return candidates[0] if candidates and len(images) == 1 else None


def _unique(sources: list[CaseSource]) -> list[CaseSource]:
    """Case ids that clash, or that say no more than a modality, get the folder's name in front."""
    ids = [source.case_id for source in sources]
    return [
        replace(source, case_id=f"{source.image_path.parent.name}_{source.case_id}")
        if source.image_path and (ids.count(source.case_id) > 1 or source.case_id.lower() in MODALITIES)
        else source
        for source in sources
    ]
