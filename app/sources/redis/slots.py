"""Which node of a cluster has which keys: slots, the commands' keys, and what is said where a node does not answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from app.errors import SourceError
from app.model import NO_REMARKS, Remarks, gap_remark
from app.sources.redis.connections import Command, Reply

SLOTS: int = REDIS_CLUSTER_HASH_SLOTS

#: Where the key of a command stands; 1 for all others, 0 for a command without a key.
_KEY_PLACES: Mapping[str, int] = {"TIME": 0, "PING": 0, "INFO": 0, "ZUNION": 2, "XINFO": 2}
#: Commands that ask for one of many ids, and what they ask for. The answer goes on without those of a node that is down.
_OF_MANY: Mapping[str, str] = {
    "HMGET": "hashes",
    "EXISTS": "hashes",
    "ZRANGEBYSCORE": "sample lists",
    "TS.RANGE": "time series",
}


def slot_of(command: Command) -> int | None:
    """The slot of the command's key; None for a command without a key, which any node answers."""
    place = _KEY_PLACES.get(str(command[0]), 1)
    if not place:
        return None
    key = command[place]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def slot_ranges(reply: Reply, asked_host: str) -> Iterator[tuple[int, int, str, int]]:
    """First and last slot, host and port of each master, from the reply to CLUSTER SLOTS. A node that does not know its own
    address is at the host that was asked."""
    for first, last, master, *_ in reply:
        host, port = master[0], master[1]
        yield int(first), int(last), host.decode() if host else asked_host, int(port)


@dataclass(frozen=True, slots=True)
class Loss:
    """Commands (by their places) that got no reply, from which node, and why."""

    address: str
    failure: SourceError
    places: Sequence[int]


def fill_lost(source: str, commands: Sequence[Command], replies: list[Reply], losses: Sequence[Loss]) -> Remarks:
    """Put replies as of missing keys where commands were lost, and remark on that.

    Raises the failure where there is no answer without them: a command is no one of many ids, or all of its kind are lost.
    """
    remarks = NO_REMARKS
    asked = _count_kinds(commands) if losses else Counter[str]()
    all_lost = _count_kinds([commands[place] for loss in losses for place in loss.places])
    for loss in losses:
        lost = _count_kinds([commands[place] for place in loss.places])
        if any(what not in _OF_MANY.values() or all_lost[what] == asked[what] for what in lost):
            raise type(loss.failure)(source, f"node {loss.address} of the cluster: {loss.failure.reason}")
        for place in loss.places:
            replies[place] = _missing_reply(commands[place])
        counts = " and ".join(f"{count} of {asked[what]} {what}" for what, count in lost.items())
        remarks += gap_remark(
            f"node {loss.address} of the cluster does not answer ({loss.failure.reason}): {counts} are missing from the figures"
        )
    return remarks


def _missing_reply(command: Command) -> Reply:
    """The reply as if there were no such key."""
    return {"HMGET": [None] * (len(command) - 2), "EXISTS": 0, "ZRANGEBYSCORE": []}.get(str(command[0]))


def _count_kinds(commands: Sequence[Command]) -> Counter[str]:
    """How many commands ask for what."""
    return Counter(_OF_MANY.get(str(command[0]), "keys") for command in commands)
