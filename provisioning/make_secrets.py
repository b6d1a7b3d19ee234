#!/usr/bin/env python3
"""Makes every password and key of the stack, each random, none known to anybody before.

    python3 provisioning/make_secrets.py

writes `.env` (what docker compose and a shell read: passwords, and the hashes that servers are given) and `provisioning/secrets/`
(what servers read as files: Redis' users.acl, Prometheus' key of the bridge, ...). Run again it adds what is missing, makes the
hashes and files anew, and changes no password that is there: to change one, delete its line in .env, run this, and restart who
uses it. Needs Python 3.9 and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: what is made, and for whom
REDIS = ("admin", "bridge", "backend", "exporter", "tier", "grafana", "sentinel", "replica")
CLICKHOUSE = ("bridge", "backend", "backup", "schema", "grafana")
BRIDGE_KEYS = ("grafana", "prometheus", "operator")
OTHERS = ("GRAFANA_ADMIN_PASSWORD", "GRAFANA_SECRET_KEY", "POSTGRES_PASSWORD")


def wanted() -> list[str]:
    """The name of every secret."""
    redis = [f"REDIS_{user.upper()}_PASSWORD" for user in REDIS]
    clickhouse = [f"CLICKHOUSE_{user.upper()}_PASSWORD" for user in CLICKHOUSE]
    return [*OTHERS, *(f"BRIDGE_KEY_{name.upper()}" for name in BRIDGE_KEYS), *redis, *clickhouse]


def hashed(values: dict[str, str]) -> dict[str, str]:
    """`CLICKHOUSE_BRIDGE_SHA256`, `BRIDGE_KEY_GRAFANA_SHA256`: what servers are given in place of a password."""
    of_users = {f"CLICKHOUSE_{user.upper()}_SHA256": f"CLICKHOUSE_{user.upper()}_PASSWORD" for user in CLICKHOUSE}
    of_keys = {f"BRIDGE_KEY_{name.upper()}_SHA256": f"BRIDGE_KEY_{name.upper()}" for name in BRIDGE_KEYS}
    return {name: sha256(values[secret]) for name, secret in {**of_users, **of_keys}.items()}


def new(name: str) -> str:
    """A fresh secret; a key of the bridge as `bridge key` makes it."""
    return ("tdsb_" if name.startswith("BRIDGE_KEY_") else "") + secrets.token_urlsafe(32)


def sha256(text: str) -> str:
    """In hex, as Redis, ClickHouse and the bridge write it."""
    return hashlib.sha256(text.encode()).hexdigest()


def redis_users(template: str, values: dict[str, str]) -> str:
    """Redis' ACL file: one line a user, without comments, a password's hash in the place of `#<user>`."""
    lines = (line for line in template.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
    whole = re.sub(r"#<(\w+)>", lambda found: "#" + sha256(values[f"REDIS_{found[1].upper()}_PASSWORD"]), joined)
    return re.sub(r"\n+", "\n", whole).strip() + "\n"


def read(file: Path) -> dict[str, str]:
    """The variables of a file of NAME=value lines."""
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def merged(old: str, values: dict[str, str]) -> str:
    """The file's text with these variables: its other lines stay as they are, what is new comes last."""
    left = dict(values)
    lines = []
    for line in old.splitlines():
        name = line.split("=", 1)[0]
        lines.append(line if line.startswith("#") or name not in left else f"{name}={left.pop(name)}")
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}={value}" for name, value in left.items())])


def write(file: Path, text: str, mode: int) -> None:
    """In place, so that a container that has the file mounted sees it; never readable for others, not even for a moment."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline="\n") as opened:
        opened.write(text)
    file.chmod(mode)


def main() -> int:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", type=Path, default=HERE.parent / ".env", help="the file of variables")
    parser.add_argument("--folder", type=Path, default=HERE / "secrets", help="the folder of files")
    arguments = parser.parse_args()

    had = read(arguments.env)
    made = [name for name in wanted() if not had.get(name)]
    values = {**had, **{name: new(name) for name in made}}
    values.update(hashed(values))
    old = arguments.env.read_text(encoding="utf-8") if arguments.env.exists() else ""
    write(arguments.env, merged(old, {name: value for name, value in values.items() if had.get(name) != value}), 0o600)

    # The folder keeps people out; the files in it are read by the containers' own users.
    arguments.folder.mkdir(parents=True, exist_ok=True)
    arguments.folder.chmod(0o700)
    template = (HERE / "redis" / "users.acl.template").read_text(encoding="utf-8")
    files = {
        "users.acl": redis_users(template, values),
        "bridge.key": values["BRIDGE_KEY_PROMETHEUS"],
        "grafana_admin_password": values["GRAFANA_ADMIN_PASSWORD"],
        "grafana_secret_key": values["GRAFANA_SECRET_KEY"],
        "bridge_key_grafana": values["BRIDGE_KEY_GRAFANA"],
        "postgres_password": values["POSTGRES_PASSWORD"],
    }
    for name, text in files.items():
        write(arguments.folder / name, text, 0o644)
    sys.stdout.write(f"{arguments.env}: {len(made)} secrets made, {len(wanted()) - len(made)} kept\n")
    sys.stdout.write(f"{arguments.folder}: {', '.join(files)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
