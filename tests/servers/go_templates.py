"""Grafana's template rules for the texts of alerts: what of Go's templates and of Prometheus' functions our texts use.

Grafana fills a text in with Prometheus' expander and the option `missingkey=invalid`. What is missing is false to `if`, is
written as `[no value]`, and makes a function fail; a text that fails is sent as it stands. The answers of the real expander
(`tests/provisioning/expander`) to many texts are in `tests/provisioning/go_templates.jsonl`, and a test compares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


class CannotExpand(Exception):
    """Grafana would send the text as it stands."""


#: what a missing key gives
_MISSING = object()
_MULTIPLES, _PARTS, _LAST = ("", *"kMGTPEZY"), ("", *"munpfazy"), 8


@dataclass(frozen=True, slots=True)
class AlertData:
    """What a text is filled in with: the labels, and each expression's value (None: not a number)."""

    labels: Mapping[str, str]
    values: Mapping[str, float | None]


def expand(text: str, data: AlertData) -> str:
    """The text as Grafana fills it in. Raises CannotExpand."""
    values = {
        name: {"Labels": data.labels, "Value": math.nan if value is None else float(value)} for name, value in data.values.items()
    }
    parts = _parts(text)
    made = "".join(_run(parts, {"Labels": dict(data.labels), "Values": values, "Value": ""}, ()))
    if next(parts, None) is not None:
        raise CannotExpand("an end too many")
    return made


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """(`text` or `action`, what it says), without the blanks that a dash takes away."""
    place, eats = 0, False
    for found in _ACTION.finditer(text):
        before = text[place : found.start()]
        before = before.lstrip() if eats else before
        yield "text", before.rstrip() if found[1] else before
        yield "action", found[2]
        place, eats = found.end(), bool(found[3])
    rest = text[place:].lstrip() if eats else text[place:]
    if "{{" in rest:
        raise CannotExpand("an action without its end")
    yield "text", rest


def _run(parts: Iterator[tuple[str, str]], dot: object, ends: Sequence[str], writes: bool = True) -> Iterator[str]:
    """What the parts up to one of `ends` write; the end that was met is the last one given, where there are ends."""
    for kind, said in parts:
        if kind == "text":
            yield said if writes else ""
        elif said in ends:
            yield f"\0{said}"
            return
        elif said.startswith("if "):
            yield from _run_if(parts, dot, said[3:], writes)
        elif writes:
            yield _written(_value(said, dot))
    if ends:
        raise CannotExpand("an end is missing")


def _run_if(parts: Iterator[tuple[str, str]], dot: object, condition: str, writes: bool) -> Iterator[str]:
    holds = writes and _truth(_value(condition, dot))
    *first, met = _run(parts, dot, ("else", "end"), holds)
    yield from first
    if met == "\0else":
        *second, _ = _run(parts, dot, ("end",), writes and not holds)
        yield from second


def _value(said: str, dot: object) -> object:
    """A pipeline: a field, a constant, or a function with its arguments; `|` hands a value on."""
    found: object = _MISSING
    for place, command in enumerate(said.split("|")):
        words = _WORD.findall(command)
        handed = [found] if place else []
        if words[0] in _FUNCTIONS:
            found = _FUNCTIONS[words[0]](*(_operand(word, dot) for word in words[1:]), *handed)
        elif len(words) == 1 and not handed:
            found = _operand(words[0], dot)
        else:
            raise CannotExpand(f"no function {words[0]}")
    return found


def _operand(word: str, dot: object) -> object:
    if word.startswith('"'):
        return word[1:-1]
    if re.fullmatch(r"-?\d+(\.\d+)?", word):
        return float(word)
    if not re.fullmatch(r"(\.\w+)+", word):
        raise CannotExpand(f"{word} is not understood")
    found = dot
    for name in word[1:].split("."):
        found = _field(found, name)
    return found


def _field(found: object, name: str) -> object:
    if found is _MISSING:
        return _MISSING
    if not isinstance(found, dict):
        raise CannotExpand(f"no field {name}")
    if name not in found and "Value" in found:
        raise CannotExpand(f"no field {name}")  # a struct has its fields and no others
    return found.get(name, _MISSING)


def _truth(value: object) -> bool:
    return value is not _MISSING and bool(value)


def _written(value: object) -> str:
    if value is _MISSING:
        return "[no value]"
    return _go_number(value) if isinstance(value, float) else str(value)


def _go_number(value: float) -> str:
    """Go's `%v`: the shortest form, with an exponent from a million on."""
    if math.isnan(value) or math.isinf(value):
        return _significant(value, 17)
    mantissa, _, exponent = f"{Decimal(repr(value)).normalize():e}".partition("e")
    power = int(exponent)
    if power < -4 or power >= 6:
        return f"{mantissa}e{power:+03d}"
    return f"{Decimal(repr(value)).normalize():f}"


def _significant(value: float, digits: int) -> str:
    """Go's `%.4g`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.{digits}g}"


def _number(value: object) -> float:
    if isinstance(value, float):
        return value
    try:
        return float(value) if isinstance(value, str) else _fail()
    except ValueError:
        return _fail()


def _fail() -> float:
    raise CannotExpand("not a number")


def _humanize(value: object) -> str:
    number, place = _number(value), 0
    if number == 0 or math.isnan(number) or math.isinf(number):
        return _significant(number, 4)
    grows = abs(number) >= 1
    while place < _LAST and (abs(number) >= 1000 if grows else abs(number) < 1):
        number, place = number / (1000 if grows else 0.001), place + 1
    return f"{_significant(number, 4)}{(_MULTIPLES if grows else _PARTS)[place]}"


def _humanize_duration(value: object) -> str:
    number = _number(value)
    if number == 0 or math.isnan(number) or math.isinf(number):
        return f"{_significant(number, 4)}s" if number == 0 else _significant(number, 4)
    if abs(number) < 1:
        return f"{_humanize(number)}s"
    if abs(number) < 60:
        return f"{_significant(number, 4)}s"
    left = int(abs(number))
    spans = [(left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "m"), (left % 60, "s")]
    first = next(place for place, (count, _) in enumerate(spans) if count)
    return ("-" if number < 0 else "") + " ".join(f"{count}{name}" for count, name in spans[first:])


def _printf(form: object, value: object) -> str:
    """Go's `%.1f` of one value, with its complaint where there is none."""
    if value is _MISSING:
        return re.sub(r"%\.\d+f", "%!f(<nil>)", str(form))
    number = _number(value)
    return re.sub(r"%\.\d+f", "NaN", str(form)) if math.isnan(number) else str(form) % number


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "humanize": _humanize,
    "humanizePercentage": lambda value: f"{_significant(_number(value) * 100, 4)}%",
    "humanizeDuration": _humanize_duration,
    "printf": _printf,
    "eq": lambda one, other: one == other,
}
