"""Parses filters, and fills in a dashboard's variables.

A filter never widens by itself: unfilled variables, empty values and unreadable texts are errors.

Two kinds of values:

- **exact**: the value of a filter object (`{"key", "operator", "value"}`, its `values`) and the items of a JSON list
  (`account=["US30,cash"]`) are taken as they are.
- **plain**: a text (`account=A1,A2`, `where=account=A1`). It matches itself and, if it looks like a list, the items of that list:
  `US30,cash` matches `US30,cash`, `US30` and `cash`, and nothing else. In an alert rule such an ambiguous text is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contracts.values import json_list, list_items, shown_value
from app.errors import BadQuery, LimitExceeded
from app.model import OPERATORS, PEOPLES_ALL, Matcher, Operator
from app.query.limits import Limits

_FILTER = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]{0,63})(=~|!~|!=\||=\||!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_LONGEST_LABEL = 64
#: A Grafana variable that was not filled in: $name, ${name}, ${name:csv}, [[name]], [[name:csv]].
_VARIABLE = re.compile(r"\$[A-Za-z_]\w*|\$\{[^{}]*\}|\[\[\w+(?::\w+)?\]\]")
#: A text that is one variable, as the plugin sends it.
_WHOLE_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}|\[\[(\w+)(?::\w+)?\]\]")
#: What the format `regex` of a variable escapes.
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")
#: What Grafana writes for "no restriction".
_ALL = ("$__all", "__all")
#: The operators that allow "no restriction".
_OPEN = ("=", "=|", "=~")
_SEVERAL: Mapping[str, Operator] = {"=": "=|", "!=": "!=|"}
_EQUALITY = ("=", "!=", "=|", "!=|")

#: Gives the value of a variable in a text: a text, a list of values, or None if it is unknown.
Filling = Callable[[str], str | list[str] | None]


def _no_value(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Reading:
    """How filters are parsed: the field named in errors, the limits, whether it is for an alert rule, the values of variables."""

    field: str
    limits: Limits
    strict: bool = False
    filling: Filling = _no_value

    def name_of(self, label: str) -> str:
        """The field and the label, as error messages name them."""
        return self.field if self.field.split(".")[-1] == label else f"{self.field}: {label}"


def filters(value: object, reading: Reading) -> tuple[Matcher, ...]:
    """The filters in a value of any contract, each once. Raises BadQuery or LimitExceeded naming the field.

    A text `account=A1`, a list of such texts, a mapping `{"account": "A1"}` or `{"account": ["A1", "A2"]}`, or Grafana's ad-hoc
    filters `[{"key", "operator", "value", "values"}]`. A filter without a restriction (an "All" variable) is dropped.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, Mapping) and "key" not in value:
        _refuse_too_many_filters(len(value), reading)
        found = [equality_filter(_label_name(label, reading), _as_sequence(one), reading) for label, one in value.items()]
    else:
        items = _as_sequence(value)
        _refuse_too_many_filters(len(items), reading)
        found = [_filter_of(item, reading) for item in items if item not in (None, "")]
    return tuple(dict.fromkeys(matcher for matcher in found if matcher is not None))


def _refuse_too_many_filters(count: int, reading: Reading) -> None:
    if count > reading.limits.max_filters:
        raise LimitExceeded(f"{reading.field}: {count} filters; at most {reading.limits.max_filters} are allowed")


def equality_filter(label: str, values: Sequence[object], reading: Reading) -> Matcher | None:
    """The filter for a plain `label=value(s)`; None if it restricts nothing."""
    given = [value for value in values if value not in (None, "", [])]
    if not given:
        # A variable without a value sends an empty text. In a panel it means no restriction; in an alert rule it is an error.
        if reading.strict:
            raise BadQuery(
                f'{reading.name_of(label)}: is empty; allowed: a value, __all for no restriction, [""] for an empty one'
            )
        return None
    return _build_matcher(label, "=", _plain_values(label, given, reading), reading)


def as_filter_value(value: str) -> str:
    """A value in the form that a filter can send back. It differs from the value only if that looks like a variable or "All"."""
    if value not in _ALL and not _VARIABLE.search(value):
        return value
    # A list of "$__all" alone is what a variable on "All" sends; twice in a list it is a name.
    return json.dumps([value] * (2 if value == _ALL[0] else 1), ensure_ascii=False)


def _as_sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]


