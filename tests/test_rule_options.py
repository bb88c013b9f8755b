"""What `--protocol` and the options of the rule make of each other: published scripts, and what is given beside."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from record_book import REPVIT, Book

from bench.record import SCRIPTS
from compress.options import PROTOCOLS, protocols_of, rule_options
from reports.candidates import protocol_id
from reports.load import load_records
from reports.rules import DEFAULT_RULE, label_protocols
from zoo.registry import encoder_spec
from zoo.sam import rule
from zoo.sam.rule import Protocol2D, Protocol3D


def protocols(*arguments: str) -> tuple[tuple[Protocol3D, ...], Protocol2D]:
    """What a command with these options would run."""
    made = []

    @click.command()
    @click.option("--protocol", "names", type=PROTOCOLS, multiple=True, default=["batched"])
    @rule_options
    def command(names: tuple[str, ...], **options: Any) -> None:
        made.append(protocols_of(names, **options))

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return made[0]


def test_defaults_of_options_are_those_of_protocols() -> None:
    assert protocols() == ((Protocol3D(),), Protocol2D())
    assert protocols("--protocol", "cached", "--protocol", "cached") == ((Protocol3D("cached"),), Protocol2D())


@pytest.mark.parametrize(("script", "name"), [("litemedsam", "per_object"), ("rep_medsam", "cached")])
def test_a_published_script_has_its_own_rule(script: str, name: str) -> None:
    published = Protocol3D(
        name,
        starts=1,
        mask_prompts=False,
        mask_value="label",
        overlap="last",
        within_box=False,
        box_prior=0,
        zoom=False,
        fovea=False,
    )
    images = Protocol2D(
        overlap="last", within_box=False, box_prior=0, zoom=False, fovea=False, box_margin_px=0, best_dice=False
    )
    assert protocols("--protocol", script) == ((published,), images)


def test_images_go_by_it_where_nothing_else_was_asked_for() -> None:
    volumes, images = protocols(*(f"--protocol={name}" for name in (*SCRIPTS, "batched")))
    assert [protocol.name for protocol in volumes] == ["per_object", "cached", "batched"]
    assert [protocol.overlap for protocol in volumes] == ["last", "last", "density"]
    assert images == Protocol2D()
    assert protocols(*(f"--protocol={name}" for name in SCRIPTS))[1].overlap == "last"


def test_options_that_are_given_hold_for_it_too() -> None:
    (volume,), image = protocols("--protocol=litemedsam", "--overlap=density", "--starts=3", "--box-dilation-px=5")
    assert (volume.overlap, volume.starts, volume.box_dilation_px) == ("density", 3, 5)
    assert (volume.within_box, volume.box_prior, image.overlap, image.zoom) == (False, 0, "density", False)


def test_what_is_published_are_options() -> None:
    assert {field.name for field in fields(Protocol2D)} >= set(rule.PUBLISHED_2D)
    assert {field.name for field in fields(Protocol3D)} >= set(rule.PUBLISHED_3D)
    assert all(getattr(Protocol2D(), name) != value for name, value in rule.PUBLISHED_2D.items())
    assert all(getattr(Protocol3D(), name) != value for name, value in rule.PUBLISHED_3D.items())


@pytest.mark.parametrize("script", SCRIPTS)
def test_reports_call_a_scripts_rule_by_its_name(script: str, tmp_path: Path) -> None:
    """They know it by what records tell of it; one option that differs, and it is no script's."""
    book = Book(tmp_path / "records.jsonl")
    spec = encoder_spec("repvit")
    ((of_script,), _), ((other,), _) = protocols("--protocol", script), protocols("--protocol", script, "--starts=3")
    for number, protocol in enumerate((of_script, other, Protocol3D(), Protocol3D())):
        book.one_pass(REPVIT, 1.0, protocol.recorded(spec), index=number)
    labels, usual = label_protocols(load_records([book.path]).records)
    named = {label.split(",")[0] for label in labels.values()}
    assert named == {"", "batched", SCRIPTS[script], script}
    assert script in labels.values()
    assert "overlap density" in usual.in_full()
    assert "mask_value" in usual.in_full()


def test_the_default_rule_of_reports_is_that_of_protocols() -> None:
    """Reports import nothing of what is measured."""
    options = {"clicks": 0} | Protocol2D().as_record() | Protocol3D().as_record() | {"mask_prompts": True}
    del options["name"]
    assert options == DEFAULT_RULE


def told_in_short(*rules: Protocol3D | Protocol2D) -> str:
    """Of records by these rules, of weights that were trained for masks."""
    spec = replace(encoder_spec("repvit"), mask_prompts=True)
    protocols = [rule.recorded(spec) for rule in rules]
    records: Any = [SimpleNamespace(protocol=one, protocol_id=protocol_id(one)) for one in protocols]
    return label_protocols(records)[1].in_short()


def test_a_page_tells_of_a_rule_what_is_no_default() -> None:
    image, volume = Protocol2D(), Protocol3D()
    assert told_in_short() == ""
    assert told_in_short(image, volume) == "the default rule"
    assert told_in_short(volume, volume, Protocol3D(starts=5)) == "the default rule where not said"
    script = Protocol3D(name="cached", **rule.PUBLISHED_3D)
    assert told_in_short(image, script) == "the default rule", "scripts are named"
    assert told_in_short(image, Protocol3D(starts=5)) == "the default rule, but for starts 5"
    assert told_in_short(volume, *[Protocol3D(starts=1)] * 2) == "the default rule, but for starts 1 where not said"
    assert told_in_short(image, Protocol3D(fovea=False)) == "the default rule, but for fovea False in volumes"
    assert told_in_short(Protocol2D(fovea=False), volume) == "the default rule, but for fovea False in images"
    without = Protocol2D(fovea=False), Protocol3D(fovea=False)
    assert told_in_short(*without) == "the default rule, but for fovea False", (
        "records tell of it where it was asked for"
    )
    both = told_in_short(*[Protocol3D(starts=5)] * 2, volume, Protocol3D(starts=5, zoom=False))
    assert both == "the default rule where not said, but for starts 5 where not said"
