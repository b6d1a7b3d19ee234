"""The demo: a simulated trade distribution system and the stores that it writes to."""

from demo.feed import DemoOptions, RunningDemo, running_demo

__all__ = ["DemoOptions", "RunningDemo", "running_demo"]