def _label_name(label: object, reading: Reading) -> str:
    if not isinstance(label, str) or not 0 < len(label) <= _LONGEST_LABEL:
        raise BadQuery(f"{reading.field}: {shown_value(label)} is no label's name; allowed: up to {_LONGEST_LABEL} characters")
    return label


def _filter_of(item: object, reading: Reading) -> Matcher | None:
    if isinstance(item, str):
        return _filter_of_text(item, reading)
    if isinstance(item, Mapping) and "key" in item:
        return _filter_of_object(item, reading)
    raise BadQuery(
        f'{reading.field}: {shown_value(item)} is not a filter; allowed: "label=value" or {{"key", "operator", "value"}}'
    )


def _filter_of_text(text: str, reading: Reading) -> Matcher | None:
    whole = reading.filling(text)
    found = _FILTER.fullmatch(whole if isinstance(whole, str) else text)
    if found is None:
        _refuse_variable(text, reading.field)
        raise BadQuery(
            f"{reading.field}: {shown_value(text)} is not a filter; allowed: label=value, operators {' '.join(OPERATORS)}"
        )
    label, operator, operand = found.groups()
    if operand in _ALL:
        return _build_matcher(label, operator, None, reading)
    if operator in _EQUALITY and operand:
        return _build_matcher(label, operator, _plain_values(label, [operand], reading), reading)
    if reading.strict and not operand:
        raise BadQuery(f'{reading.name_of(label)}: is empty; allowed: a value, [""] for the empty value')
    return _build_matcher(label, operator, _exact_values(label, [operand], reading), reading)


def _filter_of_object(item: Mapping[str, Any], reading: Reading) -> Matcher | None:
    label, operator, several = _label_name(item["key"], reading), item.get("operator", "="), item.get("values")
    given = several if isinstance(several, list) and several and operator in ("=|", "!=|") else [item.get("value")]
    return _build_matcher(label, operator, _exact_values(label, given, reading), reading)


def _build_matcher(label: str, operator: object, values: Sequence[str] | None, reading: Reading) -> Matcher | None:
    """The matcher; None if `values` is None (no restriction). Raises BadQuery if the operator does not allow that."""
    if operator not in OPERATORS:
        raise BadQuery(f"{reading.field}: {label}: unknown operator {shown_value(operator)}; allowed: {' '.join(OPERATORS)}")
    if values is None:
        if operator not in _OPEN:
            raise BadQuery(
                f"{reading.name_of(label)}: {operator} everything leaves nothing; allowed with __all: {' '.join(_OPEN)}"
            )
        return None
    chosen = tuple(dict.fromkeys(values))
    return Matcher(label, _SEVERAL.get(operator, operator) if len(chosen) > 1 else operator, chosen)


def _exact_values(label: str, given: Sequence[object], reading: Reading) -> list[str] | None:
    """The values as they are; None for no restriction."""
    _refuse_too_many_values(len(given), label, reading)
    if any(value == _ALL[0] for value in given):
        return None
    found = list[str]()
    for value in given:
        filled = _fill_variable(_value_text(value, label, reading), label, reading)
        found += filled if isinstance(filled, list) else [filled]
    return found


def _plain_values(label: str, given: Sequence[object], reading: Reading) -> list[str] | None:
    """The values that plain texts match; None for no restriction."""
    texts = [_value_text(value, label, reading) for value in given]
    _refuse_too_many_values(sum(1 + text.count(",") + text.count("|") for text in texts), label, reading)
    found = list[str]()
    for text in texts:
        values = _values_of(text, label, reading)
        if values is None:
            return None
        found += values
    return found


def _values_of(text: str, label: str, reading: Reading) -> list[str] | None:
    items = json_list(text)
    known = _fill_variable(text, label, reading) if items is None else [_value_text(item, label, reading) for item in items]
    if isinstance(known, str):
        return None if known in _ALL else _possible_values(known, label, reading)
    if not known and reading.strict:
        raise BadQuery(f"{reading.name_of(label)}: an empty list; allowed: at least one value, __all for no restriction")
    return known if known and known != [_ALL[0]] else None


