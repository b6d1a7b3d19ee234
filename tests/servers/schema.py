"""Grafana's own schema package (@grafana/schema) and the TypeScript compiler: whether a dashboard's JSON is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.grafana import FOLDER

_TYPES = FOLDER / "node_modules" / "@grafana" / "schema" / "dist" / "types"
_COMPILER = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"


def complaints(dashboards: Mapping[str, str], folder: Path, v2: bool = False) -> str:
    """What the compiler says of texts that claim to be dashboards (in schema `v2`, or else in the classic one), by name; nothing
    when all are. `folder` is scratch."""
    kind, module = ("DashboardResource", "dashboard_v2") if v2 else ("DashboardFile", "dashboard")
    node = shutil.which("node")
    if node is None or not _COMPILER.exists() or not _TYPES.is_dir():
        raise RuntimeError("node or tests/node/node_modules is missing; `make test` installs both")
    for name, text in dashboards.items():
        code = f'import type {{ {kind} }} from "{module}";\nexport const found: {kind} = {text};\n'
        (folder / f"{name}.ts").write_text(code, encoding="utf-8")
    paths = {
        "dashboard": [str(FOLDER / "dashboard.ts")],
        "dashboard_v2": [str(FOLDER / "dashboard_v2.ts")],
        "@grafana/schema/v2beta1": [str(_TYPES / "schema" / "dashboard" / "v2beta1" / "types.spec.gen.d.ts")],
        "@grafana/schema": [str(_TYPES / "index.d.ts")],
        "@grafana/schema/raw/*": [str(_TYPES / "raw" / "composable" / "*" / "panelcfg" / "x" / "types.gen.d.ts")],
    }
    options = {
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "types": [],
        "lib": ["es2022", "dom"],
        "module": "esnext",
        "moduleResolution": "bundler",
        "paths": paths,
    }
    settings = {"compilerOptions": options, "files": [f"{name}.ts" for name in dashboards]}
    (folder / "tsconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [node, str(_COMPILER), "-p", ".", "--pretty", "false"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if done.returncode == 0:
        return ""
    assert done.stdout, f"the compiler itself failed: {done.stderr}"
    return done.stdout
