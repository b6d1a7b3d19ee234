"""What a label matcher means: a predicate that the dialect of every store must agree with.

Regular expressions are RE2's, without the parts that other builds of it and Go read otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import re2

from app.errors import BadQuery
from app.model import Matcher, is_text

#: One escape, or the beginning of a named group; inside a class (`[...]`), too.
_TOKEN = re.compile(r"\\[pP](?:\{(\^?\w*)\}|(\w))|\\(.)|(\(\?P?<)", re.DOTALL)
#: Categories and scripts that the tables of every build have. C is left out: newer builds count unassigned characters.
_CATEGORIES = "L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs Cc Cf Any"
_SCRIPTS = "Arabic Armenian Cyrillic Devanagari Georgian Greek Han Hangul Hebrew Hiragana Katakana Latin Thai"
_PROPERTIES = frozenset((*_CATEGORIES.split(), *_SCRIPTS.split()))
_LONGEST_SHOWN = 60


def compile_regex(text: str) -> Any:
    """The expression, compiled. Raises BadQuery that names what is not allowed in it."""
    if not is_text(text):
        raise _regex_refusal(text, "a NUL or half a surrogate pair; allowed: text in UTF-8")
    for prop, short, escape, group in _TOKEN.findall(text):
        name = (prop or short).removeprefix("^")
        if name and name not in _PROPERTIES:
            raise _regex_refusal(text, f"\\p{{{name[:20]}}}; allowed: {', '.join(sorted(_PROPERTIES))}")
        if escape in tuple("CQE"):
            raise _regex_refusal(text, f"\\{escape}; allowed: a backslash before each special character")
        if group:
            raise _regex_refusal(text, f"{group}...>, a group with a name; allowed: (...) and (?:...)")
    try:
        options = re2.Options()
        options.log_errors = False
        return re2.compile(text, options)
    except re2.error as problem:
        reason = problem.args[0].decode("utf-8", "replace") if isinstance(problem.args[0], bytes) else str(problem)
        shown = repr(text[:_LONGEST_SHOWN])
        raise BadQuery(f"filter: {shown} is not a regular expression that RE2 accepts: {reason[:200]}") from problem


def _regex_refusal(text: str, what: str) -> BadQuery:
    return BadQuery(f"filter: {text[:_LONGEST_SHOWN]!r} has what not every store reads alike: {what}")


def regex_predicate(text: str) -> Callable[[str], bool]:
    """Whether the expression matches a whole value. Raises BadQuery for one that not every store reads alike."""
    expression = compile_regex(text)
    return lambda value: expression.fullmatch(value) is not None


#: A label that is a number to every store. Their own parsers also take `inf`, `1_000`, blanks or digits of other scripts.
NUMBER = r"[+-]?(?:[0-9]{1,200}(?:\.[0-9]{0,200})?|\.[0-9]{1,200})(?:[eE][+-]?[0-9]{1,2})?"
_NUMBER = re.compile(NUMBER)


def number_of(text: str) -> float:
    """The number a text stands for, NaN when it stands for none."""
    return float(text) if _NUMBER.fullmatch(text) else math.nan


_ORDER: Mapping[str, Callable[[object, object], bool]] = {
    "<": lambda left, right: left < right,  # type: ignore[operator]
    "<=": lambda left, right: left <= right,  # type: ignore[operator]
    ">": lambda left, right: left > right,  # type: ignore[operator]
    ">=": lambda left, right: left >= right,  # type: ignore[operator]
}


def accepts(matcher: Matcher) -> Callable[[str], bool]:
    """The filter as a predicate over the label's value."""
    operand = matcher.values[0] if matcher.values else ""
    chosen = frozenset(matcher.values)
    match matcher.operator:
        case "=":
            return lambda value: value == operand
        case "!=":
            return lambda value: value != operand
        case "=|":
            return lambda value: value in chosen
        case "!=|":
            return lambda value: value not in chosen
        case "=~":
            return regex_predicate(operand)
        case "!~":
            matches = regex_predicate(operand)
            return lambda value: not matches(value)
        case order:
            compare, bound = _ORDER[order], number_of(operand)
            if math.isnan(bound):
                return lambda value: compare(value, operand)
            return lambda value: compare(number_of(value), bound)


def accepts_all(where: Sequence[Matcher]) -> Callable[[Mapping[str, str]], bool]:
    """All filters as one predicate over a series' labels."""
    tests = [(matcher.label, accepts(matcher)) for matcher in where]
    return lambda labels: all(test(labels.get(label, "")) for label, test in tests)
