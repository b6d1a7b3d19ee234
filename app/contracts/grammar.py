"""How callers write times, steps, lists and filters: one grammar for every contract, each mistake named with what is allowed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from app.errors import BadQuery
from app.model import OPERATORS, Matcher, Operator

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_RELATIVE = re.compile(r"now(?:\s*([+-])\s*(\d{1,9})(ms|[smhdw]))?(?:/([smhdw]))?")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|[smhdw])?")
_FILTER = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=\||=\||!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_ESCAPED = re.compile(r"\\([^A-Za-z0-9\s])")
# Epoch seconds stay below this until the year 5138, epoch milliseconds are above it since 1973.
_SECONDS_BELOW = 100_000_000_000
#: What Grafana writes for "no restriction", beside an empty text.
_ALL = ("$__all", "__all")
_LONGEST_INSTANT = 60
_INSTANT_FORMS = "epoch ms or s, ISO 8601 (2026-01-31T12:00:00Z), now, now-6h"
#: the end of the year 9999
MOST_MS = 253_402_300_799_000


def unset(text: object) -> bool:
    """True for what stands for "not given": nothing, blank, or a Grafana variable that nobody has filled in."""
    return text is None or (isinstance(text, str) and (not text.strip() or text.strip().startswith("$")))


def instant_ms(value: object, field: str, now_ms: int, default_ms: int) -> int:
    """An instant as epoch ms. Raises BadQuery naming `field`."""
    if unset(value):
        return default_ms
    text = str(value).strip()
    if len(text) > _LONGEST_INSTANT:
        raise BadQuery(f"{field}: {text[:60]!r} is not a time; allowed: {_INSTANT_FORMS}")
    if text[4:5] == "-" and (plain := _iso_ms(text)) is not None and 0 <= plain <= MOST_MS:
        return plain  # what Grafana sends, found first
    relative = _RELATIVE.fullmatch(text)
    found = _relative_ms(relative, now_ms) if relative is not None else None
    if found is None and not isinstance(value, bool):
        found = _epoch_ms(text)
    if found is None:
        found = _iso_ms(text)
    if found is None or not 0 <= found <= MOST_MS:
        raise BadQuery(f"{field}: {text[:60]!r} is not a time; allowed: {_INSTANT_FORMS}")
    return found


def _relative_ms(found: re.Match[str], now_ms: int) -> int:
    sign, count, unit, floor = found.groups()
    shift_ms = int(count) * _UNIT_MS[unit] if count else 0
    shifted_ms = now_ms + (shift_ms if sign == "+" else -shift_ms)
    return shifted_ms // _UNIT_MS[floor] * _UNIT_MS[floor] if floor else shifted_ms


def _epoch_ms(text: str) -> int | None:
    try:
        found = float(text)
    except ValueError:
        return None
    if not math.isfinite(found):
        return None
    return round(found * 1000) if abs(found) < _SECONDS_BELOW else round(found)


@lru_cache(4096)
def _iso_ms(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def step_ms(value: object, field: str = "step") -> int | None:
    """A step in ms; None for auto. A bare number is ms, as Grafana's `$__interval_ms`. Raises BadQuery naming `field`."""
    if unset(value) or value == "auto":
        return None
    text = str(value).strip()
    found = _DURATION.fullmatch(text) if not isinstance(value, bool) else None
    if found is None:
        raise BadQuery(f"{field}: {text[:60]!r} is not a duration; allowed: 30s, 5m, 1h, 1d, 60000 (ms) or auto")
    step = round(float(found[1]) * _UNIT_MS[found[2] or "ms"])
    if step < 1000:
        hint = f"; write {found[1]}s for seconds" if not found[2] and step else ""
        raise BadQuery(f"{field}: {text[:60]!r} is too short; allowed: 1s or more (a number without a unit is in ms){hint}")
    return step


def whole_number(value: object, field: str, least: int, most: int, default: int) -> int:
    """A whole number within bounds. Raises BadQuery naming `field`."""
    if unset(value):
        return default
    try:
        found = int(float(str(value))) if not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        found = None
    if found is None or not least <= found <= most:
        raise BadQuery(f"{field}: {str(value)[:60]!r} is not allowed; allowed: a whole number from {least} to {most}")
    return found


