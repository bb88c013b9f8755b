"""Finding cases: a file, a folder, a glob, an image with its labels, or the built-in phantom."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.data.case import Case
from zoo.data.modality import MODALITIES
from zoo.data.npz import load_challenge_npz
from zoo.data.phantom import DEFAULT_PHANTOMS, load_phantom
from zoo.data.prepare import Preparation, load_pair
from zoo.data.scan import SUFFIXES, is_dicom, stem
from zoo.errors import InputError

#: Tokens of a file or folder name that mark labels.
LABEL_TOKENS = {"seg", "segs", "segmentation", "label", "labels", "labelstr", "labelsts", "mask", "masks", "gt", "gts"}
#: Names that tell nothing of a case.
GENERIC_NAMES = {*MODALITIES, "dicom", "image", "img", "scan", "vol", "volume"}
#: Tokens of an image's name that its labels need not share: MR sequences of one patient have one label map.
IMAGE_TOKENS = {*GENERIC_NAMES, "images", "imgs", "flair", "t1c", "t1ce", "t1gd", "t1n", "t1w", "t2f", "t2w"}
_NUMBERED = re.compile(rf"({'|'.join(sorted({*LABEL_TOKENS, 'img', 'image', 'scan', 'vol', 'volume'}))})(\d\w*)")


@dataclass(frozen=True)
class CaseSource:
    """A case that can be loaded, now or in another process.

    Attributes:
        case_id: unique among the cases found together.
        reference: what `find_cases` finds exactly this by.
        image_path: of a file or of the folder of a DICOM series; None for the phantom.
        labels_paths: of an image that is not a challenge npz: one label map, or one mask an object.
        max_objects: keep only the largest objects.
        max_slices: keep only so many neighbouring slices.
    """

    case_id: str
    reference: str
    image_path: Path | None = None
    labels_paths: tuple[Path, ...] = ()
    max_objects: int | None = None
    max_slices: int | None = None

    def load(self, preparation: Preparation | None = None, *, labels: bool = True) -> Case:
        """Reads the case.

        Args:
            preparation: of images that are not a challenge npz.
            labels: whether they are wanted; without, those that tell no boxes are not read.

        Raises:
            InputError: it cannot be used.
        """
        if self.image_path is None:
            case = load_phantom(self.reference.removeprefix("phantom:"))
        elif self.image_path.suffix == ".npz":
            case = load_challenge_npz(self.image_path, labels=labels)
        elif not self.labels_paths:
            raise InputError(self.image_path, "no label file beside it", "IMAGE=LABELS, or labels in the same folder")
        else:
            case = load_pair(self.image_path, self.labels_paths, preparation, self.case_id)
        case = case if self.max_slices is None else case.keep_slices(self.max_slices)
        case = case if self.max_objects is None else case.keep_objects(self.max_objects)
        return replace(case, case_id=self.case_id)

    def limited(self, max_objects: int | None, max_slices: int | None) -> CaseSource:
        """The same source, whose case will be cut down."""
        return replace(self, max_objects=max_objects, max_slices=max_slices)

    def absolute(self) -> CaseSource:
        """The same source, found from any folder."""
        labels_paths = tuple(path.absolute() for path in self.labels_paths)
        return replace(self, image_path=self.image_path and self.image_path.absolute(), labels_paths=labels_paths)


def find_cases(spec: str) -> list[CaseSource]:
    """Cases that `spec` names, in order of their paths.

    Args:
        spec: a file, a folder (searched with its subfolders; a folder of DICOM files is one image), a glob,
            `IMAGE=LABELS` (LABELS may be a glob of masks, one an object), `phantom` for the built-in cases or
            `phantom:NAME` for one of them.

    Raises:
        InputError: nothing is found.
    """
    kind, _, name = spec.partition(":")
    if kind == "phantom":
        names = [name] if name else list(DEFAULT_PHANTOMS)
        return [CaseSource(f"phantom_{one}", f"phantom:{one}") for one in names]
    image, _, labels = spec.partition("=")
    if labels:
        return [_pair(Path(image), tuple(_matches(labels)) or (Path(labels),))]
    paths = _paths(spec)
    if not paths:
        raise InputError(spec, "no case", f"files that end in .npz, {', '.join(SUFFIXES)}, or phantom")
    sources = [source for path in paths if (source := _source(path, asked_for=path == Path(spec))) is not None]
    if not sources:
        raise InputError(spec, "labels alone", "images; a name or folder such as seg, mask or labels marks labels")
    return _unique(sources)


def _pair(image: Path, labels: tuple[Path, ...]) -> CaseSource:
    joined = str(labels[0]) if len(labels) == 1 else f"{labels[0].parent}/{_own_masks(image)}"
    return CaseSource(stem(image), f"{image}={joined}", image, labels)


def _paths(spec: str) -> list[Path]:
    """Files and DICOM folders that a file, folder or glob names."""
    root = Path(spec)
    found = root.rglob("*") if root.is_dir() else _matches(spec)
    files = {path for path in found if _is_scan(path)}
    dicoms = Counter(path.parent for path in files if root != path and is_dicom(path))
    series = {folder for folder, count in dicoms.items() if count > 1}
    return sorted(series | {path for path in files if path.parent not in series})


def _matches(spec: str) -> list[Path]:
    return sorted(map(Path, glob.glob(spec, recursive=True)))  # noqa: PTH207  (absolute patterns)


def _is_scan(path: Path) -> bool:
    return not path.name.startswith(".") and (path.name.lower().endswith((".npz", *SUFFIXES)) or is_dicom(path))


def _source(path: Path, *, asked_for: bool) -> CaseSource | None:
    """The source of a file, or None where it holds the labels of another and is not asked for by its name."""
    if path.suffix == ".npz":
        return CaseSource(path.stem, str(path), path)
    if _is_labels(path) and not asked_for:
        return None
    labels = _labels_of(path)
    return _pair(path, labels) if labels else CaseSource(stem(path), str(path), path)


def _tokens(name: str) -> list[str]:
    """Words of a name; one that tells image or labels is parted from what it numbers: `img0001` is `img`, `0001`."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    parted = ((word, _NUMBERED.fullmatch(word)) for word in words if word)
    return [part for word, numbered in parted for part in (numbered.groups() if numbered else (word,))]


