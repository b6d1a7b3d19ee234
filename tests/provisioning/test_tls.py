"""The command that makes a test authority and its certificates, run as an operator runs it."""

from __future__ import annotations

import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from tests.servers.balancer import MAKE_CERTIFICATES, make_certificates

MADE = {"ca.crt", "ca.key", "haproxy.pem", "grafana.crt", "grafana.key", "client.crt", "client.key"}


def make(*arguments: object) -> tuple[int, str]:
    done = subprocess.run([MAKE_CERTIFICATES, *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_keys_are_their_owners_alone_and_what_is_signed_verifies(tmp_path: Path) -> None:
    folder = make_certificates(tmp_path / "tls", "--name", "lb.example", "--ip", "10.1.2.3")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert modes == {name: 0o644 if name.endswith(".crt") else 0o600 for name in MADE}
    for purpose, name in (("sslserver", "haproxy.pem"), ("sslserver", "grafana.crt"), ("sslclient", "client.crt")):
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            str(folder / "ca.crt"),
            str(folder / name),
        ]
        subprocess.run(command, check=True, capture_output=True)
    for server, key in (("haproxy.pem", "haproxy.pem"), ("grafana.crt", "grafana.key"), ("client.crt", "client.key")):
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(folder / server, folder / key)
    named = subprocess.run(
        ["openssl", "x509", "-in", folder / "haproxy.pem", "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [name in named.stdout for name in ("DNS:localhost", "DNS:lb.example", "IP Address:10.1.2.3")] == [True] * 3


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "grafana.key").write_text("mine", encoding="utf-8")
    code, said = make(tmp_path)
    assert (code, contents(tmp_path)) == (2, {"grafana.key": b"mine"})
    assert "has grafana.key already: --renew keeps the authority, --force replaces everything" in said
    assert make(tmp_path, "--force")[0] == 0
    assert contents(tmp_path).keys() == MADE


def test_renewing_keeps_the_authority_and_replaces_the_rest(tmp_path: Path) -> None:
    before = contents(make_certificates(tmp_path))
    assert make(tmp_path, "--renew")[0] == 0
    after = contents(tmp_path)
    assert {name for name in MADE if after[name] == before[name]} == {"ca.crt", "ca.key"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--days", "0"], "--days 0: a number from 1 to 9999"),
        (["--name", "a b"], "--name a b: not a host name"),
        (["--ip", "localhost"], "--ip localhost: not an address"),
        (["--ip"], "--ip needs a value"),
        (["--purge"], "unknown option --purge"),
        (["--ip", "999.1.1.1"], "bad ip address"),
        (["--renew"], "--renew needs ca.crt and ca.key"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(tmp_path: Path, arguments: list[str], said: str) -> None:
    code, error = make(tmp_path, *arguments)
    assert (code, said in error, contents(tmp_path)) == (2, True, {}), error
