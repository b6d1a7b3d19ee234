"""The keys that a pydantic model has at a place in a document, and its validation errors in words for the author of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from app.documents.nearest import name_hint, nearest_names, printable_text

#: A place in a document: keys, and indices of list items.
Place = tuple[str | int, ...]

_SECRET_NAME = re.compile(r"pass|secret|token|key|sha256|credential|auth", re.IGNORECASE)
#: Kinds of pydantic errors whose message already names the value, or whose value does not help.
_WITHOUT_VALUE = ("missing", "union_tag_not_found", "value_error", "extra_forbidden")


def union_members(annotation: Any) -> list[Any]:
    """The types that a value may have, each member of a union by itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return union_members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [found for one in get_args(annotation) for found in union_members(one)]
    return [annotation]


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models among the types that a value may have."""
    return [one for one in union_members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]


def entry_type(annotation: Any) -> Any | None:
    """The type of the entries in a mapping with free keys; None if the keys are not free."""
    for one in union_members(annotation):
        if get_origin(one) in (dict, Mapping):
            return get_args(one)[1]
    return None


def keys_of(annotation: Any) -> dict[str, Any]:
    """Key -> its annotation, over every model that may stand here."""
    return {name: found.annotation for one in models_of(annotation) for name, found in one.model_fields.items()}


def _discriminator_of(model: type[BaseModel]) -> Any:
    return next((model.model_fields[name].default for name in ("kind", "read") if name in model.model_fields), None)


def annotation_at(annotation: Any, place: Sequence[str | int]) -> Any | None:
    """The annotation at a place as pydantic names it (with the tags of unions); None if there is no such place."""
    for part in place:
        tagged = (
            [one for one in models_of(annotation) if _discriminator_of(one) == part] if len(models_of(annotation)) > 1 else []
        )
        if tagged:
            annotation = tagged[0]
        elif isinstance(part, int):
            annotation = next((get_args(one)[0] for one in union_members(annotation) if get_args(one)), None)
        else:
            annotation = keys_of(annotation).get(part, entry_type(annotation))
        if annotation is None:
            return None
    return annotation


def place_of(error: Mapping[str, Any], annotation: Any) -> Place:
    """Where an error is in the document: the place of pydantic without the tags of unions and its mark for keys."""
    found: list[str | int] = []
    for part in error["loc"]:
        tags = [_discriminator_of(one) for one in models_of(annotation)]
        if len(tags) > 1 and part in tags:
            annotation = models_of(annotation)[tags.index(part)]
            continue
        annotation = annotation_at(annotation, [part])
        if part != "[key]":
            found.append(part)
    return tuple(found)


def without_followers(errors: Sequence[Any], annotation: Any) -> list[Any]:
    """The errors without those that another one explains: a key that is misspelt is not reported as missing, too."""
    meant = set[Place]()
    for error in errors:
        if error["type"] == "extra_forbidden":
            keys = keys_of(annotation_at(annotation, error["loc"][:-1]))
            meant.update((*error["loc"][:-1], one) for one in nearest_names(str(error["loc"][-1]), keys, count=1))
    return [error for error in errors if error["type"] != "missing" or error["loc"] not in meant]


def key_text(place: Place) -> str:
    """A place as people write it: `sources.rts.connect`."""
    return ".".join(printable_text(part) for part in place)


def reason_of(error: Mapping[str, Any], annotation: Any, showing: bool = True) -> str:
    """What is wrong, the value, and the nearest allowed one. The value is left out if not `showing` (a secret)."""
    loc, message = error["loc"], str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        keys = keys_of(annotation_at(annotation, loc[:-1]))
        return f"unknown key; {name_hint(str(loc[-1]), keys)}" if keys else "unknown key"
    if error["type"] == "union_tag_not_found":
        tags = sorted(str(_discriminator_of(one)) for one in models_of(annotation_at(annotation, loc)))
        return f"`kind` is missing; allowed: {', '.join(tags)}"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        keys = keys_of(annotation_at(annotation, loc))
        return f"a mapping is expected here{' with the keys ' + ', '.join(keys) if keys else ''}"
    value = error.get("input")
    if error["type"] == "union_tag_invalid":
        value = error["ctx"]["tag"]
    if not showing or error["type"] in _WITHOUT_VALUE or not isinstance(value, str | int | float):
        return message
    return f"{message}; found {printable_text(value)!r}{_nearest_value_hint(value, error)}"


def _nearest_value_hint(value: object, error: Mapping[str, Any]) -> str:
    """The nearest of the values that pydantic allows."""
    context = error.get("ctx", {})
    expected = re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))
    text = name_hint(str(value), expected) if expected else ""
    return f"; {text}" if text.startswith("nearest") else ""


def secret_at(annotation: Any, loc: Sequence[str | int]) -> bool:
    """Whether the value at a place, as pydantic names it, is a secret."""
    found = annotation_at(annotation, loc)
    types = union_members(found) if found is not None else []
    return SecretStr in types or any(_SECRET_NAME.search(str(part)) for part in loc)


def value_places(annotation: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place that a variable can set; `*` stands for a free key."""
    entries = entry_type(annotation)
    below = keys_of(annotation) if entries is None else {"*": entries}
    if above:
        yield above
    for name, found in below.items():
        yield from value_places(found, (*above, name))
