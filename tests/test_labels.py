"""What candidates are called."""

from __future__ import annotations

from dataclasses import replace

from reports.candidates import Candidate, label_candidates


def test_labels_are_no_longer_than_needed() -> None:
    """Only what looks alike carries more; a hash is one candidate, whatever its file is called."""
    first = Candidate("light", backend="torch", backend_version="2", weights="light.pth", sha256="1" * 64)
    second = replace(first, sha256="2" * 64)
    renamed, other = replace(second, weights="other.pth"), Candidate("repvit", backend="openvino")
    labels, _ = label_candidates([first, second, other, renamed])
    assert labels == {
        first: f"light, torch, {'1' * 12}",
        second: f"light, torch, {'2' * 12}",
        other: "repvit, openvino",
    }
    labels, _ = label_candidates([first, renamed, other])
    assert labels == {first: "light, torch, light.pth", renamed: "light, torch, other.pth", other: "repvit, openvino"}
