"""Every reason why the bridge would refuse one request of a dashboard.

A route names only the first mistake. So each part of the request is sent alone, and then the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.routing import Route

from app.catalog.parameters import RESERVED
from app.check.dry_run import DryRun
from app.contracts import ROUTERS, values
from app.contracts.grafana_json.discovery import wanted_values
from app.contracts.grafana_json.routes import payload_of
from app.documents.nearest import name_hint, printable_text
from app.errors import BridgeError

_ROUTES = [route.path for router in ROUTERS if not router.prefix for route in router.routes if isinstance(route, Route)]
#: The parameter that names what is asked for, on routes where it is not `metric`.
_SUBJECTS = {"/v1/events": "name", "/v1/values": "label"}

#: A variable as Grafana writes it: $name, ${name:format}, [[name]].
VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?:[.:][^}]*)?\}|\[\[(\w+)(?::\w+)?\]\]")

#: Parameters that are not filters.
_NOT_FILTERS = RESERVED - {"where"}

#: What has a meaning only beside others is asked together with them.
_BESIDE = {"top_by": ("sort", "top")}

Params = Mapping[str, Sequence[Any]]
_Ask = Callable[[str, Mapping[str, Any]], Coroutine[Any, Any, str | None]]


async def refusals_of_target(target: Mapping[str, Any], bridge: DryRun, unread: frozenset[str]) -> list[str]:
    """Why a target of the JSON plugin would be refused."""
    try:
        payload = payload_of(target)
    except BridgeError as wrong:
        return [wrong.message]
    text = target.get("target")
    if text is None or text == "":
        return ["target: is missing; allowed: a metric's or an event's name"]
    if isinstance(text, str) and "$" in text:
        return []  # the name depends on a variable

    async def ask_target(name: str, parts: Mapping[str, Any]) -> str | None:
        return await bridge.refusal_of_target({**target, "target": name, "payload": parts})

    names = known_names([text])
    found = await _find_refusals(ask_target, names, payload, unread)
    if not found and not unread.intersection(names):
        found = _as_list(await ask_target(str(text), _without_variables(payload)))
    return found


async def refusals_of_rows(target: Mapping[str, Any], bridge: DryRun, unread: frozenset[str]) -> list[str]:
    """Why a target of the Infinity plugin (address and parameters) would be refused."""
    path, params = _address_and_params(target)
    if path not in _ROUTES:
        return [f"url: {printable_text(path)!r} is not known; {name_hint(path, _ROUTES)}"]
    subject = _SUBJECTS.get(path, "metric")
    if any("$" in str(value) for value in params.get(subject, ())):
        return []

    async def ask_rows(name: str, parts: Mapping[str, Any]) -> str | None:
        return await bridge.refusal_of_rows(path, {subject: [name], **parts})

    names = known_names(params.get(subject, ()))
    parts = {name: given for name, given in params.items() if name != subject}
    found = await _find_refusals(ask_rows, names, parts, unread)
    if not found and not unread.intersection(names):
        found = _as_list(await bridge.refusal_of_rows(path, {**params, **_without_variables(parts)}))
    return found


async def refusals_of_variable(query: Any, bridge: DryRun, unread: frozenset[str]) -> list[str]:
    """Why the query of a JSON plugin variable for its values would be refused."""
    try:
        label, where = wanted_values(_fill_variables(query, "1"))  # a number is valid JSON in quotes and without
        comes_from_variable = label != wanted_values(_fill_variables(query, "2"))[0]
        if comes_from_variable or label in ("", "metrics") or label in unread:
            return []
        bridge.catalogue.label(label, "query")  # the route itself returns an empty list for an unknown label
    except BridgeError as wrong:
        return [wrong.message]
    known = {name: value for name, value in where.items() if name not in unread} if isinstance(where, dict) else where
    return _as_list(await bridge.refusal_of_variable({"label": label, "where": known}))


def _address_and_params(target: Mapping[str, Any]) -> tuple[str, Params]:
    address = urlsplit(str(target.get("url", "")).strip()) if target.get("url") else urlsplit("")
    options = target.get("url_options")
    listed = options.get("params") if isinstance(options, dict) else None
    found: dict[str, list[Any]] = {}
    for name, value in parse_qsl(address.query, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    for param in listed if isinstance(listed, list) else ():
        if isinstance(param, dict):
            found.setdefault(str(param.get("key")), []).append(param.get("value"))
    return address.path, found


async def _find_refusals(ask: _Ask, names: Iterable[str], parts: Mapping[str, Any], unread: frozenset[str]) -> list[str]:
    """Ask each name alone, then each part (and what it needs beside it) with each valid name."""
    found: dict[str, None] = {}
    for name in names:
        if name in unread:
            continue
        alone = await ask(name, {})
        if alone is not None:
            found[alone] = None
            continue
        valued = _without_variables(parts)
        for part, value in valued.items():
            beside = {other: valued[other] for other in _BESIDE.get(part, ()) if other in valued}
            refusal = await ask(name, {part: value, **beside})
            if refusal is not None:
                found[refusal] = None
    return list(found)


def _without_variables(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts whose validity does not depend on variables.

    In a filter each variable is replaced by some value. Any other part with a variable is left out.
    """
    filled = {part: _fill_variables(value) for part, value in parts.items()}
    return {part: value for part, value in filled.items() if part not in _NOT_FILTERS or value == parts[part]}


def _fill_variables(value: Any, text: str = "x") -> Any:
    """The value with each variable replaced by a text. Variables of Grafana itself stay."""
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: found[0] if _variable_name(found).startswith("__") else text, value)
    if isinstance(value, dict):
        return {key: _fill_variables(one, text) for key, one in value.items()}
    return [_fill_variables(one, text) for one in value] if isinstance(value, list) else value


def _variable_name(found: re.Match[str]) -> str:
    return next(name for name in found.groups() if name)


def _as_list(refusal: str | None) -> list[str]:
    return [] if refusal is None else [refusal]


def known_names(given: Iterable[Any]) -> list[str]:
    """The names in a list, without those that come from a variable."""
    return [name for name in values.words(value for value in given if isinstance(value, str)) if "$" not in name]
