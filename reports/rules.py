"""The rule that cases were segmented by: what tells it from others, and in words what most records share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.record import SCRIPTS
from reports.candidates import Reading, joined

#: What records of volumes leave out where it was not asked for.
UNASKED: Mapping[str, Any] = {
    "clicks": 0,
    "box_prior": 0.0,
    "mask_prompts": False,
    "starts": 1,
    "zoom": False,
    "fovea": False,
}
#: Likewise records of images.
UNASKED_OF_IMAGES: Mapping[str, Any] = {
    "clicks": 0,
    "box_prior": 0.0,
    "box_margin_px": 0,
    "best_dice": False,
    "fovea": False,
}
#: The rule of the published scripts.
SCRIPT_RULE: Mapping[str, Any] = {
    **UNASKED,
    "z_range": "inclusive",
    "box_dilation_px": 3,
    "box_rounding": "truncate",
    "resize": None,
    "propagate": True,
    "mask_value": "label",
    "overlap": "last",
    "within_box": False,
}
#: The defaults of `zoo.sam.rule`, for images and for volumes of weights that were trained for masks.
DEFAULT_RULE: Mapping[str, Any] = {
    "clicks": 0,
    "box_rounding": "truncate",
    "resize": None,
    "overlap": "density",
    "within_box": True,
    "box_prior": 0.5,
    "zoom": True,
    "fovea": True,
    "box_margin_px": 2,
    "best_dice": True,
    "z_range": "inclusive",
    "box_dilation_px": 3,
    "starts": 3,
    "propagate": True,
    "mask_prompts": True,
    "own_box_share": 0.5,
    "mask_value": "binary",
}


@dataclass(frozen=True)
class UsualRule:
    """The options that most records of a report were segmented by.

    Attributes:
        options: by name.
        varying: those that some records have another value of, which their labels tell.
        unasked: options that no record was asked for, which is why none tells of them, their values, and in which kind
            of cases, where those of the other kind were.
    """

    options: Mapping[str, Any]
    varying: Collection[str]
    unasked: Sequence[tuple[str, Any, str]]

    def in_full(self, among: Collection[str] | None = None) -> str:
        """Each option that records tell of, with its value; those `among` some, if these are given."""
        wanted = self.options if among is None else among
        return joined(*self._told({option: value for option, value in self.options.items() if option in wanted}))

    def in_short(self) -> str:
        """As what differs from the defaults; empty where there are no options."""
        if not self.options:
            return ""
        others = {option: value for option, value in self.options.items() if value != DEFAULT_RULE.get(option)}
        off = (f"{option} {value}{where}" for option, value, where in self.unasked if value != DEFAULT_RULE[option])
        rest = " where not said" if set(self.varying).difference(others) else ""
        told = joined(*self._told(others), *off)
        return f"the default rule{rest}{told and f', but for {told}'}"

    def _told(self, options: Mapping[str, Any]) -> Iterator[str]:
        for option, value in options.items():
            yield f"{option} {value}{' where not said' if option in self.varying else ''}"


def label_protocols(records: Iterable[Reading]) -> tuple[dict[str, str], UsualRule]:
    """Labels of protocols by `protocol_id`: the name, with the options that are not most records'; and those.

    Images have no name, and not all of the options. What is a published script's rule is called by the script alone,
    and its options count for no others'.
    """
    members: Counter[str] = Counter()
    distinct: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.protocol:
            members[record.protocol_id] += 1
            distinct.setdefault(record.protocol_id, record.protocol)
    asked: dict[bool, set[str]] = {False: set(), True: set()}
    for protocol in distinct.values():
        asked["name" in protocol] |= protocol.keys()
    distinct = {key: _with_unasked(protocol, asked["name" in protocol]) for key, protocol in distinct.items()}
    options = dict.fromkeys(option for protocol in distinct.values() for option in protocol if option != "name")
    values: dict[str, Counter[str]] = {option: Counter() for option in options}
    scripts = {key: script for key, protocol in distinct.items() if (script := _script_of(protocol))}
    for key, protocol in distinct.items():
        for option in protocol.keys() & options if key not in scripts else ():
            values[option][json.dumps(protocol[option])] += members[key]
    usual = {option: json.loads(counts.most_common(1)[0][0]) for option, counts in values.items() if counts}
    labels = {key: joined(str(own.get("name", "")), *_unusual(own, usual)) for key, own in distinct.items()} | scripts
    kinds = {"name" in protocol: protocol for key, protocol in distinct.items() if key not in scripts}
    unasked = dict.fromkeys(
        (option, value, "" if option not in usual else " in volumes" if is_volume else " in images")
        for is_volume, protocol in kinds.items()
        for option, value in _unasked(protocol).items()
        if option not in asked[is_volume] and usual.get(option) != value
    )
    varying = [option for option in usual if len(values[option]) > 1]
    return labels | {"": ""}, UsualRule(usual, varying, tuple(unasked))


def _script_of(protocol: Mapping[str, Any]) -> str | None:
    """The published script whose way and rule a protocol is, if any."""
    rule = all(protocol.get(option, UNASKED.get(option)) == value for option, value in SCRIPT_RULE.items())
    return next((script for script, way in SCRIPTS.items() if rule and way == protocol.get("name")), None)


def _with_unasked(protocol: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """A protocol with the options that records have only where they were asked for, if any of its kind was."""
    return {option: value for option, value in _unasked(protocol).items() if option in asked} | dict(protocol)


def _unasked(protocol: Mapping[str, Any]) -> Mapping[str, Any]:
    return UNASKED if "name" in protocol else UNASKED_OF_IMAGES


def _unusual(protocol: Mapping[str, Any], usual: Mapping[str, Any]) -> Iterator[str]:
    """`overlap last`, `no propagate`: the options of a protocol that differ from the usual ones."""
    for option, value in usual.items():
        if option in protocol and (own := protocol[option]) != value:
            yield f"{'' if own else 'no '}{option}" if isinstance(own, bool) else f"{option} {own}"
