"""Configuration, catalogue and provisioning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backup.desk import Desk

REPOSITORY = Path(__file__).parents[2]


def test_what_was_changed_by_hand_comes_back_and_the_change_is_kept_beside(desk: Desk) -> None:
    dashboards = desk.folder / "grafana" / "dashboards"
    dashboards.mkdir(parents=True)
    (dashboards / "trade.json").write_text("{}")
    desk.settings["config"] = {"include": [str(dashboards)]}
    backup = desk.saved("config")
    catalog = desk.config.parent / "catalog" / "empty.yaml"
    (dashboards / "trade.json").write_text('{"title": "mistaken"}')
    refused = desk.run("restore", "config", backup.name)
    assert (refused.code, "say --force" in refused.err) == (1, True)
    (dashboards / "gone.json").write_text("new since then")
    done = desk.run("restore", "config", backup.name, "--force")
    (kept,) = dashboards.glob("trade.json.before-*")
    assert (done.code, (dashboards / "trade.json").read_text(), kept.read_text()) == (0, "{}", '{"title": "mistaken"}')
    assert ((dashboards / "gone.json").read_text(), list(catalog.parent.glob("*.before-*"))) == ("new since then", [])


def test_a_lost_configuration_is_restored_without_one(desk: Desk) -> None:
    backup, config = desk.saved("config"), desk.config
    expected = config.read_bytes()
    config.unlink()
    words = ["restore", "config", str(backup.path), "--to", str(desk.folder / "new"), "--config", str(config)]
    done = subprocess.run([sys.executable, "-m", "app", *words], capture_output=True, text=True, check=False)
    restored = desk.folder / "new" / config.relative_to("/")
    assert (done.returncode, done.stderr, restored.read_bytes()) == (0, "", expected)


SECRETS = {
    "bridge-2.yaml": "sources: {rts: {connect: {kind: redis, password: hunter2}}}",
    "grafana.ini": "[security]\nadmin_password = hunter2\n",
    "users.xml": "<clickhouse><users><bridge><password>hunter2</password></bridge></users></clickhouse>",
    "users.acl": "user bridge on >hunter2 ~* +@read",
    "redis.conf": "bind 127.0.0.1\nmasterauth hunter2\n",
    "sentinel.conf": "sentinel auth-user rts sentinel\nsentinel auth-pass rts hunter2\n",
    "server.crt": "-----BEGIN PRIVATE KEY-----\nAAAA\n",
    "contact.json": '{"settings": {"token": "hunter2"}}',
    "made.py": 'files = {"admin_password": "hunter2"}',
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_plain_text_is_not_saved_unless_that_was_said(desk: Desk, name: str) -> None:
    file = desk.config.parent / name
    file.write_text(SECRETS[name])
    refused = desk.run("backup", "config")
    assert (refused.code, str(file) in refused.err, "hunter2" in refused.err, desk.archive.backups()) == (1, True, False, [])
    desk.settings["config"] = {"secrets": True}
    assert any(path.endswith(name) for path in desk.saved("config").manifest().files)
    desk.settings["config"] = {"exclude": [name]}
    left_out = desk.saved("config").manifest()
    assert (left_out.left_out, any(path.endswith(name) for path in left_out.files)) == ((str(file),), False)


def test_a_folder_of_secrets_is_not_saved_though_nothing_in_it_says_what_it_is(desk: Desk) -> None:
    file = desk.config.parent / "secrets" / "grafana_admin_password"
    file.parent.mkdir()
    file.write_text("hunter2")
    refused = desk.run("backup", "config")
    assert (refused.code, str(file) in refused.err, desk.archive.backups()) == (1, True, [])
    desk.settings["config"] = {"exclude": ["secrets"]}
    assert desk.saved("config").manifest().left_out == (str(file),)


@pytest.mark.parametrize(
    "text",
    [
        "password: ${REDIS_PASSWORD}",
        "secret_key = $__file{/run/secrets/key}",
        "#password: hunter2",
        ";admin_password = hunter2",
        "password_file: /run/secrets/redis",
        "auth: {keys: {grafana: {sha256: 00ff}}}",
        "user bridge on #00ff ~* +@read",
        'password = ""',
        "secret_key: <the secret key>",
        'files = {"admin_password": values["ADMIN_PASSWORD"]}',
    ],
)
def test_what_is_put_in_from_elsewhere_is_no_secret(desk: Desk, text: str) -> None:
    (desk.config.parent / "more.conf").write_text(text + "\n")
    assert any(path.endswith("more.conf") for path in desk.saved("config").manifest().files)


def test_what_this_repository_ships_holds_no_secret(desk: Desk) -> None:
    # its folders of secrets are not shipped, but are here where the stack was once started
    desk.settings["config"] = {"include": [str(REPOSITORY / "provisioning")], "exclude": ["secrets"]}
    saved = desk.saved("config").manifest().files
    assert f"{(REPOSITORY / 'provisioning' / 'bridge.yaml').relative_to('/').as_posix()}" in saved


def test_a_file_that_is_not_there_is_named(desk: Desk) -> None:
    desk.settings["config"] = {"include": [str(desk.folder / "none")]}
    done = desk.run("backup", "config")
    assert (done.code, done.err) == (1, f"bridge: config: {desk.folder / 'none'}: there is no such file or folder\n")
