"""Stores that take exactly as long as we say: each asking is answered as the real store has answered it before, after a delay.

The real stores' own work takes longer than 10 ms where all of them are asked at once on two cores, and would be taken for the
bridge's. What is answered is what they said, byte for byte; what has not been asked before is asked of them. A question that
differs only in an id is the same one. Another window is another question, because the bridge does not believe times outside
the window it asked for. Redis alone is asked for what is true now, so its instants do not count. It is a process of its own:
`python -m tests.bench.replay STORE_PORT:DELAY_S ...` writes its ports to its standard output and ends when its standard input
does.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from demo.stores import free_port

_IDS = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|[0-9a-f]{32}")
_NUMBERS = re.compile(rb"\d+")
#: questions for the store itself: its clock, its version
_LIVE = re.compile(rb"\$4\r\n(?:TIME|INFO|PING)\r\n|version\(\)|buildinfo")
_DATE = re.compile(rb"\r\ndate: [^\r]*", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
#: a store that has said nothing more for so long has said everything
_QUIET_S = 0.1


class Replay:
    """One store."""

    def __init__(self, store_port: int, delay_s: float) -> None:
        self._store_port = store_port
        self._delay_s = delay_s
        self._known: dict[bytes, bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the bridge, and one of ours to the store."""
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._store_port)
        clock = asyncio.get_running_loop().time
        try:
            while question := await _question(reader):
                due_s = clock() + self._delay_s
                answer = self._known.get(_without_ids(question))
                if answer is None:
                    store_writer.write(question)
                    answer = await _answer(store_reader)
                    if not _LIVE.search(question):
                        self._known[_without_ids(question)] = _DATE.sub(b"", answer)
                await asyncio.sleep(due_s - clock())
                writer.write(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            store_writer.close()
            writer.close()


def _without_ids(question: bytes) -> bytes:
    same = _IDS.sub(b"#", question)
    return _NUMBERS.sub(b"#", same) if question.startswith(b"*") else same


async def _question(reader: asyncio.StreamReader) -> bytes:
    """The next one, whole: a pipeline comes in one piece, an HTTP request says how long it is."""
    question = await reader.read(1 << 20)
    if not question or question.startswith(b"*"):
        return question
    while b"\r\n\r\n" not in question:
        question += await reader.readuntil(b"\r\n\r\n")
    head, _, body = question.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    missing = int(length[1]) - len(body) if length else 0
    return question + (await reader.readexactly(missing) if missing > 0 else b"")


async def _answer(reader: asyncio.StreamReader) -> bytes:
    answer = await reader.read(1 << 20)
    while True:
        try:
            async with asyncio.timeout(_QUIET_S):
                more = await reader.read(1 << 20)
        except TimeoutError:
            return answer
        if not more:
            return answer
        answer += more


@contextmanager
def replaying(stores: Mapping[str, tuple[int, float]]) -> Iterator[dict[str, int]]:
    """The ports of stand-ins for stores given as name -> (port, delay in seconds)."""
    pairs = [f"{port}:{delay_s}" for port, delay_s in stores.values()]
    command = [sys.executable, "-m", "tests.bench.replay", *pairs]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        ports = map(int, process.stdout.readline().split())
        yield dict(zip(stores, ports, strict=True))
        process.stdin.close()


async def _main(pairs: list[str]) -> None:
    ports = []
    for pair in pairs:
        store_port, delay_s = pair.split(":")
        ports.append(free_port())
        await asyncio.start_server(Replay(int(store_port), float(delay_s)).serve, "127.0.0.1", ports[-1])
    print(*ports, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
