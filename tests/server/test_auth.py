from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest

from app.config import settings_from
from app.errors import ConfigError
from app.server.auth import Keys, KeySettings, new_key

NOW = 1_700_000_000_000
KEY = "tdsb_one"
#: non-ASCII, as somebody might type it
OTHER = "schlüssel"


def settings_of(key: str, expires_s: float | None = None) -> KeySettings:
    expires = None if expires_s is None else datetime.fromtimestamp(NOW / 1000 + expires_s, UTC)
    return KeySettings(sha256=hashlib.sha256(key.encode()).hexdigest(), expires=expires)


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("given", "opens"),
    [
        (b"Bearer tdsb_one", True),
        (b"bearer  tdsb_one ", True),
        (basic("grafana:tdsb_one"), True),
        (basic(":tdsb_one"), True),
        (f"Bearer {OTHER}".encode(), True),
        (b"Bearer tdsb_two", False),
        (b"Bearer tdsb_on", False),
        (b"Bearer", False),
        (b"Bearer ", False),
        (b"tdsb_one", False),
        (b"Basic tdsb_one", False),
        (basic("tdsb_one"), False),
        (b"", False),
        (None, False),
    ],
)
def test_a_known_key_opens_and_nothing_else_does(given: bytes | None, opens: bool) -> None:
    assert (Keys({"a": settings_of(KEY), "b": settings_of(OTHER)}, lambda: NOW).find_name(given) is not None) is opens


def test_a_key_opens_until_it_expires() -> None:
    moment = [NOW]
    keys = Keys({"a": settings_of(KEY, expires_s=60)}, lambda: moment[0])
    found = []
    for now_ms in (NOW, NOW + 59_999, NOW + 60_000):
        moment[0] = now_ms
        found.append(keys.find_name(b"Bearer tdsb_one") is not None)
    assert found == [True, True, False]


def test_where_there_is_no_key_nobody_needs_one() -> None:
    assert Keys({}, lambda: NOW).find_name(None) == ""


def test_a_new_key_opens_with_its_own_hash_and_is_another_one_each_time() -> None:
    made = [new_key() for _ in range(3)]
    assert len({key for key, _ in made}) == 3
    assert all(
        Keys({"a": KeySettings(sha256=digest)}, lambda: NOW).find_name(f"Bearer {key}".encode()) == "a" for key, digest in made
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "::", "bridge.example"])
def test_the_bridge_does_not_listen_to_others_without_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="lets other machines in without a key"):
        settings_from({"http": {"host": host}}, "test")


@pytest.mark.parametrize(
    "values",
    [
        {"http": {"host": "0.0.0.0"}, "auth": {"keys": {"a": {"sha256": "0" * 64}}}},
        {"http": {"host": "0.0.0.0"}, "auth": {"open": True}},
        {"http": {"host": "127.0.0.9"}},
        {"http": {"host": "::1"}},
        {"http": {"host": "localhost"}},
    ],
)
def test_with_a_key_or_when_told_so_or_on_this_machine_alone_it_listens(values: dict[str, object]) -> None:
    assert settings_from(values, "test").http.host


def test_a_hash_that_is_none_is_refused_by_its_place() -> None:
    with pytest.raises(ConfigError, match=r"auth\.keys\.a\.sha256"):
        settings_from({"auth": {"keys": {"a": {"sha256": "secret"}}}}, "test")