def flag(value: object, field: str, default: bool = False) -> bool:
    """A yes or no. Raises BadQuery naming `field`."""
    if unset(value):
        return default
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise BadQuery(f"{field}: {str(value)[:60]!r} is not allowed; allowed: true or false")


def choice(value: object, field: str, allowed: Sequence[str], default: str) -> str:
    """One of a few words. Raises BadQuery naming `field`."""
    if unset(value):
        return default
    if str(value) not in allowed:
        raise BadQuery(f"{field}: {str(value)[:60]!r} is not allowed; allowed: {', '.join(allowed)}")
    return str(value)


def words(values: Iterable[object]) -> list[str]:
    """The values of a list however a Grafana variable was formatted, in order, each once.

    `a,b` (csv), `{a,b}` (glob), `a|b` and `(a|b)` (pipe, regex; escapes undone), `["a","b"]` (json), or several values.
    """
    found: dict[str, None] = {}
    for value in values:
        if not unset(value) or value in _ALL:
            found.update(dict.fromkeys(_split(str(value).strip())))
    return [word for word in found if word]


def _split(text: str) -> list[str]:
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, list):
            return [str(item) for item in parsed if item is not None]
    if (text[:1], text[-1:]) in (("{", "}"), ("(", ")")):
        text = text[1:-1]
    return [_ESCAPED.sub(r"\1", part).strip() for part in re.split(r",|(?<!\\)\|", text)]


def filters(value: object, field: str = "where") -> tuple[Matcher, ...]:
    """Filters as any contract may carry them; duplicates once. Raises BadQuery naming `field`.

    A text `account=A1`, a list of such texts, a mapping `{"account": "A1"}` or `{"account": ["A1", "A2"]}`, or Grafana's ad-hoc
    filters `[{"key", "operator", "value", "values"}]`. A filter on everything (an "All" variable) is dropped.
    """
    if unset(value):
        return ()
    if isinstance(value, Mapping) and "key" not in value:
        found = [equal(str(label), one if isinstance(one, list) else [one]) for label, one in value.items()]
    else:
        items = value if isinstance(value, list | tuple) else [value]
        found = [_filter(item, field) for item in items if not unset(item)]
    return tuple(dict.fromkeys(matcher for matcher in found if matcher is not None))


def equal(label: str, values: Iterable[object]) -> Matcher | None:
    """The filter that a plain `label=value(s)` stands for; None when it restricts nothing."""
    given = list(values)
    if any(str(value).strip() in _ALL for value in given):
        return None
    chosen = words(given)
    if not chosen:
        return None
    return Matcher(label, "=", tuple(chosen)) if len(chosen) == 1 else Matcher(label, "=|", tuple(chosen))


def _filter(item: object, field: str) -> Matcher | None:
    if isinstance(item, str):
        return _filter_of_text(item, field)
    if isinstance(item, Mapping) and isinstance(item.get("key"), str):
        return _filter_of_mapping(item, field)
    raise BadQuery(f'{field}: {str(item)[:60]!r} is not a filter; allowed: "label=value" or {{"key", "operator", "value"}}')


def _filter_of_text(text: str, field: str) -> Matcher | None:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise BadQuery(f"{field}: {text[:60]!r} is not a filter; allowed: label=value, operators {' '.join(OPERATORS)}")
    label, operator, operand = found.groups()
    return _matcher(label, operator, [operand], field)


def _filter_of_mapping(item: Mapping[str, Any], field: str) -> Matcher | None:
    several = item.get("values")
    operator = item.get("operator", "=")
    given = several if isinstance(several, list) and several and operator in ("=|", "!=|") else [item.get("value", "")]
    return _matcher(item["key"], operator, given, field)


def _matcher(label: str, operator: object, given: Sequence[object], field: str) -> Matcher | None:
    if operator not in OPERATORS:
        raise BadQuery(f"{field}: {label}: unknown operator {str(operator)[:20]!r}; allowed: {' '.join(OPERATORS)}")
    if any(str(value).strip() in _ALL for value in given):
        return None
    if operator not in ("=", "!=", "=|", "!=|"):
        return Matcher(label, operator, (str(given[0]),))
    chosen = tuple(words(given)) or ("",)
    return Matcher(label, _SEVERAL.get(operator, operator) if len(chosen) > 1 else operator, chosen)


_SEVERAL: Mapping[str, Operator] = {"=": "=|", "!=": "!=|"}
