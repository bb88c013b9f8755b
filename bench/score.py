"""Scoring segmentations in files against labels in files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.challenge import score_by_challenge
from bench.metrics import hd95_mm, label_boxes, score_labels
from zoo.data.cases import LABEL_TOKENS, CaseSource, find_cases, is_npz
from zoo.data.modality import modality_from_name
from zoo.data.npz import load_label_map, load_label_names, load_label_values, load_spacing, original_labels
from zoo.data.scan import SUFFIXES, Scan, is_drawn, object_names, read_labels, read_scan, stem
from zoo.errors import InputError
from zoo.files import files_below
from zoo.ledger import SEGMENT_LEDGER, outside_of_made

Labels = NDArray[np.uint16]
#: `plain`: every label that either map has, at the file's spacing. `cvpr24`: see `bench.challenge`.
Rules = Literal["plain", "cvpr24"]
#: What `segment` writes beside its label maps.
NO_LABEL_MAP = ".seg.dcm"


@dataclass(frozen=True)
class Pair:
    """A segmentation and what it is scored against.

    Attributes:
        case_id: name of the segmentation without its suffix.
        segmentation: file.
        references: one label map, or one mask an object; none where no labels were found.
        image: that the references belong to, if any: labels of DICOM are drawn into its slices.
    """

    case_id: str
    segmentation: Path
    references: tuple[Path, ...]
    image: Path | None = None


@dataclass(frozen=True)
class LabelRow:
    """Scores of one label of one case.

    Attributes:
        case_id: of the pair.
        modality: as the name tells it.
        dims: `2D` or `3D`.
        label: its value.
        original: its value in the scan's labels, or the name of its mask where each object has a file; None where it is
            not known: an npz may number labels anew, case by case.
        dsc: Dice, 0 to 1; NaN where the label is in neither map.
        nsd: surface Dice at the tolerance.
        hd95_mm: robust Hausdorff distance; infinite where one map lacks the label.
        volume_ml: of the segmentation, in millilitres (square centimetres of an image).
        reference_ml: of the reference.
        volume_difference: (segmentation - reference) / reference; NaN where the reference is empty.
    """

    case_id: str
    modality: str
    dims: str
    label: int
    original: int | str | None
    dsc: float
    nsd: float
    hd95_mm: float
    volume_ml: float
    reference_ml: float
    volume_difference: float


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        pair: what was scored.
        shape: of both maps.
        spacing_mm: that distances and volumes were measured with.
        segmented: labels that the segmentation has.
        expected: labels that the reference has.
        rows: one a label.
    """

    pair: Pair
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    segmented: tuple[int, ...]
    expected: tuple[int, ...]
    rows: tuple[LabelRow, ...]


def find_pairs(segmentations: Path, references: str) -> list[Pair]:
    """Each segmentation of a file or folder with its reference.

    Args:
        segmentations: npz (`segs`), NIfTI, PNG, ... as `segment` writes them.
        references: a file or folder of label maps of the same names, or of images with their labels, as
            `zoo.data.cases.find_cases` finds them. Label tokens such as `_seg` do not count in a name that is no
            image's. Of two files, or a file and a DICOM series, names do not count. What `segment` wrote into a folder
            below is passed over.

    Raises:
        InputError: no segmentation, no reference at all, two segmentations of one name or of one reference, or two
            references of one name.
    """
    files = sorted(segmentations.iterdir()) if segmentations.is_dir() else [segmentations]
    files = [file for file in files if _is_label_map(file)]
    if not files:
        raise InputError(segmentations, "no segmentation", f"files that end in .npz, {', '.join(SUFFIXES)}")
    named: dict[str, Path] = {}
    for file in files:
        if (first := named.setdefault(stem(file), file)) != file:
            raise InputError(segmentations, f"{first.name} and {file.name}", "one segmentation a case")
    found_there = _references(references)
    known = found_there.known
    if not known:
        found = "no label map" if Path(references).exists() else "no such file or folder"
        raise InputError(references, found, "label maps, or images with their labels")
    images = found_there.images
    labels = next(iter(known.values()))
    is_one = not Path(references).is_dir() or images.get(labels) == Path(references)
    if len(known) == 1 and is_one and not segmentations.is_dir():
        return [Pair(stem(segmentations), segmentations, labels, images.get(labels))]
    pairs, owners = [], dict[str, Path]()
    for file in files:
        name = stem(file) if stem(file) in found_there.scans else _plain(file)
        if several := found_there.rivals.get(name):
            found = f"{' and '.join(map(str, several))} for {file.name}"
            raise InputError(references, found, "one label map a case, or a folder with the right one alone")
        labels = known.get(name, ())
        if labels and (first := owners.setdefault(name, file)) != file:
            found = f"{first.name} and {file.name} for the labels of {name}, {labels[0]}"
            raise InputError(segmentations, found, "one segmentation a case")
        pairs.append(Pair(stem(file), file, labels, images.get(labels)))
    return pairs


