"""Who starts a large demo sees how far it is."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from demo.progress import shown_progress


def test_a_pipe_gets_a_line_every_few_seconds_that_names_each_store_and_what_is_left() -> None:
    said: list[str] = []
    seconds = iter((0.0, 3.0, 10.0, 11.0, 20.0))
    with shown_progress(said.append, Console(file=StringIO()), lambda: next(seconds)) as progress:
        redis, duckdb = progress.track("Redis", "the state now"), progress.track("DuckDB", "8,640,000 account snapshots")
        for tell, share in ((redis, 0.5), (duckdb, 0.25), (redis, 1.0), (duckdb, 0.5)):
            tell(share)
    assert said == [
        "filling the stores: Redis 50%, DuckDB 25%; about 30 s left",
        "filling the stores: Redis 100%, DuckDB 50%; about 20 s left",
    ]


def test_a_terminal_gets_a_bar_for_each_store_and_no_lines() -> None:
    said: list[str] = []
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with shown_progress(said.append, console) as progress:
        progress.track("DuckDB", "8,640,000 account snapshots")(0.25)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert (said, "DuckDB     8,640,000 account snapshots" in shown, "25%" in shown) == ([], True, True)
