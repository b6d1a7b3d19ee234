"""Small frames for tests, written as {labels: {time: value}}."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from app.model import Frame, Labels, Provenance, frame_of_runs

Course = Mapping[int, float | None]
_KNOWN = frozenset(field.name for field in fields(Provenance))


def labels_of(text: str) -> Labels:
    """`account=A1,broker=B` as labels."""
    return tuple(sorted((part.split("=")[0], part.split("=")[1]) for part in text.split(",") if part))


def frame(series: Mapping[str, Course], **rest: Any) -> Frame:
    """A frame of these series; None is null. What belongs to the provenance (`asked_ms`, say) goes there."""
    known = {name: rest.pop(name) for name in _KNOWN & rest.keys()}
    runs = [
        (
            labels_of(labels),
            np.array(sorted(course), dtype=np.int64),
            np.array([math.nan if course[time] is None else course[time] for time in sorted(course)], dtype=np.float64),
        )
        for labels, course in series.items()
    ]
    return frame_of_runs(runs, **rest, provenance=Provenance(**known))


def shown(found: Frame) -> dict[str, dict[int, float | None]]:
    """The frame as such a mapping."""
    return {
        ",".join(f"{name}={value}" for name, value in labels): {
            int(time): None if math.isnan(value) else float(value) for time, value in zip(times, values, strict=True)
        }
        for labels, times, values in found.runs()
    }
