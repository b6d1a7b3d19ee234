from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_item_of_the_checklist_has_a_test_or_a_reason() -> None:
    names = re.findall(r"def test((?:_\d\d)+)_", "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py")))
    tested = {int(number) for name in names for number in name.strip("_").split("_")}
    excused = {
        int(number) for number in re.findall(r"^\| (\d+) \|", (HERE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert (sorted(set(range(1, 83)) - tested - excused), sorted(tested & excused)) == ([], [])
