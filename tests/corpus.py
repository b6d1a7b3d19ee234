"""300 values that labels have or could have: names of real brokers, and what a separator, a quote or a script may do to one."""

from __future__ import annotations

import json
from pathlib import Path

#: `corpus.jsonl` has a JSON text on each line
_LINES = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
_LONG = ("x" * 900, "x" * 899 + "y", "ab," * 300, "\u00fc" * 900, "\U0001f600" * 450, *(char * 900 for char in '$("\\ '))
EMPTY = ""

#: each once, in order
CORPUS: tuple[str, ...] = (*map(json.loads, _LINES), *_LONG)
