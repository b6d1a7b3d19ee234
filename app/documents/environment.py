"""Environment variables and secrets that override keys of the configuration file.

`BRIDGE_SOURCES__RTS__CONNECT__PASSWORD` sets `sources.rts.connect.password`. The secrets file holds lines of such variables. The
environment overrides the secrets file, and both override the configuration file. Values are never printed.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from dotenv.parser import parse_stream
from pydantic import BaseModel

from app.documents.nearest import nearest_names, printable_text
from app.documents.problems import Place, entry_type, keys_of, union_members, value_places
from app.documents.yaml_text import read_bytes, text_of
from app.errors import Problem

PREFIX = "BRIDGE_"
FILE_VARIABLE = "BRIDGE_CONFIG"
KEY_VARIABLE = "BRIDGE_KEY"
#: The address of the bridge, for commands that ask one.
URL_VARIABLE = "BRIDGE_URL"
#: The path of a secrets file with lines BRIDGE_...=..., for where no environment can be set, as for a Windows service.
SECRETS_VARIABLE = "BRIDGE_SECRETS"
#: Variables that set no key of the configuration.
SPECIAL = (FILE_VARIABLE, KEY_VARIABLE, URL_VARIABLE, SECRETS_VARIABLE)
#: Variables of the test suite, and those that provisioning/make_secrets.py writes for other programs.
_OTHERS = ("BRIDGE_TEST_", "BRIDGE_KEY_")

#: The origin of variables that come from no file.
ENVIRONMENT = "the environment"
_SEPARATOR = "__"
_CUTOFF = 0.75


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable, and its origin: the environment or the secrets file."""

    origin: str
    name: str
    text: str = field(repr=False)

    def as_problem(self, message: str) -> Problem:
        """A problem with this variable."""
        return Problem(self.origin, printable_text(self.name, 120), message)


def environment_variables(environ: Mapping[str, str]) -> list[Variable]:
    """The variables that set a key, or that look as if they should."""
    return [
        Variable(ENVIRONMENT, name, text) for name, text in environ.items() if name not in SPECIAL and _is_meant(name.upper())
    ]


def _is_meant(name: str) -> bool:
    """Whether a variable is meant for the bridge: the prefix, or a misspelt one before a nested key (BRIGDE_HTTP__PORT)."""
    if name.startswith(PREFIX):
        return not name.startswith(_OTHERS)
    return _SEPARATOR in name and bool(nearest_names(name.split("_")[0], ["BRIDGE"], cutoff=_CUTOFF))


def secrets_variables(file: Path) -> tuple[list[Variable], list[Problem]]:
    """The variables in the secrets file, and a problem for each unreadable line. Raises ConfigError if there is no such file."""
    found, problems = list[Variable](), list[Problem]()
    for line in parse_stream(io.StringIO(text_of(read_bytes(file, str(file)), str(file)))):
        if line.error or (line.key and line.value is None):
            problems.append(Problem(str(file), f"line {line.original.line}", "is no BRIDGE_SECTION__KEY=value"))
        elif line.key and line.value is not None:
            found.append(Variable(str(file), line.key, line.value))
    return found, problems