def _is_labels(path: Path) -> bool:
    return bool(LABEL_TOKENS & {*_tokens(stem(path)), path.parent.name.lower()})


def _own_masks(image: Path) -> str:
    """Glob of masks that carry their image's name and more, one an object."""
    return f"{glob.escape(stem(image))}_*"


def _labels_of(image: Path) -> tuple[Path, ...]:
    """The labels of an image: in its folder or one beside it, with the same name but for label tokens.

    Else all masks of a folder of labels whose names begin with the image's; else, where the folder holds a single
    image, its first label file.
    """
    beside = [folder for folder in sorted(image.parent.parent.iterdir()) if folder.name.lower() in LABEL_TOKENS]
    own = [file for file in sorted(image.parent.iterdir()) if _is_scan(file) and file.suffix != ".npz"]
    others = [file for folder in beside for file in sorted(folder.iterdir()) if _is_scan(file)]
    candidates = [file for file in (*own, *others) if _is_labels(file)]
    # nnU-Net's images carry a channel number that their labels do not.
    names = [_tokens(stem(image)), _tokens(re.sub(r"_0000$", "", stem(image)))]
    names.append([token for token in names[0] if token not in IMAGE_TOKENS])
    plain = {file: [token for token in _tokens(stem(file)) if token not in LABEL_TOKENS] for file in candidates}
    for name in filter(None, names):
        if same := next((file for file in candidates if plain[file] == name), None):
            return (same,)
    if masks := tuple(file for file in others if file.match(_own_masks(image))):
        return masks
    images = [file for file in own if not _is_labels(file)]
    alone = images == [image] or (image.is_dir() and not images)
    return tuple(candidates[:1]) if alone else ()


def _unique(sources: list[CaseSource]) -> list[CaseSource]:
    """Case ids that clash, or that tell nothing, get the folder's name in front."""
    ids = [source.case_id for source in sources]
    return [
        replace(source, case_id=f"{source.image_path.parent.name}_{source.case_id}")
        if source.image_path and (ids.count(source.case_id) > 1 or source.case_id.lower() in GENERIC_NAMES)
        else source
        for source in sources
    ]


def check_out(sources: Sequence[CaseSource], out: Path) -> None:
    """Refuses to write files named after their inputs into the folder that the inputs lie in.

    Raises:
        InputError: `out` holds one of `sources`.
    """
    for source in sources:
        path = source.image_path
        if path is not None and path.is_file() and path.resolve().parent == out.resolve():
            raise InputError(f"--out {out}", f"the folder of the input {path.name}", "another folder")


def distinct(sources: Sequence[CaseSource]) -> list[CaseSource]:
    """Sources found by several specs; ids that clash are numbered."""
    seen: dict[str, int] = {}
    named = []
    for source in dict.fromkeys(sources):
        seen[source.case_id] = count = seen.get(source.case_id, 0) + 1
        named.append(source if count == 1 else replace(source, case_id=f"{source.case_id}_{count}"))
    return named
