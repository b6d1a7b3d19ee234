"""Puts a real Windows CPython together, with the bridge's Windows dependencies, from Debian and PyPI alone; wine runs it.

`python -m tests.winsvc.wine.tree` (make does it) writes `.wine/python` and `.wine/prefix`. What is downloaded is pinned by
hash. The standard library is this Python's own: it is the same on Windows, where it is pure.

Wine 8 lacks three things that today's wheels want; small DLLs made here have them (the .c files beside this one say what).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
WINE = ROOT / ".wine"
PYTHON = WINE / "python"
PREFIX = WINE / "prefix"
#: the machine's registry as it was when new, without any service of ours
PRISTINE = WINE / "system.reg"
#: no desktop, no browser engine, no .NET: nobody is asked for anything
ENVIRONMENT = {"WINEPREFIX": str(PREFIX), "WINEARCH": "win64", "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=d"}

_VERSIONS = ((3, 11), (3, 12), (3, 13))
_DLLS = re.compile(r"python3\d+\.dll|vcruntime140(_1)?\.dll", re.I)
# without _wmi Python asks nobody what machine this is; wine crashes when it is asked
_EXTENSIONS = re.compile(r"(?!_test|_tkinter|_wmi)\w+\.pyd|lib(crypto|ssl|ffi)[-\w]*\.dll|sqlite3\.dll", re.I)
_NOT_NEEDED = ("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib-dynload")
_CC, _OBJDUMP = "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-objdump"

#: numpy's parts that call complex functions, what they take them from, and from what they shall (a name that is not longer)
_COMPLEX_USERS = ("_core/_multiarray_umath", "linalg/_umath_linalg")
_UCRT, _OURS = b"api-ms-win-crt-math-l1-1-0.dll", b"ucrt_math_for_wine.dll"
_COMPLEX = re.compile(r"c(real|imag|abs|arg|exp|log|sqrt|pow)[fl]?|c(sin|cos|tan)h?[fl]?")


def build() -> None:
    """Build the tree anew, whole or not at all."""
    if sys.version_info[:2] not in _VERSIONS:
        raise SystemExit(f"Windows DLLs can be had for Python 3.11, 3.12 and 3.13, not for {sys.version.split()[0]}")
    shutil.rmtree(WINE, ignore_errors=True)
    new = WINE / "new"
    new.mkdir(parents=True)
    _interpreter(new)
    _standard_library(new / "Lib")
    _wheels(new / "Lib" / "site-packages")
    _complex_functions(new)
    new.rename(PYTHON)
    _prefix()
    (WINE / "tree.stamp").touch()


def _pip(command: str, *arguments: str) -> None:
    version = "".join(map(str, sys.version_info[:2]))
    platform = ("--platform", "win_amd64", "--python-version", version, "--implementation", "cp", "--only-binary=:all:")
    quiet = ("-q", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    _run(sys.executable, "-m", "pip", command, *quiet, *platform, *arguments)


def _run(*command: str | Path) -> str:
    environment = {**os.environ, **ENVIRONMENT, "PIP_ROOT_USER_ACTION": "ignore"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return done.stdout


def _interpreter(root: Path) -> None:
    _pip("download", "-d", str(WINE / "wheels"), "-r", str(HERE / "python.lock"))
    (root / "DLLs").mkdir()
    with zipfile.ZipFile(next((WINE / "wheels").glob("panda3d-*.whl"))) as wheel:
        for name in wheel.namelist():
            folder, _, file = name.rpartition("/")
            if folder == "deploy_libs" and (_DLLS.fullmatch(file) or _EXTENSIONS.fullmatch(file)):
                (root / file if _DLLS.fullmatch(file) else root / "DLLs" / file).write_bytes(wheel.read(name))
    shutil.rmtree(WINE / "wheels")
    python_dll = next(root.glob("python3*.dll"))
    _run(_CC, "-municode", "-o", root / "python.exe", HERE / "python_exe.c", python_dll)
    _stable_interface(root, python_dll)
    _run(_CC, "-shared", "-o", root / "bcryptprimitives.dll", HERE / "bcryptprimitives.c", "-ladvapi32")


def _stable_interface(root: Path, python_dll: Path) -> None:
    """python3.dll, which wheels for any version of Python import: everything that this version's DLL has, passed on."""
    exported = re.findall(r"^\s*\[ *\d+\] (?:\+base\[ *\d+\] +\w+ )?(_?Py\w+)$", _run(_OBJDUMP, "-p", python_dll), re.M)
    _library(root / "python3.dll", [f"{name} = {python_dll.stem}.{name}" for name in exported])


def _library(file: Path, exports: list[str], *sources: str | Path) -> None:
    definitions = WINE / f"{file.stem}.def"
    definitions.write_text("\n".join(("EXPORTS", *exports, "")))
    _run(_CC, "-O1", "-shared", "-static-libgcc", "-fno-builtin", "-o", file, *sources, definitions)


def _standard_library(folder: Path) -> None:
    skip = shutil.ignore_patterns(*_NOT_NEEDED, "__pycache__", "config-*", "*.so")
    shutil.copytree(sysconfig.get_path("stdlib"), folder, ignore=skip)


def _wheels(folder: Path) -> None:
    _pip("install", "--no-compile", "--target", str(folder), "-r", str(ROOT / "requirements" / "windows.lock"))


def _complex_functions(root: Path) -> None:
    users = [next((root / "Lib" / "site-packages" / "numpy").glob(f"{name}.*.pyd")) for name in _COMPLEX_USERS]
    names = sorted({name for user in users for name in _imports(user, _UCRT.decode())})
    exports = [f"{name} = {'shim_' if _COMPLEX.fullmatch(name) else 'ucrtbase.'}{name}" for name in names]
    _library(root / _OURS.decode(), exports, HERE / "ucrt_math.c")
    for user in users:
        content = user.read_bytes()
        assert content.count(_UCRT) == 1, f"{user} names {_UCRT.decode()} {content.count(_UCRT)} times"
        user.write_bytes(content.replace(_UCRT, _OURS.ljust(len(_UCRT), b"\0")))


def _imports(library: Path, dll: str) -> list[str]:
    """The functions that a library takes from a DLL."""
    tables = _run(_OBJDUMP, "-p", library).split("DLL Name: ")[1:]
    lines = next(table for table in tables if table.startswith(dll)).splitlines()[2:]
    named = [line.split() for line in lines]
    return [parts[2] for parts in named if len(parts) == 3]


def _prefix() -> None:
    _run("wineboot", "-i")
    _run("wine", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")
    _run("wineserver", "-w")
    shutil.copy(PREFIX / "system.reg", PRISTINE)


if __name__ == "__main__":
    build()
