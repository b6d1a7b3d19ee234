"""The demo: a simulated trade distribution system and the stores that it writes to."""

from demo.feed import MOST_DAYS, MOST_INSTANCES, DemoOptions, RunningDemo, running_demo

__all__ = ["MOST_DAYS", "MOST_INSTANCES", "DemoOptions", "RunningDemo", "running_demo"]
