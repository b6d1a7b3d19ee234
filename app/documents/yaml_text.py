"""A safe subset of YAML for the configuration and the catalogue.

Only values that YAML 1.1 and 1.2 read alike are converted: `no`, `on`, `12:30:45` and dates are texts, and `010` is refused.
Each key is a text and stands once. Size, depth and expanded aliases are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from app.documents.nearest import printable_text
from app.errors import ConfigError, Problem

#: The largest file that is read.
MOST_BYTES = 1 << 20
_MOST_DEPTH = 50
#: At most so many values; aliases count as the values that they stand for.
_MOST_NODES = 100_000
_MOST_DIGITS = 20

_CORE = "tag:yaml.org,2002:"
_MERGE = f"{_CORE}merge"
_LEADING_ZERO = "!leading-zero"


def read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file. Raises ConfigError with one problem, at `name`."""
    return parse_yaml(read_bytes(path, name), name)


def read_bytes(path: Path, name: str) -> bytes:
    """The bytes of a file. Raises ConfigError if it is too long or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise _config_error(name, "", f"cannot be read: {problem.strerror}") from problem
    if len(data) > MOST_BYTES:
        raise _config_error(name, "", f"is too long; at most {MOST_BYTES} bytes are read")
    return data


def text_of(data: bytes, name: str) -> str:
    """The text in UTF-8, with or without a byte order mark. Raises ConfigError with the first line that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise _config_error(name, f"line {line}", "not UTF-8 text; save the file as UTF-8") from problem


def parse_yaml(data: bytes | str, name: str) -> Any:
    """The content of a YAML text. Raises ConfigError with one problem, at `name`."""
    text = text_of(data, name) if isinstance(data, bytes) else data
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader with fewer constructors
    except yaml.YAMLError as problem:
        raise _config_error(name, _place_text(problem, text), f"not YAML: {_reason_text(problem)}") from problem
    except (ValueError, OverflowError) as problem:  # PyYAML itself raises them for escapes and directives with absurd numbers
        raise _config_error(name, "", f"not YAML: {printable_text(problem)}") from problem


def _config_error(name: str, key: str, message: str) -> ConfigError:
    return ConfigError([Problem(name, key, message)])


def _place_text(problem: yaml.YAMLError, text: str) -> str:
    if isinstance(problem, ReaderError):
        return f"line {text.count(chr(10), 0, problem.position) + 1}"
    mark = getattr(problem, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _reason_text(problem: yaml.YAMLError) -> str:
    if isinstance(problem, ReaderError):
        return "a character that is not allowed in YAML"
    parts = (getattr(problem, "problem", None), getattr(problem, "context", None))
    return printable_text(", ".join(part for part in parts if part) or problem, 200)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, and with only the scalar types that YAML 1.1 and 1.2 share."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own way
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0
        #: How many values each finished node holds. A node that is missing here contains itself.
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Build a node and everything below it, within the limits."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before, alias = self._nodes, isinstance(event, yaml.AliasEvent)
        if self._depth >= _MOST_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {_MOST_DEPTH} levels", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias:
            if id(node) not in self._sizes:
                raise ComposerError(None, None, f"{event.anchor!r} contains itself", event.start_mark)
            self._nodes += self._sizes[id(node)]
        else:
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - before
        if self._nodes > _MOST_NODES:
            raise ComposerError(None, None, f"more than {_MOST_NODES} values, aliases counted each time", event.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Build a mapping whose keys are texts, each given once."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a text, not a list or a mapping", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"{printable_text(key.value)!r} is defined twice", key.start_mark)
            seen.add(key.value)
        return node


def _construct_mapping(loader: _Loader, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise ConstructorError(None, None, "a mapping is expected here", node.start_mark)
    loader.flatten_mapping(node)
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


def _construct_sequence(loader: _Loader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise ConstructorError(None, None, "a list is expected here", node.start_mark)
    return [loader.construct_object(value, deep=True) for value in node.value]


def _scalar_constructor(read: Callable[[str], Any]) -> Callable[[_Loader, yaml.Node], Any]:
    def construct_scalar(_: _Loader, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise ConstructorError(None, None, "a single value is expected here", node.start_mark)
        try:
            return read(node.value)
        except ValueError as problem:
            raise ConstructorError(None, None, f"{printable_text(node.value)!r}: {problem}", node.start_mark) from problem

    return construct_scalar


def _parse_integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; at most {_MOST_DIGITS} are read")
    return int(text)


def _refuse_leading_zero(text: str) -> int:
    plain = text.lstrip("+-0") or "0"
    raise ValueError(f"a number that begins with 0 is not the same in every YAML; write {plain}, or {text!r} for a text")


def _parse_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("neither true nor false")
    return text.lower() == "true"


def _parse_null(_: str) -> None:
    return None


def _refuse_tag(_: _Loader, node: yaml.Node) -> None:
    raise ConstructorError(
        None, None, f"tags are not allowed, found {printable_text(node.tag.replace(_CORE, '!!'))}", node.start_mark
    )


_SCALARS: Mapping[str, tuple[Callable[[str], Any], str, str]] = {
    f"{_CORE}null": (_parse_null, r"~|null|Null|NULL|", "~nN\0"),
    f"{_CORE}bool": (_parse_boolean, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    f"{_CORE}int": (_parse_integer, r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    _LEADING_ZERO: (_refuse_leading_zero, r"[-+]?0[0-9]+", "-+0"),
    f"{_CORE}float": (float, r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
}
for _tag, (_read, _form, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_form})$"), ["" if one == "\0" else one for one in _first])
    _Loader.add_constructor(_tag, _scalar_constructor(_read))
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])
_Loader.add_constructor(f"{_CORE}str", _scalar_constructor(str))
_Loader.add_constructor(f"{_CORE}map", _construct_mapping)
_Loader.add_constructor(f"{_CORE}seq", _construct_sequence)
# Any other tag is refused.
_Loader.add_constructor(None, _refuse_tag)
