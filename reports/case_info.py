"""Cases as values: known by their content, called by names that tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: What names of drawn cases have in them, also of those that `prepare` wrote to files.
DRAWN = ("phantom", "synthetic")


@dataclass(frozen=True)
class CaseInfo:
    """A case as a record describes it.

    Attributes:
        case_id: its name; cases are told apart by their content, whatever a file is called.
        modality: `CT`, `MR`, ...
        shape: (H, W) or (D, H, W), in voxels.
        objects: number of boxes.
        spacing_mm: of its voxels, which distances are taken by.
        content: sha256 of it, as cases of one name may be cut differently; the name where a record has none.
    """

    case_id: str = field(compare=False)
    modality: str = ""
    shape: tuple[int, ...] = ()
    objects: int = 0
    spacing_mm: tuple[float, ...] = ()
    content: str = ""

    @property
    def is_volume(self) -> bool:
        """Whether this is a 3D case."""
        return len(self.shape) == 3

    @property
    def drawn(self) -> list[str]:
        """How it was drawn, if it was: a drawn image stands for no real one."""
        return [what for what in DRAWN if f"_{what}_" in f"_{self.case_id}"]

    @property
    def kind(self) -> str:
        """Modality, and how it was drawn."""
        return " ".join([self.modality, *self.drawn])

    @property
    def size(self) -> str:
        """The shape as text, `16x404x488`."""
        return "x".join(map(str, self.shape))


def names_apart(cases: Iterable[CaseInfo]) -> dict[CaseInfo, str]:
    """A name for each case, which no other of its size has.

    Of several names of a case the last, but one that says that it was drawn before one that does not. Where cases of
    one name and size differ, the first digits of their content follow.
    """
    chosen: dict[CaseInfo, CaseInfo] = {}
    for case in cases:
        if not (case in chosen and chosen[case].drawn and not case.drawn):
            chosen[case] = case
    alike: dict[tuple[str, str], int] = {}
    for case in chosen.values():
        alike[_seen(case)] = alike.get(_seen(case), 0) + 1
    return {
        case: f"{case.case_id} ({case.content[:8]})" if alike[_seen(case)] > 1 else case.case_id
        for case in chosen.values()
    }


def with_sizes(cases: Iterable[CaseInfo]) -> Mapping[CaseInfo, str]:
    """The names of cases, each with its size where several sizes have that name."""
    sizes: dict[str, set[str]] = {}
    distinct = list(dict.fromkeys(cases))
    for case in distinct:
        sizes.setdefault(case.case_id, set()).add(case.size)
    return {case: f"{case.case_id} {case.size}" if len(sizes[case.case_id]) > 1 else case.case_id for case in distinct}


def _seen(case: CaseInfo) -> tuple[str, str]:
    """What all tables show of a case."""
    return case.case_id, case.size
