"""ARCHITECTURE.md lists every module once, and none that is not there."""

import re
from collections import Counter

from tests.house.checkout import ROOT, modules, read


def listed() -> list[str]:
    places = []
    for section in re.split(r"^### ", read("ARCHITECTURE.md"), flags=re.MULTILINE)[1:]:
        folder = re.match(r"`([\w/]+)/`", section)
        if folder:
            body = re.split(r"^## ", section, flags=re.MULTILINE)[0]
            places += [f"{folder[1]}/{name}" for name in re.findall(r"^\| `([\w.]+)` \|", body, re.MULTILINE)]
    return places


def test_every_module_is_listed_exactly_once():
    there = {path.relative_to(ROOT).as_posix() for path in modules() if path.name != "__init__.py"}
    counted = Counter(listed())
    assert {name for name, times in counted.items() if times > 1} == set()
    assert there - set(counted) == set()
    assert set(counted) - there == set()


def test_every_module_has_one_line_that_says_what_it_owns():
    rows = re.findall(r"^\| `[\w.]+\.py` \|(.*)\|(.*)\|$", read("ARCHITECTURE.md"), re.MULTILINE)
    assert len(rows) == len(listed())
    assert all(owns.strip() for owns, _ in rows)
