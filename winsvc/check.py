"""Looks before the leap: everything that would keep the bridge's service from running, in one list."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.catalog import load_folder
from app.commands import refuse_taken_ports
from app.config import Settings
from app.errors import BridgeError, ConfigError
from app.sources.duckdb import DuckDBConfig
from winsvc.bridge import settings_of
from winsvc.plan import SECRETS

#: the well-known groups that everybody is in: Everyone, Authenticated Users, Users
_EVERYBODY = {"S-1-1-0": "Everyone", "S-1-5-11": "Authenticated Users", "S-1-5-32-545": "Users"}


def problems(config: Path, running: bool = False) -> list[str]:
    """Every problem found. `running`: the service itself holds the ports."""
    found = [*interpreter(), *secrets(config.with_name(SECRETS))]
    try:
        settings = settings_of(config)
    except ConfigError as wrong:
        return [*found, *str(wrong).splitlines()]
    found += [*catalogue(settings), *folders(config.parent, settings)]
    return found if running else [*found, *ports(settings)]


def interpreter() -> Iterator[str]:
    """This Python can run a service."""
    if sys.platform != "win32":
        return
    if sys.maxsize < 2**32:
        yield "Python: this is a 32-bit one; the libraries need a 64-bit one"
    if importlib.util.find_spec("win32service") is None:
        yield r"pywin32: not installed; .venv\Scripts\pip install --require-hashes -r requirements\windows.lock"
    home = Path.home().resolve()
    if home in Path(sys.base_prefix).resolve().parents:
        yield f"Python: {sys.base_prefix} is one user's own, which a service's account cannot read; install it for all users"


def catalogue(settings: Settings) -> Iterator[str]:
    """The catalogue fits the configuration."""
    try:
        load_folder(settings.catalog_folder, settings.kinds)
    except ConfigError as wrong:
        yield from str(wrong).splitlines()


def ports(settings: Settings) -> Iterator[str]:
    """Nobody else has the ports; each is looked at, whatever the other is like."""
    for chosen in ("http", "agent"):
        left_out = {"port": None} if chosen == "http" else {"port": 0}
        other = "agent" if chosen == "http" else "http"
        part = getattr(settings, other).model_copy(update=left_out)
        try:
            refuse_taken_ports(settings.model_copy(update={other: part}))
        except BridgeError as taken:
            yield str(taken)


def folders(folder: Path, settings: Settings) -> Iterator[str]:
    """What has to be written can be, and what has to be read is there."""
    for kind, path in (("logs", Path("logs")), ("state", settings.state)):
        if path is not None and (why := _unwritable(folder / path)):
            yield f"{kind}: {folder / path} cannot be written: {why}"
    for name, source in settings.sources.items():
        if isinstance(source.connect, DuckDBConfig) and source.connect.enabled:
            snapshots = folder / source.connect.snapshots
            if not os.access(snapshots, os.R_OK):
                yield f"sources.{name}.connect.snapshots: {snapshots} is not there or cannot be read"


def _unwritable(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as problem:
        return str(problem.strerror)


def secrets(file: Path) -> Iterator[str]:
    """Only administrators and the service may read the secrets."""
    if not file.exists():
        return
    readers = _readers(file) if sys.platform == "win32" else _others(file)
    if readers:
        yield f"{file}: may be read by {', '.join(readers)}; it is for administrators and the service only"


def _others(file: Path) -> list[str]:
    return ["others than its owner"] if file.stat().st_mode & 0o077 else []


def _readers(file: Path) -> list[str]:
    # pywin32's: there is one on Windows only
    import ntsecuritycon
    import win32security

    described = win32security.GetNamedSecurityInfo(
        str(file), win32security.SE_FILE_OBJECT, win32security.DACL_SECURITY_INFORMATION
    )
    entries = described.GetSecurityDescriptorDacl()
    if entries is None:
        return ["everybody: it has no access list"]
    found = []
    for index in range(entries.GetAceCount()):
        (kind, _), mask, sid = entries.GetAce(index)
        group = _EVERYBODY.get(win32security.ConvertSidToStringSid(sid))
        if group and kind == win32security.ACCESS_ALLOWED_ACE_TYPE and mask & ntsecuritycon.FILE_READ_DATA:
            found.append(group)
    return found
