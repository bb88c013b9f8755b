"""Finding cases: a file, a folder, a glob, an image with its labels, or what is built in."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from zoo.data.built_in import FORMS, built_in_references, load_built_in
from zoo.data.case import Case
from zoo.data.modality import MODALITIES
from zoo.data.npz import load_challenge_npz, save_challenge_npz
from zoo.data.prepare import Preparation, load_pair
from zoo.data.readers.dicom import holds_no_image
from zoo.data.scan import SUFFIXES, are_single_images, files_of, is_dicom, is_drawn, stem
from zoo.errors import InputError, first_of
from zoo.files import files_below
from zoo.ledger import PREPARE_LEDGER, SEGMENT_LEDGER, folders_made, not_written, outside_of_made
from zoo.notes import note

#: Tokens of a file or folder name that mark labels.
LABEL_TOKENS = {
    *("seg", "segs", "segmentation", "segmentations", "mask", "masks"),
    *("label", "labels", "labelstr", "labelsts", "gt", "gts"),
}
#: A note names no more files or folders than this.
MOST_TOLD = 3
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
        reference: what `find_cases` finds exactly this by; of a DICOM series in a folder with others, the first by.
        image_path: of a file or of the folder of a DICOM series; None for what is built in.
        labels_paths: of an image that is not a challenge npz: one label map, or one mask an object.
        rivals: label files of which any may be its own, where it has none for sure.
        max_objects: keep only the largest objects.
        max_slices: keep only so many neighbouring slices.
    """

    case_id: str
    reference: str
    image_path: Path | None = None
    labels_paths: tuple[Path, ...] = ()
    rivals: tuple[Path, ...] = ()
    max_objects: int | None = None
    max_slices: int | None = None

    @property
    def npz(self) -> Path | None:
        """The file of a challenge npz, None of anything else."""
        return self.image_path if self.image_path is not None and is_npz(self.image_path) else None

    def load(self, preparation: Preparation | None = None, *, labels: bool = True) -> Case:
        """Reads the case.

        Args:
            preparation: of images that are not a challenge npz.
            labels: whether they are wanted; without, those that tell no boxes are not read.

        Raises:
            InputError: it cannot be used.
        """
        if self.image_path is None:
            case = load_built_in(self.reference)
        elif self.npz:
            # Which slices are kept depends on them.
            case = load_challenge_npz(self.npz, labels=labels or self.max_slices is not None)
        elif not self.labels_paths:
            raise self.lacks("no label file beside it", "IMAGE=LABELS, or labels in the same folder")
        else:
            case = load_pair(self.image_path, self.labels_paths, preparation, self.case_id)
        case = case if self.max_slices is None else case.keep_slices(self.max_slices)
        case = case if self.max_objects is None else case.keep_objects(self.max_objects)
        return replace(case, case_id=self.case_id, labels=case.labels if labels or self.npz is None else None)

    def files(self) -> list[Path]:
        """Those that the case is read from; none of what is built in."""
        paths = (self.image_path, *self.labels_paths) if self.image_path else ()
        return [file for path in paths for file in files_of(path)]

    def lacks(self, found: str, expected: str) -> InputError:
        """What to raise of an image without labels: that several files may hold them, or `found` and `expected`."""
        if self.rivals:
            found = f"label files that may all be its own: {', '.join(path.name for path in self.rivals)}"
            expected = "IMAGE=LABELS, to say which"
        return InputError(self.image_path or self.reference, found, expected)

    def told(self, boxes: str | None = None) -> str:
        """A line on what is used of it: its image, and `boxes` or what tells them."""
        if self.image_path is None or self.npz:
            own = "its own boxes"
        elif self.rivals:
            own = f"one of {', '.join(map(str, self.rivals))}?"
        else:
            own = ", ".join(map(str, self.labels_paths)) or "no labels"
        return f"{self.case_id}: {self.image_path or self.reference}; {boxes or own}"

    def limited(self, max_objects: int | None, max_slices: int | None) -> CaseSource:
        """The same source, whose case will be cut down."""
        return replace(self, max_objects=max_objects, max_slices=max_slices)

    def on_file(self, folder: Path) -> CaseSource:
        """The same source, to be read from a file: what is built in is drawn now, as a challenge npz in `folder`.

        So that who times a case reads it like any other: drawing it takes ten times as long.

        Raises:
            OSError: no room or no right to write.
        """
        if self.image_path is not None:
            return self
        case, values = self.limited(None, self.max_slices).load().renumbered()
        path = folder / f"{'3D' if case.is_volume else '2D'}Box_{case.modality}_{self.case_id}.npz"
        save_challenge_npz(case, path, values)
        return replace(self, reference=str(path), image_path=path, max_slices=None)

    def absolute(self) -> CaseSource:
        """The same source, found from any folder."""
        labels_paths = tuple(path.absolute() for path in self.labels_paths)
        return replace(self, image_path=self.image_path and self.image_path.absolute(), labels_paths=labels_paths)