@dataclass(frozen=True)
class _References:
    """Labels by the name of their case, plain where they are files by themselves.

    Attributes:
        scans: images by the names of their cases, with labels or without.
        labelled: of images that have labels.
        alone: files that may be label maps by themselves.
        rivals: where several files may hold the labels of a case, those.
        images: of labels the image.
    """

    scans: dict[str, Path]
    labelled: dict[str, tuple[Path, ...]]
    alone: dict[str, tuple[Path, ...]]
    rivals: dict[str, tuple[Path, ...]]
    images: dict[tuple[Path, ...], Path]

    @property
    def known(self) -> dict[str, tuple[Path, ...]]:
        """Of images with labels first, then of files by themselves."""
        return {name: files[:1] for name, files in self.alone.items()} | self.labelled


def _references(references: str) -> _References:
    try:
        sources = find_cases(references)
    except InputError:
        sources = []
    with_labels = [source for source in sources if source.labels_paths]
    labelled = {source.case_id: source.labels_paths for source in with_labels}
    alone = _label_maps(Path(references), sources)
    several = {name: files for name, files in alone.items() if len(files) > 1 and name not in labelled}
    rivals = several | {one.case_id: one.rivals for one in sources if one.rivals}
    images = {source.labels_paths: source.image_path for source in with_labels if source.image_path}
    return _References(_scans(sources), labelled, alone, rivals, images)


def _scans(sources: Sequence[CaseSource]) -> dict[str, Path]:
    """Images by the names of their cases, if there are any for sure: label maps by themselves look like images, too."""
    are_images = any(source.labels_paths or source.rivals for source in sources)
    scans = [source for source in sources if are_images and not source.npz]
    return {source.case_id: source.image_path for source in scans if source.image_path}


def _label_maps(root: Path, sources: Sequence[CaseSource]) -> dict[str, tuple[Path, ...]]:
    """Files that may be label maps by themselves, by the plain name of their case: no image beside others' labels."""
    images = set(_scans(sources).values())
    named: dict[str, tuple[Path, ...]] = {}
    for file in outside_of_made(files_below(root), [root], SEGMENT_LEDGER):
        if _is_label_map(file) and file not in images:
            named[_plain(file)] = (*named.get(_plain(file), ()), file)
    return named


def unsegmented(pairs: Sequence[Pair], references: str) -> list[str]:
    """Names of references that none of `pairs` has."""
    found = {pair.references for pair in pairs}
    there = _references(references)
    expected = there.labelled or there.known
    return sorted(name for name, files in expected.items() if files not in found)


def _is_label_map(path: Path) -> bool:
    name = path.name.lower()
    is_wanted = name.endswith((".npz", *SUFFIXES)) and not name.endswith(NO_LABEL_MAP)
    return is_wanted and not name.startswith(".") and path.is_file()


def _plain(path: Path) -> str:
    """A file's stem without label tokens, in the case's own spelling."""
    name = stem(path)
    kept = [part for part in re.split(r"(?<=[^A-Za-z0-9])|(?=[^A-Za-z0-9])", name) if part.lower() not in LABEL_TOKENS]
    return "".join(kept).strip("_-. ") or name


