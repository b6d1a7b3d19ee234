"""What commands print."""

from __future__ import annotations


def print_lines(*lines: str) -> None:
    """Print each line at once, also into a pipe."""
    for line in lines:
        print(line, flush=True)
