"""`bridge init`: write a first configuration, for an installation without the repository."""

from __future__ import annotations

import json
from pathlib import Path

from app.cli.output import print_lines
from app.config import DEFAULT_FILE, Settings, sample_file
from app.errors import BadQuery

_CATALOG = "catalog"


def init(folder: Path, catalog: bool) -> int:
    """Write the sample into a folder, with `catalog` a copy of the catalogue too. Existing files are never overwritten."""
    file = folder / sample_file().name
    texts = {file: sample_file().read_text(encoding="utf-8")}
    if catalog:
        texts[file] += _catalog_setting((folder / _CATALOG).absolute())
        shipped = sorted(Settings.model_construct().catalog_folder.glob("*.yaml"))
        texts |= {folder / _CATALOG / one.name: one.read_text(encoding="utf-8") for one in shipped}
    _write_new(texts)
    option = "" if file == Path(DEFAULT_FILE) else f" --config {file}"
    print_lines(
        *(f"written: {one}" for one in texts),
        "",
        f"Write your stores' addresses into {file} (passwords into the environment), then:",
        f"  bridge check --connect{option}",
        f"  bridge serve{option}",
    )
    return 0


def _catalog_setting(catalog: Path) -> str:
    why = "The copy beside this file, to be changed; without this line the catalogue that comes with the bridge is used."
    return f"\n# {why}\ncatalog: {json.dumps(str(catalog))}\n"


def _write_new(texts: dict[Path, str]) -> None:
    """Write the files. Raises BadQuery if one exists, before any is written, or if one cannot be written."""
    existing = [file for file in texts if file.exists() or file.is_symlink()]
    if existing:
        raise BadQuery(f"{existing[0]} exists and is left as it is; name another folder: bridge init FOLDER")
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as output:
                output.write(text)
    except OSError as problem:
        raise BadQuery(f"{problem.filename}: {problem.strerror}; name another folder: bridge init FOLDER") from problem