def find_cases(spec: str) -> list[CaseSource]:
    """Cases that `spec` names, in order of their paths.

    Args:
        spec: a file, a folder (searched with its subfolders; the DICOM files of a folder are one image), a glob,
            `IMAGE=LABELS` (LABELS may be a glob of masks, one an object), or what is built in: `phantom` or
            `phantom:NAME`, `synthetic`, `synthetic:FIRST-LAST`, `synthetic:3d` or `synthetic:3d:FIRST-LAST`. What is
            there by that very name goes first. What `segment` or `prepare` wrote into a folder below is passed over.

    Raises:
        InputError: nothing is found.
    """
    # What is there by that very name is meant, whatever signs the name has.
    is_there = Path(spec).exists()
    if not is_there and (built_in := built_in_references(spec)) is not None:
        return [CaseSource(reference.replace(":", "_"), reference) for reference in built_in]
    if not is_there and "=" in spec:
        return _unique([_explicit_pair(spec)])
    paths = _paths(spec)
    if not paths and not is_there and not glob.has_magic(spec):
        raise InputError(spec, "no such file or folder", f"a file, a folder, a glob, IMAGE=LABELS, {FORMS}")
    if not paths:
        raise InputError(spec, "no case", f"files that end in .npz, {', '.join(SUFFIXES)}, {FORMS}")
    shelves = _Shelves()
    sources = [source for path in paths if (source := _source(path, shelves, asked_for=path == Path(spec))) is not None]
    if not sources:
        raise InputError(spec, "labels alone", "images; a name or folder such as seg, mask or labels marks labels")
    return _unique(sources)


def is_npz(path: Path) -> bool:
    """Whether a file's name says that it is a challenge npz."""
    return path.suffix.lower() == ".npz"


def _explicit_pair(spec: str) -> CaseSource:
    """The source of IMAGE=LABELS; of several signs the first that ends the name of something there parts them."""
    signs = [place for place, sign in enumerate(spec) if sign == "="]
    parted = next((place for place in signs if Path(spec[:place]).exists()), signs[0])
    image, labels = Path(spec[:parted]), spec[parted + 1 :]
    if is_npz(image) or not labels:
        found = "labels for an npz" if labels else "an image without labels behind its ="
        raise InputError(spec, found, "IMAGE=LABELS of scans; an npz alone, whose own boxes and labels are used")
    alone = Path(labels).exists() or not (masks := _matches(labels))
    return CaseSource(stem(image), spec, image, (Path(labels),) if alone else tuple(masks))


def _paths(spec: str) -> list[Path]:
    """Files that a file, folder or glob names; in place of the slices of a DICOM series, their folder."""
    root = Path(spec)
    named = [root] if root.exists() else _matches(spec)
    found = [path for one in named for path in files_below(one)]
    # A glob such as `npz/*` asks for the folder above.
    asked_for = (root, root.parent, *named)
    if made := folders_made(found, asked_for, PREPARE_LEDGER):
        told = first_of(sorted(made), MOST_TOLD)
        note(f"{spec}: what `prepare` wrote is passed over: {told}; name it itself for that")
    strangers = not_written(found, folders_made(found, asked_for, SEGMENT_LEDGER))
    if passed_over := [path for path in strangers if _is_scan(path)]:
        told = first_of(sorted(passed_over), MOST_TOLD)
        note(f"{spec}: scans where `segment` wrote are passed over: {told}; name them themselves, or move them")
    others = outside_of_made(found, asked_for, SEGMENT_LEDGER, PREPARE_LEDGER)
    files = {path for path in others if _is_scan(path)}
    slices: dict[Path, list[Path]] = {}
    for path in files - {root}:
        if is_dicom(path):
            slices.setdefault(path.parent, []).append(path)
    without_image = {path for own in slices.values() for path in own if holds_no_image(path)}
    slices = {folder: [path for path in own if path not in without_image] for folder, own in slices.items()}
    series = {folder: own for folder, own in slices.items() if len(own) > 1 and not are_single_images(own)}
    return sorted((files | set(map(_named, series))).difference(without_image, *series.values()))


