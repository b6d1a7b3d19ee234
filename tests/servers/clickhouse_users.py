"""The committed users, profiles, quotas, grants and server settings of ClickHouse, in force on the embedded engine.

The engine has one user, `default`, and no passwords. So the user who is to be tried is renamed to that, with everything that the
files give him, and the server is started anew for each. What stays unseen: passwords, networks, and the settings under
`access_control_improvements`, which the embedded engine does not read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.servers.clickhouse import ClickHouseServer

PROVISIONED = Path(__file__).parents[2] / "provisioning" / "clickhouse"
#: where the committed file keeps backups
_BACKUPS = "/var/lib/clickhouse-backups/"
_EMPTY = hashlib.sha256(b"").hexdigest()
#: what the files merge into: ClickHouse's own users.xml, which always has a profile and a quota of this name
_OWN_USERS = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas>{}</clickhouse>"
_ADMINISTRATOR = f"""<users><default><password_sha256_hex>{_EMPTY}</password_sha256_hex><networks><ip>::/0</ip></networks>
    <profile>default</profile><quota>default</quota><access_management>1</access_management></default></users>"""


@contextmanager
def clickhouse_as(user: str, data: Path, folder: Path) -> Iterator[ClickHouseServer]:
    """A server on `data` whose everyday user is this one of the committed files; `administrator` may do everything."""
    with running(data, configured(user, folder)) as server:
        yield server


@contextmanager
def running(data: Path, config: Path) -> Iterator[ClickHouseServer]:
    """A server on `data` with that configuration file."""
    server = ClickHouseServer(Path(f"{data}?config-file={config}"), "wire")
    with mock.patch.dict(os.environ, hashes()):
        server.start()
    try:
        yield server
    finally:
        server.stop()
        server.close()


def hashes() -> dict[str, str]:
    """The variables that the committed files read from the environment, each with the hash of no password."""
    texts = [file.read_text(encoding="utf-8") for file in PROVISIONED.rglob("*.xml")]
    return dict.fromkeys(re.findall(r'from_env="(\w+)"', "".join(texts)), _EMPTY)


def configured(user: str, folder: Path) -> Path:
    """The engine's configuration file with the committed ones in force for that user."""
    for part in ("users.d", "config.d"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    users = (PROVISIONED / "users.d" / "trade_system.xml").read_text(encoding="utf-8")
    if user == "administrator":
        (folder / "users.xml").write_text(_OWN_USERS.format(_ADMINISTRATOR))
    else:
        (folder / "users.xml").write_text(_OWN_USERS.format(""))
        users = _renamed(users, user)
    (folder / "users.d" / "trade_system.xml").write_text(users)
    for file in (PROVISIONED / "config.d").glob("*.xml"):
        text = file.read_text(encoding="utf-8")
        (folder / "config.d" / file.name).write_text(text.replace(_BACKUPS, f"{folder}/backups/"))
    config = folder / "config.xml"
    config.write_text(f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>")
    return config


def _renamed(users: str, user: str) -> str:
    before, found, rest = users.partition("<users>")
    own, ends, after = rest.partition(f"</{user}>")
    begins = own.rindex(f"<{user}>")
    own = own[:begins] + "<default>" + own[begins + len(user) + 2 :]
    assert found, "users.d/trade_system.xml has no <users>"
    assert ends, f"users.d/trade_system.xml has no user {user}"
    return (before + found + own + "</default>" + after).replace(f"SET DEFINER ON {user}", "SET DEFINER ON default")