def score_pair(pair: Pair, rules: Rules = "plain", tolerance_mm: float = 2.0) -> CaseScores:
    """Scores of every label of a case.

    Args:
        pair: of files.
        rules: see `Rules`. The challenge has no HD95 and no volumes: `cvpr24` measures those in pixels in 2D, and in
            millimetres in 3D.
        tolerance_mm: of the NSD.

    Raises:
        InputError: a file that cannot be read, or maps that do not fit together.
    """
    if pair.segmentation.resolve() in {path.resolve() for path in pair.references}:
        raise InputError(pair.segmentation, "the same file as its labels", "labels of another origin")
    reference, spacing_mm, scan = _read_reference(pair)
    originals = _originals(pair)
    segmentation = _read_segmentation(pair.segmentation, reference, scan)
    segmented, expected = _labels_in(segmentation), _labels_in(reference)
    if rules == "cvpr24":
        spacing_mm = spacing_mm if reference.ndim == 3 else (1.0, 1.0)
        scores = score_by_challenge(segmentation, reference, spacing_mm, tolerance_mm)
    else:
        scores = score_labels(segmentation, reference, sorted({*segmented, *expected}), spacing_mm, tolerance_mm)
    boxes = dict(label_boxes(segmentation, reference, [score.label for score in scores]))
    element_ml = _element_ml(spacing_mm, scan)
    dims, modality = f"{reference.ndim}D", modality_from_name(pair.case_id)
    rows = tuple(
        LabelRow(
            case_id=pair.case_id,
            modality=modality,
            dims=dims,
            label=score.label,
            original=originals(score.label),
            dsc=score.dsc,
            nsd=score.nsd,
            hd95_mm=hd95_mm(segmentation[box] == score.label, reference[box] == score.label, spacing_mm),
            volume_ml=score.prediction_voxels * element_ml,
            reference_ml=score.reference_voxels * element_ml,
            volume_difference=_relative(score.prediction_voxels, score.reference_voxels),
        )
        for score, box in ((score, boxes[score.label]) for score in scores)
    )
    return CaseScores(pair, reference.shape, spacing_mm, segmented, expected, rows)


def _labels_in(labels: Labels) -> tuple[int, ...]:
    return tuple(int(label) for label in np.unique(labels) if label)


def _originals(pair: Pair) -> Callable[[int], int | str | None]:
    """What a label of a reference was in the scan's labels: the name of its mask, what an npz says, or itself."""
    if len(pair.references) > 1:
        return object_names(pair.references, pair.segmentation).get
    (reference,) = pair.references
    if not is_npz(reference):
        return lambda label: label
    before, names = original_labels(reference), load_label_names(reference)
    if before and not is_npz(pair.segmentation):
        named = {value: names[label] for label, value in before.items() if label in names}
        return lambda label: named.get(label, label)
    known: dict[int, int | str] = {**before, **names}
    return known.get


def _element_ml(spacing_mm: tuple[float, ...], scan: Scan | None) -> float:
    """Of a voxel in millilitres, of a pixel in square centimetres.

    Voxels that lean, as under a tilted gantry, are smaller than the product of their sides.
    """
    if scan is not None and scan.grid is not None:
        return abs(float(np.linalg.det(scan.grid.slices_affine[:3, :3]))) / 1000
    return math.prod(spacing_mm) / (1000 if len(spacing_mm) == 3 else 100)


def _relative(found: int, expected: int) -> float:
    return (found - expected) / expected if expected else math.nan


def _read_reference(pair: Pair) -> tuple[Labels, tuple[float, ...], Scan | None]:
    if not pair.references:
        raise InputError(pair.segmentation, "no labels of that name", "a label map or image of the same name")
    first = pair.references[0]
    if is_npz(first):
        labels = load_label_map(first)
        labels = labels if is_npz(pair.segmentation) else _in_values_of_scan(first, labels)
        return labels, load_spacing(first, labels.ndim), None
    if pair.image and is_drawn(first):
        scan = read_scan(pair.image)
        return read_labels(pair.references, scan), scan.spacing_mm, scan
    scan = read_scan(first)
    labels = read_labels(pair.references, scan if pair.references[1:] else None)
    if scan.grid is None and pair.image and not is_npz(pair.image):
        # A picture says no size; what it was drawn on may.
        image = read_scan(pair.image)
        return labels, image.spacing_mm if image.spatial_shape == labels.shape else scan.spacing_mm, scan
    return labels, scan.spacing_mm, scan


def _read_segmentation(path: Path, reference: Labels, scan: Scan | None) -> Labels:
    if not is_npz(path):
        return _of_shape(path, read_labels([path], scan if scan and scan.grid else None), reference)
    labels = _of_shape(path, load_label_map(path), reference)
    return labels if scan is None else _in_values_of_scan(path, labels)


def _in_values_of_scan(path: Path, labels: Labels) -> Labels:
    """Labels 1 to N of an npz as what they were in the scan's own label map, where the npz says so."""
    values = load_label_values(path)
    if values is None:
        return labels
    if labels.max() > len(values):
        raise InputError(path, f"label {labels.max()} and label_values of {len(values)}", "a value for each label")
    return np.concatenate([np.zeros(1, np.uint16), values])[labels]


def _of_shape(path: Path, labels: Labels, reference: Labels) -> Labels:
    if labels.shape != reference.shape:
        raise InputError(path, f"shape {labels.shape}", f"{reference.shape}, that of its reference")
    return labels