def _matches(spec: str) -> list[Path]:
    return sorted(map(Path, glob.glob(spec, recursive=True)))  # noqa: PTH207  (absolute patterns)


def _is_scan(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return is_dicom(path) or (path.name.lower().endswith((".npz", *SUFFIXES)) and not path.is_dir())


def _source(path: Path, shelves: _Shelves, *, asked_for: bool) -> CaseSource | None:
    """The source of a file, or None where it holds the labels of another and is not asked for by its name."""
    if is_npz(path):
        return CaseSource(path.stem, str(path), path)
    if _is_labels(path) and not asked_for:
        return None
    labels, rivals = shelves.labels_of(path)
    reference = f"{path}={labels[0]}" if len(labels) == 1 else str(path)
    return CaseSource(stem(path), reference, path, labels, rivals)


def _tokens(name: str) -> list[str]:
    """Words of a name; one that tells image or labels is parted from what it numbers: `img0001` is `img`, `0001`."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    parted = ((word, _NUMBERED.fullmatch(word)) for word in words if word)
    return [part for word, numbered in parted for part in (numbered.groups() if numbered else (word,))]


def _is_labels(path: Path) -> bool:
    return bool(LABEL_TOKENS & {*_tokens(stem(path)), path.parent.name.lower()})


def _plain(path: Path) -> tuple[str, ...]:
    """Tokens of a label file's name but for those that say that it is one."""
    return tuple(token for token in _tokens(stem(path)) if token not in LABEL_TOKENS)


class _Shelf:
    """The scans of a folder, told apart by their names alone, and the folders of labels in it."""

    def __init__(self, folder: Path) -> None:
        listed = _listed(folder)
        self.folders = _label_folders(listed)
        scans = [file for file in listed if _is_scan(file) and not is_npz(file)]
        self.images = [file for file in scans if not _is_labels(file)]
        self.labels = [file for file in scans if _is_labels(file)]
        self.by_tokens: dict[tuple[str, ...], list[Path]] = {}
        for file in self.labels:
            self.by_tokens.setdefault(_plain(file), []).append(file)

    def masks_of(self, images: _Shelf) -> dict[str, list[Path]]:
        """Files that carry the name of one of some images and more, one an object, by the longest such name."""
        names = {stem(file) for file in images.images}
        masks: dict[str, list[Path]] = {}
        for file in self.labels:
            words = stem(file).split("_")
            begun = ("_".join(words[:count]) for count in range(len(words) - 1, 0, -1))
            if (owner := next((name for name in begun if name in names), None)) is not None:
                masks.setdefault(owner, []).append(file)
        return masks


class _Shelves:
    """Finds the labels of images; looks into each folder once, however many images it has."""

    def __init__(self) -> None:
        self._of = cache(_Shelf)
        self._beside = cache(lambda folder: _label_folders(_listed(folder)))
        self._masks = cache(_Shelf.masks_of)

    def labels_of(self, image: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The labels of an image, or else files or folders of which any may be that.

        A file in its folder, or else in a folder of labels in or beside that, with the same name but for label tokens;
        else all masks of such a folder whose names begin with the image's, and with no longer one; else structures or
        a segmentation among the files of a DICOM series; else,
        where the folder holds a single image, the label file in it, or all masks of the folder of labels in it.
        """
        own = self._of(image.parent)
        # A DICOM series is a folder itself, and may have its labels within.
        within = [*own.folders, *(self._of(image).folders if image.is_dir() else ())]
        others = [self._of(folder) for folder in dict.fromkeys((*within, *self._beside(_above(image.parent))))]
        # nnU-Net's images carry a channel number that their labels do not.
        names = [_tokens(stem(image)), _tokens(re.sub(r"_0000$", "", stem(image)))]
        names.append([token for token in names[0] if token not in IMAGE_TOKENS])
        for name in map(tuple, filter(None, names)):
            beside = [file for shelf in others for file in shelf.by_tokens.get(name, ())]
            if same := own.by_tokens.get(name, beside):
                return _one_or_rivals(same)
        if masks := [file for shelf in others for file in self._masks(shelf, own).get(stem(image), ())]:
            return tuple(masks), ()
        if image.is_dir() and (drawn := [file for file in _listed(image) if is_drawn(file)]):
            return _one_or_rivals(drawn)
        if own.images != [image] and (own.images or not image.is_dir()):
            return (), ()
        filled = [folder for folder in within if self._of(folder).labels]
        if own.labels or len(filled) != 1:
            return _one_or_rivals(own.labels or filled)
        return tuple(self._of(filled[0]).labels), ()


def _one_or_rivals(files: list[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    return (tuple(files), ()) if len(files) < 2 else ((), tuple(files))


def _listed(folder: Path) -> list[Path]:
    """What a folder holds; nothing where it may not be looked into, as the one above a user's own."""
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        return []


def _above(folder: Path) -> Path:
    """The folder that a folder lies in, also where the path does not say."""
    return _named(folder).parent


def _named(folder: Path) -> Path:
    """A folder by a path that ends with its name, which `.` and `..` do not."""
    return folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))  # noqa: PTH100  (links stay)


