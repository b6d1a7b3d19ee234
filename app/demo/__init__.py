"""The demo: a simulated trade distribution and the stores it is written into."""

from app.demo.feed import DemoOptions, RunningDemo, running_demo

__all__ = ["DemoOptions", "RunningDemo", "running_demo"]
