"""Lists everything that would keep the bridge's service from running."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.catalog import survey_folder
from app.cli.serve import refuse_taken_ports
from app.config import Settings, shipped_catalogue, survey_settings
from app.errors import BridgeError
from app.sources.duckdb.source import DuckDBConfig
from winsvc.plan import SECRETS

#: the well-known groups of which every user is a member
_EVERYBODY = {"S-1-1-0": "Everyone", "S-1-5-11": "Authenticated Users", "S-1-5-32-545": "Users"}


def find_problems(config: Path, running: bool = False) -> list[str]:
    """Every problem. `running`: the service itself has the ports."""
    found = [*interpreter_problems(), *secrets_problems(config.with_name(SECRETS))]
    file = config.with_name(SECRETS)
    configured = survey_settings(config, file if file.exists() else None)
    catalogue = survey_folder(configured.catalog or shipped_catalogue(), configured.kinds)
    found += map(str, [*configured.problems, *catalogue.problems])
    if configured.settings is None:
        return found
    found += folder_problems(config.parent, configured.settings)
    return found if running else [*found, *port_problems(configured.settings)]


def interpreter_problems() -> Iterator[str]:
    """Why this Python cannot run a service."""
    if sys.platform != "win32":
        return
    if sys.maxsize < 2**32:
        yield "Python: this is a 32-bit one; the libraries need a 64-bit one"
    if importlib.util.find_spec("win32service") is None:
        yield r"pywin32: not installed; .venv\Scripts\pip install --require-hashes -r requirements\windows.lock"
    home = Path.home().resolve()
    if home in Path(sys.base_prefix).resolve().parents:
        yield f"Python: {sys.base_prefix} is one user's own, which a service's account cannot read; install it for all users"


def port_problems(settings: Settings) -> Iterator[str]:
    """Ports that another program has. Each port is checked, even if the other is taken."""
    for chosen in ("http", "agent"):
        left_out = {"port": None} if chosen == "http" else {"port": 0}
        other = "agent" if chosen == "http" else "http"
        part = getattr(settings, other).model_copy(update=left_out)
        try:
            refuse_taken_ports(settings.model_copy(update={other: part}))
        except BridgeError as taken:
            yield str(taken)


def folder_problems(folder: Path, settings: Settings) -> Iterator[str]:
    """Folders that cannot be written to, or read."""
    for kind, path in (("logs", Path("logs")), ("state", settings.state)):
        if path is not None and (why := _write_problem(folder / path)):
            yield f"{kind}: {folder / path} cannot be written: {why}"
    for name, source in settings.sources.items():
        if isinstance(source.connect, DuckDBConfig) and source.connect.enabled:
            snapshots = folder / source.connect.snapshots
            if not os.access(snapshots, os.R_OK):
                yield f"sources.{name}.connect.snapshots: {snapshots} is not there or cannot be read"


def _write_problem(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as problem:
        return str(problem.strerror)


def secrets_problems(file: Path) -> Iterator[str]:
    """A problem if others than administrators and the service may read the secrets."""
    if not file.exists():
        return
    readers = _group_readers(file) if sys.platform == "win32" else _other_readers(file)
    if readers:
        yield f"{file}: may be read by {', '.join(readers)}; it is for administrators and the service only"


def _other_readers(file: Path) -> list[str]:
    return ["others than its owner"] if file.stat().st_mode & 0o077 else []


def _group_readers(file: Path) -> list[str]:
    # pywin32 is on Windows only
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