class Overlay:
    """The values of the configuration file with variables applied, and which variable set which value."""

    def __init__(self, values: Mapping[str, Any], model: type[BaseModel]) -> None:
        self._file = values
        self._model = model
        self.values: dict[str, Any] = copy.deepcopy(dict(values))
        self.problems: list[Problem] = []
        self._owners: dict[Place, Variable] = {}

    def add_variables(self, variables: Iterable[Variable]) -> None:
        """Apply variables of one origin over the present values."""
        seen = dict[str, str]()
        for variable in variables:
            name = variable.name.upper()
            if name in seen:
                also = f", also as {seen[name]}" if seen[name] != variable.name else ""
                self.problems.append(variable.as_problem(f"is given twice{also}"))
            elif variable.origin != ENVIRONMENT and name in SPECIAL:
                self.problems.append(variable.as_problem("is read from the environment only"))
            else:
                self._apply_variable(variable)
            seen.setdefault(name, variable.name)

    def _apply_variable(self, variable: Variable) -> None:
        place, annotation = self._key_of(variable)
        if annotation is None:
            self.problems.append(variable.as_problem(f"sets no key; {self._spelling_hint(variable)}"))
            return
        value: Any = variable.text
        if _is_structure(annotation):
            try:
                value = json.loads(variable.text, object_pairs_hook=_refuse_duplicate_keys)
            except (ValueError, RecursionError):
                keyed = bool(keys_of(annotation)) or entry_type(annotation) is not None
                allowed = f"JSON, or {variable.name}{_SEPARATOR}KEY=... for one key" if keyed else 'a JSON list, ["..."]'
                self.problems.append(variable.as_problem(f"is not JSON; allowed: {allowed}"))
                return
        self._owners[place] = variable
        _set_value(self.values, place, value)

    def _key_of(self, variable: Variable) -> tuple[Place, Any | None]:
        """The key that a variable sets, and the type of its value. A free key in the file matches in upper and lower case."""
        annotation: Any | None = self._model
        there: Any = self.values
        place: list[str] = []
        for word in variable.name[len(PREFIX) :].lower().split(_SEPARATOR):
            entries = entry_type(annotation)
            known = there if isinstance(there, dict) else {}
            if entries is not None:
                word = next((name for name in known if name.lower() == word), word)
            annotation = keys_of(annotation).get(word, entries) if variable.name.upper().startswith(PREFIX) else None
            if annotation is None:
                break
            place.append(word)
            there = known.get(word)
        return tuple(place), annotation

    def _spelling_hint(self, variable: Variable) -> str:
        near = nearest_names(variable.name, self._valid_names(variable), count=1, cutoff=0.6)
        return f"nearest: {near[0]}" if near else f"allowed: {PREFIX}SECTION{_SEPARATOR}KEY, as in {PREFIX}HTTP{_SEPARATOR}PORT"

    def _valid_names(self, variable: Variable) -> Iterator[str]:
        """Every valid variable name, with the free keys of the file and of this variable."""
        yield from SPECIAL
        words = variable.name.upper().split("_", 1)[-1].split(_SEPARATOR)
        for place in value_places(self._model):
            if "*" not in place:
                yield PREFIX + _SEPARATOR.join(place).upper()
                continue
            at = place.index("*")
            there = _value_at(self._file, place[:at])
            own = [words[at]] if len(words) > at and not there else []
            for name in (*(there if isinstance(there, dict) else ()), *own):
                yield PREFIX + _SEPARATOR.join((*place[:at], str(name), *place[at + 1 :])).upper()

    def owner_of(self, place: Place) -> Variable | None:
        """The variable that set the value at a place; None if the file did."""
        above = [place[:length] for length in range(len(place), 0, -1)]
        for one in above:
            if one in self._owners:
                return self._owners[one]
        for one in above:
            if _value_at(self._file, one) is not None:
                return None
            if found := self.variables_below(one):
                return found[0]
        return None

    def variables_below(self, place: Place) -> list[Variable]:
        """The variables that set a value at or below a place."""
        return [variable for found, variable in self._owners.items() if place and found[: len(place)] == place]


def _is_structure(annotation: Any) -> bool:
    """Whether a value has parts and so must be written as JSON."""
    types = [one for one in union_members(annotation) if one is not type(None)]
    return all(get_origin(one) in (dict, list, tuple) or _is_model(one) for one in types)


def _is_model(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _value_at(values: Any, place: Place) -> Any:
    for part in place:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _set_value(values: dict[Any, Any], place: Place, value: Any) -> None:
    """Set a value. A parent that is not a mapping stays, so that validation refuses it."""
    for part in place[:-1]:
        if values.get(part) is None:
            values[part] = {}
        if not isinstance(values[part], dict):
            return
        values = values[part]
    values[place[-1]] = _merge_values(values.get(place[-1]), value)


def _merge_values(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {key: _merge_values(under.get(key), value) for key, value in over.items()}
