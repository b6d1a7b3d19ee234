"""The committed haproxy.cfg, checked by haproxy: a warning is a failure."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.servers.balancer import CONFIG, make_certificates


def check(environment: dict[str, str]) -> tuple[int, str]:
    command = ["haproxy", "-c", "-dW", "-f", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The paths that a real machine has and a test's has not; nothing else is changed."""
    folder = make_certificates(tmp_path_factory.mktemp("tls"))
    named = {"LB_CERTIFICATE": folder / "haproxy.pem", "LB_CLIENT_CA": folder / "ca.crt", "LB_SOCKET": folder / "socket"}
    return {name: str(path) for name, path in named.items()}


def test_haproxy_accepts_the_file_with_its_own_defaults_without_a_warning(paths: dict[str, str]) -> None:
    assert check(paths)[0] == 0, check(paths)


@pytest.mark.parametrize(
    "more", [{"LB_CLIENT_CERTS": "required"}, {"LB_CHROOT": "/var/lib/haproxy"}, {"LB_BRIDGE_LISTEN": "*:8443"}]
)
def test_haproxy_accepts_what_an_operator_may_set(paths: dict[str, str], more: dict[str, str]) -> None:
    assert check(paths | more)[0] == 0, check(paths | more)


def test_a_name_that_does_not_resolve_yet_keeps_haproxy_from_nothing(paths: dict[str, str]) -> None:
    command = ["haproxy", "-c", "-f", str(CONFIG)]
    environment = os.environ | paths | {"LB_BRIDGE_1": "bridge-1.invalid:8080"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, "could not resolve address 'bridge-1.invalid', disabling server" in done.stderr) == (0, True)


def test_the_check_can_fail(paths: dict[str, str]) -> None:
    code, said = check(paths | {"LB_RATE_KEY": "many"})
    assert (code, "many" in said) == (1, True)


def test_every_variable_that_is_used_has_a_default_and_every_default_is_used() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    used, preset = set(re.findall(r'"\$\{(\w+)\}"', text)), set(re.findall(r"^    presetenv (\w+)", text, re.MULTILINE))
    assert (used - preset, preset - used) == ({"LB_CHROOT"}, set())
