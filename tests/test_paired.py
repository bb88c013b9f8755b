"""Two segmentations compared label by label, case by case."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from reports.paired import NOT_SHOWN, TOO_FEW_CASES, bootstrap_interval
from reports.scores import by_case, by_label, paired


def test_no_difference_is_said_to_be_none() -> None:
    scores = pd.DataFrame({
        "case_id": ["a", "b"], "label": [1, 1], "dsc": [0.5, 0.6], "nsd": [0.5, np.nan],
        "hd95_mm": [1.0, np.inf], "volume_difference": [0.0, 0.0],
    })  # fmt: skip
    text = paired(scores, scores, ("one", "other"))
    assert text.count("no difference shown") == 4
    with pytest.raises(ValueError, match="no case and label"):
        paired(scores, scores.assign(case_id="c"), ("one", "other"))


def table(**columns: list[object]) -> pd.DataFrame:
    """Scores of labels: every metric is the DSC, or what is given."""
    dsc = columns["dsc"]
    frame = {"modality": "CT", "dims": "3D", "nsd": dsc, "hd95_mm": dsc, "volume_difference": dsc} | columns
    return pd.DataFrame(frame)


def test_a_case_of_many_labels_is_one_case() -> None:
    one, other = (table(case_id=["a"] * 100, label=list(range(100)), dsc=[dsc] * 100) for dsc in (0.9, 0.5))
    rows = paired(one, other, ("one", "other"))
    assert rows.count(TOO_FEW_CASES) == 4
    assert "| 100 " in " ".join(rows.split())


def test_labels_that_all_share_a_case_effect_show_no_difference() -> None:
    """Half of the cases gain and half lose, each with all of its labels."""
    cases = [f"case{n // 20}" for n in range(160)]
    labels = list(range(160))
    effect = [0.02 if n // 20 < 5 else -0.015 for n in labels]
    one = table(case_id=cases, label=labels, dsc=[0.7 + e + 0.0001 * (n % 20) for n, e in enumerate(effect)])
    other = table(case_id=cases, label=labels, dsc=[0.7] * 160)
    assert paired(one, other, ("one", "other")).count("| no difference shown ") == 4


def test_a_missed_label_is_counted_where_it_has_no_distance() -> None:
    cases = list("aabb")
    missed = table(case_id=cases, label=[1, 2, 1, 2], dsc=[0.8, 0.0, 0.8, 0.0], hd95_mm=[1.0, np.inf, 1.0, np.inf])
    found = table(case_id=cases, label=[1, 2, 1, 2], dsc=[0.8] * 4, hd95_mm=[1.0, 9.0, 1.0, 9.0])
    row = next(line for line in paired(missed, found, ("missed", "found")).splitlines() if "HD95" in line)
    assert row.rstrip("| ").endswith("2 of missed")
    assert "1.00 (n=1)" in by_case(missed)
    assert "(n=" not in by_case(found)
    assert "4.00 (n=1)" in str(by_label(missed.assign(original=[1, 2, 1, 2], hd95_mm=[1.0, np.inf, 1.0, 4.0])))


def test_the_interval_draws_whole_cases() -> None:
    assert bootstrap_interval(np.array([[2.0, 2.0], [6.0, 6.0]])) == (1.0, 1.0)
    low, high = bootstrap_interval(np.array([[0.0, 1.0], [9.0, 3.0]]))
    assert (low, high) == (0.0, 3.0)
    assert math.isnan(bootstrap_interval(np.array([[1.0, 1.0]]))[0])


def test_rounding_is_no_difference() -> None:
    cases = list("abcdefgh")
    one = table(case_id=cases, label=[1] * 8, dsc=[0.1 + 0.2] * 8)
    assert paired(one, table(case_id=cases, label=[1] * 8, dsc=[0.3] * 8), ("one", "other")).count(NOT_SHOWN) == 4
