"""Loads catalogue files. One run finds every mistake in every file, with its place and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.catalog.entries import Catalogue, CatalogueFile, Event, EventEntry, Label, Metric, MetricEntry
from app.catalog.joining import age_problems, counting_problems, joining_problems
from app.catalog.references import EntryIndex, cross_problems, label_problems, metric_problems
from app.documents.nearest import name_hint, printable_text
from app.documents.problems import key_text, place_of, reason_of, without_followers
from app.documents.yaml_text import parse_yaml, read_bytes
from app.errors import ConfigError, Problem
from app.sources import READS
from app.sources.base import Read
from app.sources.off import OFF

#: What counts as a name in a file that cannot be parsed.
_NAMES = re.compile(r"\b([A-Za-z_]\w*)\s*:")


@dataclass(frozen=True, slots=True)
class CatalogueSurvey:
    """The readable part of a catalogue, and all its problems."""

    catalogue: Catalogue
    problems: list[Problem]
    #: Names in unreadable parts. A reference to one of them is not reported as unknown.
    unread: frozenset[str]
    #: Name -> file and key of its definition.
    places: Mapping[str, tuple[str, str]]

    def or_raise(self) -> Catalogue:
        """The catalogue. Raises ConfigError with all problems."""
        if self.problems:
            raise ConfigError(self.problems)
        return self.catalogue


def load_folder(folder: Path, kinds: Mapping[str, str]) -> Catalogue:
    """Every `*.yaml` of the folder. `kinds` maps each configured source to its kind. Raises ConfigError with all problems."""
    return survey_folder(folder, kinds).or_raise()


def load(texts: Mapping[str, str | bytes], kinds: Mapping[str, str], reads: Mapping[str, Any] = READS) -> Catalogue:
    """Catalogue files given as name -> YAML text. Raises ConfigError with all problems."""
    return survey_texts(texts, kinds, reads).or_raise()


def survey_folder(folder: Path, kinds: Mapping[str, str] | None) -> CatalogueSurvey:
    """As `load_folder`, but with the valid entries beside the problems. Without `kinds` every source counts as configured."""
    files, problems = sorted(folder.glob("*.yaml")), list[Problem]()
    if not files:
        problems.append(Problem(str(folder), "", "no catalogue: expected at least one *.yaml file here"))
    texts = dict[str, str | bytes]()
    for file in files:
        try:
            texts[file.name] = read_bytes(file, file.name)
        except ConfigError as wrong:
            problems += wrong.problems
    found = survey_texts(texts, kinds)
    return CatalogueSurvey(found.catalogue, sorted([*problems, *found.problems]), found.unread, found.places)


def survey_texts(
    texts: Mapping[str, str | bytes], kinds: Mapping[str, str] | None, reads: Mapping[str, Any] = READS
) -> CatalogueSurvey:
    """As `load`, but with the valid entries beside the problems."""
    loading = _CatalogueLoader(kinds, reads)
    for file, text in texts.items():
        loading.add_file(file, text)
    loading.cross_check()
    aliases = {alias: metric.name for metric in loading.metrics.values() for alias in metric.entry.aliases}
    metrics = {name: metric for name, metric in loading.metrics.items() if metric.history or metric.live}
    catalogue = Catalogue(metrics, loading.events, loading.labels, aliases)
    unread = (loading.unread | loading.metrics.keys()) - metrics.keys()
    return CatalogueSurvey(catalogue, sorted(set(loading.problems)), frozenset(unread), loading.places)


class _CatalogueLoader:
    """Collects valid entries, the problems of the others, and where each name is defined."""

    def __init__(self, kinds: Mapping[str, str] | None, reads: Mapping[str, Any]) -> None:
        self.kinds = kinds
        self.reads_of_kinds = reads
        self.problems: list[Problem] = []
        self.metrics: dict[str, Metric] = {}
        self.events: dict[str, Event] = {}
        self.labels: dict[str, Label] = {}
        self.places: dict[str, tuple[str, str]] = {}
        self.unread: set[str] = set()
        #: Source that is not configured -> the places of its reads.
        self.missing: dict[str, list[tuple[str, str]]] = {}

    def add_file(self, file: str, text: str | bytes) -> None:
        """Add one file."""
        try:
            raw = parse_yaml(text, file)
        except ConfigError as wrong:
            self.problems += wrong.problems
            self.leave_unread(text)
            return
        parsed = self.validate_model(CatalogueFile, raw, file, "")
        if parsed is None:
            self.leave_unread(text)
            parsed = _usable_parts(raw)
        for name, label in parsed.labels.items():
            key = f"labels.{name}"
            self.claim_name(file, key, f"label {name}")
            self.problems += [Problem(file, key, message) for message in label_problems(name, label)]
            self.labels[name] = label
        for name, entry in parsed.metrics.items():
            self.add_metric(file, name, parsed.group, entry)
        for name, entry in parsed.events.items():
            self.add_event(file, name, parsed.group, entry)

    def leave_unread(self, text: str | bytes) -> None:
        """Note the names in a file that cannot be parsed."""
        self.unread.update(_NAMES.findall(text if isinstance(text, str) else text.decode("utf-8", "replace")))

    def add_metric(self, file: str, name: str, group: str, raw: dict[str, Any]) -> None:
        """Add one metric with its reads and aliases."""
        key = f"metrics.{name}"
        self.claim_name(file, key, f"name {name}")
        entry = self.validate_model(MetricEntry, raw, file, key)
        if entry is None:
            self.leave_metric_unread(file, key, name, raw)
            return
        for alias in entry.aliases:
            self.claim_name(file, f"{key}.aliases", f"name {alias}")
        self.problems += [Problem(file, ".".join(filter(None, (key, at))), message) for at, message in metric_problems(entry)]
        history, live, *fallback = self.check_reads(file, key, raw, entry.labels)
        metric = Metric(name, group, entry, history, live, tuple(read for read in fallback if read))
        problems = (*joining_problems(metric), *counting_problems(metric), *age_problems(metric))
        self.problems += [Problem(file, f"{key}.{place}", message) for place, message in problems]
        self.metrics[name] = metric
        self.places[name] = (file, key)

    def leave_metric_unread(self, file: str, key: str, name: str, raw: dict[str, Any]) -> None:
        """Check the reads of an invalid metric, too. Its labels may be wrong, so they are not compared."""
        aliases = raw.get("aliases")
        self.unread.update([name, *(map(str, aliases) if isinstance(aliases, list) else ())])
        self.check_reads(file, key, raw, None)

    def check_reads(self, file: str, key: str, raw: dict[str, Any], labels: tuple[str, ...] | None) -> list[Read | None]:
        """The reads of one metric: history, live, then the fallbacks."""
        given = raw.get("fallback")
        fallback = enumerate(given) if isinstance(given, list) else ()
        named = [("history", raw.get("history")), ("live", raw.get("live")), *((f"fallback.{at}", one) for at, one in fallback)]
        return [self.check_read(file, f"{key}.{at}", one, labels) if isinstance(one, dict) else None for at, one in named]

    def add_event(self, file: str, name: str, group: str, raw: dict[str, Any]) -> None:
        """Add one kind of event."""
        key = f"events.{name}"
        self.claim_name(file, key, f"name {name}")
        entry = self.validate_model(EventEntry, raw, file, key)
        read = entry and self.check_read(file, f"{key}.read", entry.read, entry.labels)
        if entry and read:
            self.events[name] = Event(name, group, entry, read)
            self.places[name] = (file, key)
        else:
            self.unread.add(name)

    def check_read(self, file: str, key: str, raw: dict[str, Any], labels: tuple[str, ...] | None) -> Read | None:
        """One read, checked by the model for the kind of its source. `labels` are the declared ones, if known."""
        kind = self.source_kind(file, key, raw.get("source"))
        read: Read | None = self.validate_model(self.reads_of_kinds[kind], raw, file, key) if kind else None
        if read is not None:
            # A label that the read does not map has the same name there.
            whole = read.with_labels(labels or ())
            self.problems += [Problem(file, f"{key}.{place}", message) for place, message in whole.problems()]
            for label in read.labels.keys() - set(labels if labels is not None else read.labels):
                text = f"label is not declared above; {name_hint(label, labels or ())}"
                self.problems.append(Problem(file, f"{key}.labels.{label}", text))
        return read

    def source_kind(self, file: str, key: str, source: Any) -> str | None:
        """The kind of the source of a read. None, with a problem noted, if it is not configured."""
        if not isinstance(source, str):
            text = f"a source's name is needed here; {name_hint('', self.kinds or ())}"
            self.problems.append(Problem(file, f"{key}.source", text))
            return None
        if self.kinds is None:
            return OFF
        if source not in self.kinds:
            self.missing.setdefault(source, []).append((file, f"{key}.source"))
        return self.kinds.get(source)

    def validate_model(self, model: Any, raw: Any, file: str, key: str) -> Any:
        """The validated model, or None with every problem noted."""
        try:
            return TypeAdapter(model).validate_python(raw)
        except ValidationError as problem:
            for error in without_followers(problem.errors(include_url=False), model):
                place = ".".join(filter(None, (key, key_text(place_of(error, model)))))
                self.problems.append(Problem(file, place, reason_of(error, model)))
            return None

    def claim_name(self, file: str, key: str, name: str) -> None:
        """Note where a name is defined. A second definition is a problem."""
        first = self.places.setdefault(name, (file, key))
        if first != (file, key):
            self.problems.append(Problem(file, key, f"{name} is already defined in {first[0]} at {first[1]}"))

    def cross_check(self) -> None:
        """Find problems that show only when all files are loaded."""
        self.problems += _missing_sources(self.missing, self.kinds or {})
        self.problems += cross_problems(EntryIndex(self.metrics, self.events, self.labels, self.places, frozenset(self.unread)))


def _missing_sources(missing: Mapping[str, list[tuple[str, str]]], kinds: Mapping[str, str]) -> Iterator[Problem]:
    """One problem for each source that is not configured, however many reads name it."""
    for source, places in missing.items():
        file, key = min(places)
        others = f" ({len(places)} reads name it, this one first)" if len(places) > 1 else ""
        allowed = f"; where there is none, say `sources: {{{printable_text(source)}: {{enabled: false}}}}`"
        yield Problem(
            file, key, f"source {printable_text(source)!r} is not configured{others}; {name_hint(source, kinds)}{allowed}"
        )


def _usable_parts(raw: Any) -> CatalogueFile:
    """The parts of an invalid file that can still be checked."""

    def mappings_at(name: str) -> dict[str, dict[str, Any]]:
        found = raw.get(name) if isinstance(raw, dict) else None
        return {str(key): one for key, one in (found.items() if isinstance(found, dict) else ()) if isinstance(one, dict)}

    labels = dict[str, Label]()
    for name, one in mappings_at("labels").items():
        try:
            labels[name] = Label.model_validate(one)
        except ValidationError:
            continue
    group = str(raw.get("group")) if isinstance(raw, dict) else ""
    return CatalogueFile.model_construct(
        group=group, title="", labels=labels, metrics=mappings_at("metrics"), events=mappings_at("events")
    )
