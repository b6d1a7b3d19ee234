"""YAML: whatever the bytes are, they are read in one way or refused with file and line; never a traceback, never a flood."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog import load
from app.config import read_settings
from app.documents.yaml_text import MOST_BYTES, parse_yaml, read_yaml
from app.errors import ConfigError


def refused(data: bytes) -> str:
    with pytest.raises(ConfigError) as wrong:
        parse_yaml(data, "f.yaml")
    [problem] = wrong.value.problems
    assert problem.file == "f.yaml"
    return str(problem).removeprefix("f.yaml: ")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[no, on, yes, off, y]", ["no", "on", "yes", "off", "y"]),
        ("[true, False]", [True, False]),
        ("[12:30:45, 190:20.5]", ["12:30:45", "190:20.5"]),
        ("[2026-01-31, 2026-01-31T12:00:00Z]", ["2026-01-31", "2026-01-31T12:00:00Z"]),
        ("[0x1F, 0o17, 0b1, 1_000]", ["0x1F", "0o17", "0b1", "1_000"]),
        ("[0, -5, 1.5, 1e3, -2.5E-1, .5]", [0, -5, 1.5, 1000.0, -0.25, 0.5]),
        ("[.inf, .nan, =]", [".inf", ".nan", "="]),
        ("[~, null, '']", [None, None, ""]),
        ("{1: a, on: b, ~: c}", {"1": "a", "on": "b", "~": "c"}),
        ("{a: &a {x: 1, y: 2}, b: {<<: *a, x: 3}}", {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}),
        ("\ufeffa: 1", {"a": 1}),
        ("", None),
    ],
)
def test_a_text_means_what_every_yaml_takes_it_for(text: str, value: object) -> None:
    assert parse_yaml(text.encode(), "f.yaml") == value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a: 010", "line 1, column 4: not YAML: '010': a number that begins with 0 is not the same in every YAML; write 10,"),
        (b"a: 1\na: 2", "line 2, column 1: not YAML: 'a' is defined twice"),
        (b"a:\n  b: {c: 1, c: 2}", "line 2, column 13: not YAML: 'c' is defined twice"),
        (b"? [a]\n: 1", "line 1, column 3: not YAML: a key must be a text, not a list or a mapping"),
        (b"a: " + b"9" * 5000, "line 1, column 4: not YAML: '9999"),
        (b"a: !!int " + b"9" * 5000, "line 1, column 4: not YAML: '9999"),
        (b"[" * 2000, "line 1, column 51: not YAML: nested deeper than 50 levels"),
        (b"- " * 2000, "line 1, column 101: not YAML: nested deeper than 50 levels"),
        (b"a: &x [*x]", "line 1, column 8: not YAML: 'x' contains itself"),
        (b"a: *b", "line 1, column 4: not YAML: found undefined alias 'b'"),
        (b"a: 1\n--- \nb: 2", "line 2, column 1: not YAML: but found another document"),
        (b"a:\n\tb: 1", "line 2, column 1: not YAML: found character '\\t' that cannot start any token"),
        (b"a: 1\nb: \xff", "line 2: not UTF-8 text"),
        ("a: 1".encode("utf-16"), "line 1: not UTF-8 text"),
        (b"a: 1\nb: \x01", "line 2: not YAML: a character that is not allowed in YAML"),
        (b'a: "\\UFFFFFFFF"', "not YAML: "),
        (b"%YAML " + b"9" * 5000 + b".1\n--- a", "not YAML: "),
        (
            b"a: !!python/object/apply:os.system [x]",
            "line 1, column 4: not YAML: tags are not allowed, found !!python/object/apply",
        ),
        (b"a: !secret x", "line 1, column 4: not YAML: tags are not allowed, found !secret"),
        (b"a: !!timestamp x", "line 1, column 4: not YAML: tags are not allowed, found !!timestamp"),
        (b"a: !!bool yes", "line 1, column 4: not YAML: 'yes': neither true nor false"),
        (b"a: !!map [1]", "line 1, column 4: not YAML: a mapping is expected here"),
        (b"a: {<<: 5}", "line 1, column 9: not YAML: expected a mapping or list of mappings"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused_with_its_line(data: bytes, said: str) -> None:
    assert refused(data).startswith(said)


@pytest.mark.parametrize("level", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_stand_for_billions_of_values_are_refused_at_once(level: str) -> None:
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {level.format(','.join([f'*a{n - 1}'] * 9))}" for n in range(1, 40))]
    begun_s = time.monotonic()
    assert "more than 100000 values, aliases counted each time" in refused("\n".join(lines).encode())
    assert time.monotonic() - begun_s < 5


def test_a_file_is_read_to_its_limit_and_no_further(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(ConfigError, match=f"f.yaml: is too long; at most {MOST_BYTES} bytes are read"):
        read_yaml(file, "f.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml: cannot be read: Is a directory"):
        read_yaml(tmp_path, "f.yaml")


_NAMES = "group title metrics labels events sources connect kind http port redis é"
_SIGNS = ": |- |\n|\n  |{|}|[|]|,|&a |*a|<<|!!int |!x |? |'|\"|>|%|---|#|1|010|~|\t|\\U|\\ud800"
_WORDS = st.sampled_from([*_NAMES.split(), *_SIGNS.split("|"), "|"])
_ANY = st.one_of(st.binary(max_size=200), st.lists(_WORDS, max_size=60).map(lambda words: "".join(words).encode()))


@given(_ANY)
def test_any_bytes_are_a_catalogue_or_a_configuration_problem(data: bytes) -> None:
    try:
        load({"f.yaml": data}, {})
    except ConfigError as wrong:
        assert [problem.file for problem in wrong.problems] == ["f.yaml"] * len(wrong.problems)  # noqa: PT017


@given(_ANY)
def test_any_bytes_are_a_configuration_or_a_configuration_problem(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    try:
        read_settings(file)
    except ConfigError as wrong:
        assert [problem.file for problem in wrong.problems] == [str(file)] * len(wrong.problems)  # noqa: PT017