def _value_text(value: object, label: str, reading: Reading) -> str:
    """The exact text of a value. Raises BadQuery if it has none: a fraction (1.10 or 1.1?), null, a list, an object."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    why = "a number that may have lost digits" if isinstance(value, float) else f"{shown_value(value)}"
    raise BadQuery(f"{reading.name_of(label)}: {why} is not a value; allowed: a text (in quotes), a whole number, true, false")


def _refuse_too_many_values(count: int, label: str, reading: Reading) -> None:
    if count > reading.limits.max_filter_values:
        most = reading.limits.max_filter_values
        raise LimitExceeded(f"{reading.name_of(label)}: {count} values; at most {most} are allowed (request.max_filter_values)")


def _fill_variable(text: str, label: str, reading: Reading) -> str | list[str]:
    """The text, or the value of its variable if known. Raises BadQuery naming a variable that was not filled in."""
    known = reading.filling(text)
    if known is not None:
        return known
    if text in _ALL:
        return text
    return _quoted_value(text) or _refuse_variable(text, reading.name_of(label))


def _quoted_value(text: str) -> list[str] | None:
    """The value in a text that `as_filter_value` made; None for any other text."""
    items = json_list(text)
    if not items or not isinstance(items[0], str) or any(item != items[0] for item in items):
        return None
    return items[:1] if as_filter_value(items[0]) != items[0] else None


def _refuse_variable(text: str, name: str) -> str:
    found = _VARIABLE.search(text)
    if found is not None:
        raise BadQuery(
            f"{name}: the variable {found[0][:60]} is not filled in; allowed: a value, __all for no restriction, "
            f'["..."] for a value of that very name'
        )
    return text


def _possible_values(text: str, label: str, reading: Reading) -> list[str]:
    """The text itself and, if it looks like a list, its items."""
    parts = [part for one in list_items(text) if one for part in (_quoted_value(one) or [one])]
    if reading.strict:
        _refuse_ambiguous(text, parts, label, reading)
    if parts == [text]:
        return parts
    for part in parts:
        if part != part.strip():
            raise BadQuery(
                f"{reading.name_of(label)}: {shown_value(part)} has a blank at its end: an unencoded +, or part of the value? "
                f'allowed: %2B for +, A1,A2 without blanks, ["{part[:20]}"] for that very value'
            )
    return [*parts, text] if len(text) <= reading.limits.max_text else parts


def _refuse_ambiguous(text: str, parts: Sequence[str], label: str, reading: Reading) -> None:
    """Raise BadQuery for a plain text in an alert rule that can mean two things."""
    if parts == [text] == [text.strip()] and text not in PEOPLES_ALL:
        return
    listing = ",".join(json.dumps(part[:20], ensure_ascii=False) for part in parts[:3] or [text])
    raise BadQuery(
        f"{reading.name_of(label)}: {shown_value(text)} can be read in two ways, which no alert rule may; allowed: "
        f"[{listing}] for these very values, =~ for an expression, __all for no restriction, %2B for a +"
    )


class Variables:
    """The variables of a panel request (`scopedVars`).

    It fills in variables that the plugin left in a text, and finds the values behind a text that the plugin filled in.

    `"${symbol:csv}"` arrives as `US30,cash,EURUSD`. Only the variable tells that these are two symbols.
    """

    def __init__(self, scoped: object) -> None:
        self._scoped: Mapping[str, Any] = scoped if isinstance(scoped, dict) else {}
        self._lists: dict[str, list[str]] | None = None

    def __call__(self, text: str) -> str | list[str] | None:
        """The text or values of the variable; None if the text belongs to no known variable."""
        found = _WHOLE_VARIABLE.fullmatch(text)
        if found is not None:
            return _value_of(self._scoped.get(found[1] or found[2] or found[3]))
        if self._lists is None:
            self._lists = self._formatted_lists()
        return self._lists.get(text)

    def _formatted_lists(self) -> dict[str, list[str]]:
        """Formatted text (csv, glob, pipe or regex) -> the values, for each variable with several values."""
        found: dict[str, list[str]] = {}
        for entry in self._scoped.values():
            values = _value_of(entry)
            if isinstance(values, list):
                escaped = "|".join(_SPECIAL.sub(r"\\\g<0>", value) for value in values)
                csv, pipe = ",".join(values), "|".join(values)
                found |= dict.fromkeys((csv, f"{{{csv}}}", pipe, f"({escaped})", escaped), values)
        return found


def _value_of(entry: object) -> str | list[str] | None:
    value = entry.get("value") if isinstance(entry, dict) else None
    if isinstance(value, list):
        texts = [str(one) for one in value if isinstance(one, str | int) and not isinstance(one, bool)]
        return texts if texts and len(texts) == len(value) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