def _label_folders(listed: Sequence[Path]) -> list[Path]:
    """Folders of labels; masks that a model made are none."""
    named = [path for path in listed if path.name.lower() in LABEL_TOKENS and path.is_dir()]
    return [path for path in named if not (path / SEGMENT_LEDGER).exists()]


def _unique(sources: list[CaseSource]) -> list[CaseSource]:
    """Ids that clash, or that tell nothing, get the names of the folders above in front, as many as part them."""
    twins = Counter(source.image_path.with_name(stem(source.image_path)) for source in sources if source.image_path)
    names = {source: _names_inwards(source, twins) for source in sources}
    used = {source: 2 if names[source][-1].lower() in GENERIC_NAMES else 1 for source in sources}

    def case_id(source: CaseSource) -> str:
        return "_".join(names[source][-used[source] :])

    for _ in range(max(map(len, names.values()), default=0)):
        count = Counter(map(case_id, sources))
        for source in sources:
            used[source] += count[case_id(source)] > 1
    return [replace(source, case_id=case_id(source)) for source in sources]


def _names_inwards(source: CaseSource, twins: Counter[Path]) -> list[str]:
    """Names of the folders that an image lies in and its own, the outermost first; the name of what is built in.

    Images that only their suffixes part have them in their names.
    """
    if source.image_path is None:
        return [source.case_id]
    path = Path(os.path.abspath(source.image_path))  # noqa: PTH100  (it would follow links)
    is_twin = twins[source.image_path.with_name(stem(path))] > 1
    return [*path.parent.parts[1:], path.name.replace(".", "_") if is_twin else stem(path)]


def check_out(sources: Sequence[CaseSource], out: Path) -> None:
    """Refuses to write files named after their inputs into the folder that the inputs lie in.

    Raises:
        InputError: `out` holds one of `sources`.
    """
    for source in sources:
        for path in filter(None, (source.image_path, *source.labels_paths)):
            # A linked file lies in the folder of its link, too.
            folders = {path.resolve().parent, path.parent.resolve()} if path.is_file() else {path.resolve()}
            if out.resolve() in folders:
                raise InputError(f"--out {out}", f"the folder of the input {path.name}", "another folder")


def distinct(sources: Sequence[CaseSource]) -> list[CaseSource]:
    """Sources found by several specs, each once, with ids of their own.

    Raises:
        InputError: one image with several labels.
    """
    named: dict[str, CaseSource] = {}
    for source in _unique(list(dict.fromkeys(sources))):
        if (other := named.setdefault(source.case_id, source)) is not source:
            raise InputError(source.reference, f"the same image as {other.reference}", "each image once")
    return list(named.values())
