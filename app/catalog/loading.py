"""Catalogue files to a Catalogue: every mistake of every file is found in one run, with its place and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.catalog.entries import RESERVED, Catalogue, CatalogueFile, Event, EventEntry, Label, Metric, MetricEntry
from app.errors import ConfigError, Problem
from app.sources import READS
from app.sources.base import Read


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that has a key twice (YAML would silently keep the last)."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} is defined twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_folder(folder: Path, kinds: Mapping[str, str]) -> Catalogue:
    """Every `*.yaml` of the folder. `kinds` maps each configured source to its kind. Raises ConfigError with all problems."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ConfigError([Problem(str(folder), "", "no catalogue: expected at least one *.yaml file here")])
    return load({file.name: file.read_text(encoding="utf-8") for file in files}, kinds)


def load(texts: Mapping[str, str], kinds: Mapping[str, str]) -> Catalogue:
    """Catalogue files given as name -> YAML text. Raises ConfigError with all problems."""
    loading = _Loading(kinds)
    for file, text in texts.items():
        loading.add(file, text)
    loading.cross_check()
    if loading.problems:
        raise ConfigError(sorted(set(loading.problems)))
    aliases = {alias: metric.name for metric in loading.metrics.values() for alias in metric.entry.aliases}
    return Catalogue(loading.metrics, loading.events, loading.labels, aliases)


class _Loading:
    """The catalogue in the making: entries that are right, problems of those that are not, and where each name came from."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds
        self.problems: list[Problem] = []
        self.metrics: dict[str, Metric] = {}
        self.events: dict[str, Event] = {}
        self.labels: dict[str, Label] = {}
        self.places: dict[str, tuple[str, str]] = {}

    def add(self, file: str, text: str) -> None:
        """Take one file in."""
        try:
            raw = yaml.load(text, _UniqueKeys)  # noqa: S506  a SafeLoader subclass
        except yaml.YAMLError as problem:
            mark = getattr(problem, "problem_mark", None)
            place = f"line {mark.line + 1}" if mark else ""
            self.problems.append(Problem(file, place, f"not YAML: {getattr(problem, 'problem', problem)}"))
            return
        parsed = self.validated(CatalogueFile, raw, file, "")
        if parsed is None:
            return
        for name, label in parsed.labels.items():
            self.claim(file, f"labels.{name}", f"label {name}")
            if name in RESERVED or name.startswith("_"):
                what = "begins with _, as what callers add against caches" if name.startswith("_") else "is a parameter or column"
                self.problems.append(Problem(file, f"labels.{name}", f"{what} of /v1/rows; another name is needed"))
            self.labels[name] = label
        for name, entry in parsed.metrics.items():
            self.add_metric(file, name, parsed.group, entry)
        for name, entry in parsed.events.items():
            self.add_event(file, name, parsed.group, entry)

    def add_metric(self, file: str, name: str, group: str, raw: dict[str, Any]) -> None:
        """Take one metric in, with its reads and aliases."""
        key = f"metrics.{name}"
        self.claim(file, key, f"name {name}")
        entry = self.validated(MetricEntry, raw, file, key)
        if entry is None:
            return
        for alias in entry.aliases:
            self.claim(file, f"{key}.aliases", f"name {alias}")
        if not (entry.history or entry.live):
            self.problems.append(Problem(file, key, "has neither `history` nor `live`; one of them is needed"))
        history = self.read(file, f"{key}.history", entry.history, entry)
        live = self.read(file, f"{key}.live", entry.live, entry)
        fallback = [self.read(file, f"{key}.fallback.{place}", raw, entry) for place, raw in enumerate(entry.fallback)]
        self.metrics[name] = Metric(name, group, entry, history, live, tuple(read for read in fallback if read))
        self.places[name] = (file, key)

    def add_event(self, file: str, name: str, group: str, raw: dict[str, Any]) -> None:
        """Take one kind of event in."""
        key = f"events.{name}"
        self.claim(file, key, f"name {name}")
        entry = self.validated(EventEntry, raw, file, key)
        read = entry and self.read(file, f"{key}.read", entry.read, entry)
        if entry and read:
            self.events[name] = Event(name, group, entry, read)
            self.places[name] = (file, key)

    def read(self, file: str, key: str, raw: dict[str, Any] | None, entry: MetricEntry | EventEntry) -> Read | None:
        """One read, checked by the model of its source's kind."""
        if raw is None:
            return None
        kind = self.kinds.get(str(raw.get("source")))
        if kind is None:
            allowed = ", ".join(sorted(self.kinds))
            self.problems.append(Problem(file, f"{key}.source", f"unknown source {raw.get('source')!r}; configured: {allowed}"))
            return None
        model = READS[kind]
        read: Read | None = self.validated(model, raw, file, key)
        if read is not None:
            self.problems += [Problem(file, f"{key}.{place}", message) for place, message in read.problems()]
            for label in read.labels.keys() - set(entry.labels):
                allowed = ", ".join(entry.labels) or "none"
                self.problems.append(Problem(file, f"{key}.labels.{label}", f"label is not declared above; declared: {allowed}"))
        return read

    def validated(self, model: Any, raw: Any, file: str, key: str) -> Any:
        """The value as the model has it, or None with every problem noted."""
        try:
            return TypeAdapter(model).validate_python(raw)
        except ValidationError as problem:
            self.problems += _problems(problem, model, file, key)
            return None

    def claim(self, file: str, key: str, name: str) -> None:
        """Note where a name is defined; a second definition is a problem."""
        first = self.places.setdefault(name, (file, key))
        if first != (file, key):
            self.problems.append(Problem(file, key, f"{name} is already defined in {first[0]} at {first[1]}"))

    def cross_check(self) -> None:
        """What can be seen only when all files are in: labels that nobody declares, label values from metrics there are not."""
        used: list[Metric | Event] = [*self.metrics.values(), *self.events.values()]
        for item in used:
            file, key = self.places[item.name]
            for label in set(item.entry.labels) - self.labels.keys():
                allowed = ", ".join(sorted(self.labels)) or "none"
                self.problems.append(Problem(file, f"{key}.labels", f"label {label!r} is not declared; declared: {allowed}"))
        for name, spec in self.labels.items():
            file, key = self.places[f"label {name}"]
            if spec.metric is not None and spec.metric not in self.metrics:
                self.problems.append(Problem(file, f"{key}.metric", f"no metric {spec.metric!r} in the catalogue"))
            if spec.metric is None and not spec.values:
                self.problems.append(Problem(file, key, "needs `metric` (whose series show its values) or `values` (a list)"))


def _problems(problem: ValidationError, model: Any, file: str, key: str) -> Iterator[Problem]:
    for error in problem.errors(include_url=False, include_context=False):
        place = ".".join([key, *(str(part) for part in error["loc"])]).strip(".")
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key"
            if len(error["loc"]) == 1 and isinstance(model, type) and issubclass(model, BaseModel):
                message += f"; allowed: {', '.join(model.model_fields)}"
        yield Problem(file, place, message)
