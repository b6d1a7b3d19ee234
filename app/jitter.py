"""Random numbers that spread pauses and ages, so that calls which began together do not end together."""

from __future__ import annotations

import random

#: A generator of our own. The shared one of `random` may be seeded by a library, and test tools check that it is not drawn from.
JITTER = random.Random()  # noqa: S311  jitter is no secret
