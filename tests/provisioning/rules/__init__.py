"""Every rule's case."""

from __future__ import annotations

from tests.provisioning.rules import bridge, recorded, stack, trading
from tests.provisioning.rules.case import Fires, Records, Series

__all__ = ["FIRES", "RECORDS", "Fires", "Records", "Series"]

FIRES: list[Fires] = [*bridge.CASES, *stack.CASES, *trading.CASES]
RECORDS: list[Records] = recorded.CASES
