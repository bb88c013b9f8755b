"""The sweep: every candidate over every case, interleaved, recorded as it goes, resumed by key."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.accuracy import measure_accuracy
from bench.calibrate import calibration_calls, measure_peak
from bench.candidate import Candidate, Recipe
from bench.clicking import click_on_errors
from bench.cost import measure_cost
from bench.floor import ellipse_segmentation
from bench.latency import PARTS, StartedParts, measure_parts, parts_calls, run_case, start_parts, warm_up
from bench.record import SCRIPTS
from bench.sweep_records import SweepRecords, describe_case
from zoo.data.case import Case
from zoo.data.cases import CaseSource
from zoo.data.modality import calibration_doubt
from zoo.memory import expect_room
from zoo.progress import Progress
from zoo.sam.case import count_steps, segment_case
from zoo.sam.rule import PUBLISHED_3D, AnyProtocol, Protocol2D, Protocol3D

#: The candidate that stands for the box-inscribed ellipse in records.
FLOOR: dict[str, Any] = {"encoder": "box ellipse"}


@dataclass(frozen=True)
class Settings:
    """What a sweep measures.

    Attributes:
        protocols: each is run for every candidate on every volume.
        image_protocol: of images.
        rounds: measured calls of each encoder and decoder; 0 for none.
        warmup: unmeasured calls before them, after the first.
        passes: warm passes over each case.
        cold: also one pass of each case in a fresh process.
        calibrate: also what the machine can do at best, with each number of threads.
        tolerance_mm: of the normalised surface Dice.
        clicks: after each of so many clicks for each object, masks are scored, too.
    """

    protocols: tuple[Protocol3D, ...] = (Protocol3D(),)
    image_protocol: Protocol2D = field(default_factory=Protocol2D)
    rounds: int = 20
    warmup: int = 2
    passes: int = 3
    cold: bool = True
    calibrate: bool = False
    tolerance_mm: float = 2.0
    clicks: int = 0


#: Segments a case in a fresh process: (recipe, case reference, protocol) to the measurements of a cold pass.
ColdRun = Callable[[Recipe, CaseSource, AnyProtocol], dict[str, Any]]


@dataclass
class Sweep:
    """One run of the benchmark.

    Attributes:
        recipes: the candidates to make.
        build: makes a candidate of a recipe; what it raises becomes an error record.
        cold_run: segments a case in a fresh process.
        settings: what to measure.
        out: the records' file; what it already holds is not measured again.
        progress: shows how far it is.
    """

    recipes: Sequence[Recipe]
    build: Callable[[Recipe], Candidate]
    cold_run: ColdRun
    settings: Settings
    out: Path
    progress: Progress
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        self._records = SweepRecords(self.out, self.run_id, self.progress.message)
        self._told: set[str] = set()

    @property
    def skipped(self) -> int:
        """Measurements that `out` held before."""
        return self._records.skipped

    @property
    def failures(self) -> int:
        """Error records written so far."""
        return self._records.failures

    def run(self, sources: Sequence[CaseSource]) -> None:
        """Measures everything that is not in `out` yet: costs, parts, then case by case."""
        candidates = self._build_all()
        for recipe, candidate in candidates.items():
            self._cost(recipe, candidate)
        if self.settings.calibrate:
            beside = self._timed_how(candidates)
            for threads, cpus in dict.fromkeys((recipe.threads, recipe.cpus) for recipe in candidates):
                self._peak({"threads": threads, "cpus": cpus and list(cpus)}, beside)
        running = self._parts(candidates)
        for number, source in enumerate(sources, start=1):
            self._case(source, running, f"case {number}/{len(sources)} {source.case_id}")

    def _build_all(self) -> dict[Recipe, Candidate]:
        advance = self.progress.start("building candidates", len(self.recipes))
        candidates = {}
        for recipe in self.recipes:
            try:
                expect_room()
                candidates[recipe] = self.build(recipe)
            except Exception as error:
                self._records.fail("cost", error, recipe.as_record())
            advance()
        return candidates

    def _cost(self, recipe: Recipe, candidate: Candidate) -> None:
        key = self._records.key("cost", candidate.as_record())
        if self._records.is_done(key):
            return
        advance = self.progress.start(f"counting {recipe.encoder}", 1)
        try:
            self._records.write("cost", key, candidate.as_record(), measure_cost(candidate.sam))
        except Exception as error:
            self._records.fail("cost", error, candidate.as_record())
        advance()

    def _peak(self, who: dict[str, Any], beside: Mapping[str, Any]) -> None:
        """What a share of the machine's peak is taken of: in the run that times candidates, as the machine drifts."""
        key = self._records.key("peak", who, **beside)
        if not self._records.is_done(key):
            advance = self.progress.start(f"calibrating, {who['threads']} threads", calibration_calls())
            try:
                self._records.write("peak", key, who, measure_peak(who["threads"], on_call=advance))
            except Exception as error:
                self._records.fail("peak", error, who, **beside)

    def _parts(self, candidates: Mapping[Recipe, Candidate]) -> Mapping[Recipe, Candidate]:
        """Times all candidates together, or none: samples of different hours are no comparison.

        Returns those that run: a runtime may fail at its first call only.
        """
        settings = self.settings
        if not candidates or not settings.rounds or self._are_timed(candidates):
            return candidates
        calls = parts_calls(len(candidates), settings.rounds, settings.warmup)
        advance = self.progress.start("timing encoders and decoders", calls)
        started: dict[Recipe, StartedParts] = {}
        for recipe, candidate in candidates.items():
            try:
                expect_room()
                started[recipe] = start_parts(candidate.backend, settings.warmup, advance)
            except Exception as error:
                self._records.fail("latency", error, candidate.as_record())
        running = {recipe: candidates[recipe] for recipe in started}
        if len(running) < len(candidates) and self._are_timed(running):
            return running
        keys = self._parts_keys(running)
        try:
            measured = measure_parts(started, settings.rounds, advance)
        except Exception as error:
            # Whose it was is not known, and what was timed until then is no round of all.
            for candidate in running.values():
                self._records.fail("latency", error, candidate.as_record())
            return running
        for recipe, measurements in measured.items():
            self._records.write("latency", keys[recipe], running[recipe].as_record(), measurements)
        return running

    def _are_timed(self, candidates: Mapping[Recipe, Candidate]) -> bool:
        return all(self._records.is_done(key) for key in self._parts_keys(candidates).values())

    def _parts_keys(self, candidates: Mapping[Recipe, Candidate]) -> dict[Recipe, str]:
        """What was timed beside others is known by them, too."""
        how = self._timed_how(candidates)
        return {
            recipe: self._records.key("latency", candidate.as_record(), **how)
            for recipe, candidate in candidates.items()
        }

    def _timed_how(self, candidates: Mapping[Recipe, Candidate]) -> dict[str, Any]:
        """What tells that candidates were timed beside each other: how often, and of what parts, as some are new."""
        together = "+".join(
            sorted(self._records.key("latency", candidate.as_record()) for candidate in candidates.values())
        )
        return {"rounds": self.settings.rounds, "beside": together, "parts": "+".join(PARTS)}

    def _case(self, source: CaseSource, candidates: Mapping[Recipe, Candidate], title: str) -> None:
        try:
            case = source.load()
        except Exception as error:
            named = source.image_path.name if source.image_path else source.reference
            self._records.fail("latency", error, {}, {"case_id": source.case_id, "source": named})
            return
        for candidate in candidates.values():
            self._warn(candidate, case.modality)
        described = describe_case(case)
        self._floor(case, described)
        runs: list[tuple[Recipe, Candidate, AnyProtocol]] = [
            (recipe, candidate, protocol)
            for recipe, candidate in candidates.items()
            for protocol in (self.settings.protocols if case.is_volume else (self.settings.image_protocol,))
        ]
        if self.settings.cold:
            for recipe, candidate, protocol in runs:
                self._cold_pass(source, described, recipe, candidate, protocol, title)
        warm = self._warmed_up([run for run in runs if self._has_warm_work(case, described, *run[1:])], described)
        for index in range(self.settings.passes):
            for _, candidate, protocol in warm:
                self._warm_pass(source, case, described, candidate, protocol, title, index)
        if self.settings.clicks and case.labels is not None:
            for _, candidate, protocol in warm:
                self._clicks(case, described, candidate, protocol, title)

    def _has_warm_work(
        self, case: Case, described: dict[str, Any], candidate: Candidate, protocol: AnyProtocol
    ) -> bool:
        """Whether any of its warm passes, or their scores, is not held yet."""
        options = _options(candidate, protocol)
        keys = [self._warm_key(candidate, described, options, index) for index in range(self.settings.passes)]
        if case.labels is not None:
            clicked = self._clicked(options)
            scored = [options, *clicked] if self.settings.passes else clicked
            keys += [self._accuracy_key(candidate, described, each) for each in scored]
        done = [self._records.is_done(key) for key in keys]  # of each, as it counts as skipped
        return not all(done)

    def _warmed_up(
        self, runs: Sequence[tuple[Recipe, Candidate, AnyProtocol]], described: dict[str, Any]
    ) -> list[tuple[Recipe, Candidate, AnyProtocol]]:
        """Those whose runtime runs: where parts were timed in an earlier sweep nothing has been called yet."""
        failed: dict[Recipe, Exception] = {}
        for recipe, candidate in {recipe: candidate for recipe, candidate, _ in runs}.items():
            try:
                spec = candidate.backend.spec
                warm_up(candidate.backend, masks=any(p.prompts_with_masks(spec) for p in self.settings.protocols))
            except Exception as error:
                failed[recipe] = error
        for recipe, candidate, protocol in runs:
            if recipe in failed:
                options = _options(candidate, protocol)
                self._records.fail(
                    "latency", failed[recipe], candidate.as_record(), described, options, temperature="warm"
                )
        return [run for run in runs if run[0] not in failed]

    def _warn(self, candidate: Candidate, modality: str) -> None:
        """Tells once of a modality that a candidate was not calibrated with."""
        doubt = calibration_doubt(modality, candidate.recipe.calibrated_with)
        told = f"{candidate.describe()}: {doubt}"
        if doubt and told not in self._told:
            self._told.add(told)
            self.progress.message(told)

    def _floor(self, case: Case, described: dict[str, Any]) -> None:
        """The accuracy that filling the box with an ellipse has."""
        key = self._records.key("accuracy", FLOOR, described, tolerance_mm=self.settings.tolerance_mm)
        if case.labels is None or self._records.is_done(key):
            return
        try:
            scores = measure_accuracy(case, ellipse_segmentation(case), self.settings.tolerance_mm)
            self._records.write("accuracy", key, FLOOR, scores, described)
        except Exception as error:
            self._records.fail("accuracy", error, FLOOR, described, tolerance_mm=self.settings.tolerance_mm)

    def _cold_pass(
        self,
        source: CaseSource,
        described: dict[str, Any],
        recipe: Recipe,
        candidate: Candidate,
        protocol: AnyProtocol,
        title: str,
    ) -> None:
        options = _options(candidate, protocol)
        key = self._records.key("latency", candidate.as_record(), described, options, temperature="cold")
        if self._records.is_done(key):
            return
        advance = self.progress.start(f"{title}: {_name(candidate, protocol)}, cold", 1)
        try:
            measurements = {"temperature": "cold", "pass_index": 0} | self.cold_run(recipe, source, protocol)
            self._records.write("latency", key, candidate.as_record(), measurements, described, options)
        except Exception as error:
            self._records.fail("latency", error, candidate.as_record(), described, options, temperature="cold")
        advance()

    def _warm_pass(
        self,
        source: CaseSource,
        case: Case,
        described: dict[str, Any],
        candidate: Candidate,
        protocol: AnyProtocol,
        title: str,
        index: int,
    ) -> None:
        options = _options(candidate, protocol)
        key = self._warm_key(candidate, described, options, index)
        # Passes of before were scored at the tolerance of before.
        scored = case.labels is None or self._records.is_done(self._accuracy_key(candidate, described, options))
        if self._records.is_done(key) and scored:
            return
        try:
            name = f"{title}: {_name(candidate, protocol)}, pass {index + 1}/{self.settings.passes}"
            load = partial(source.load, labels=False)
            run = run_case(candidate.backend, load, protocol, self.progress.start(name, count_steps(case, protocol)))
            measurements = {"temperature": "warm", "pass_index": index} | run.measurements
            self._accuracy(case, run.segmentation, described, candidate, options)
            if not self._records.is_done(key):
                self._records.write("latency", key, candidate.as_record(), measurements, described, options)
        except Exception as error:
            who = candidate.as_record()
            self._records.fail("latency", error, who, described, options, temperature="warm", pass_index=index)

    def _clicks(
        self, case: Case, described: dict[str, Any], candidate: Candidate, protocol: AnyProtocol, title: str
    ) -> None:
        """Scores what clicks make of a case's masks, one after the other; nothing of it is timed."""
        asked = self._clicked(_options(candidate, protocol))
        tolerance_mm, current = self.settings.tolerance_mm, asked[0]
        if all(self._records.is_done(self._accuracy_key(candidate, described, options)) for options in asked):
            return
        try:
            for options in [None, *asked]:
                current = options or current
                name = f"{title}: {_name(candidate, protocol)}, {options['clicks'] if options else 0} clicks"
                advance = self.progress.start(name, count_steps(case, protocol))
                segmentation = segment_case(case, candidate.backend, protocol, on_step=advance)
                if options:
                    self._accuracy(case, segmentation, described, candidate, options)
                case = click_on_errors(case, segmentation)
        except Exception as error:
            self._records.fail("accuracy", error, candidate.as_record(), described, current, tolerance_mm=tolerance_mm)

    def _clicked(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        """The options of a protocol after each number of clicks."""
        return [options | {"clicks": number} for number in range(1, self.settings.clicks + 1)]

    def _accuracy(
        self,
        case: Case,
        segmentation: NDArray[np.uint16],
        described: dict[str, Any],
        candidate: Candidate,
        options: dict[str, Any],
    ) -> None:
        """Scores masks, where there are labels; those of a timed pass, so that speed and accuracy are of one run."""
        key = self._accuracy_key(candidate, described, options)
        if case.labels is not None and not self._records.is_done(key):
            scores = measure_accuracy(case, segmentation, self.settings.tolerance_mm)
            self._records.write("accuracy", key, candidate.as_record(), scores, described, options)

    def _warm_key(self, candidate: Candidate, described: dict[str, Any], options: dict[str, Any], index: int) -> str:
        return self._records.key(
            "latency", candidate.as_record(), described, options, temperature="warm", pass_index=index
        )

    def _accuracy_key(self, candidate: Candidate, described: dict[str, Any], options: dict[str, Any]) -> str:
        tolerance_mm = self.settings.tolerance_mm
        return self._records.key("accuracy", candidate.as_record(), described, options, tolerance_mm=tolerance_mm)


def _options(candidate: Candidate, protocol: AnyProtocol) -> dict[str, Any]:
    """A protocol as a record tells it, of what this candidate makes of it."""
    return protocol.recorded(candidate.backend.spec)


def _name(candidate: Candidate, protocol: AnyProtocol) -> str:
    return candidate.describe() + (f" {_way(protocol)}" if isinstance(protocol, Protocol3D) else "")


def _way(protocol: Protocol3D) -> str:
    """The published script that a protocol is, as it was asked for, or else how it goes through a volume."""
    return next((name for name, way in SCRIPTS.items() if protocol == Protocol3D(way, **PUBLISHED_3D)), protocol.name)
