"""One version, told in the changelog, and a public surface that changes only on purpose."""

import importlib
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.house.checkout import read

PUBLIC = Path(__file__).parent / "public_names.txt"


def test_the_changelog_knows_this_version():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    told = re.findall(r"^## (\d+\.\d+\.\d+)\b", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert told[0] == project["version"] == version("midstream")
    assert told == sorted(told, key=lambda each: tuple(map(int, each.split("."))), reverse=True)


@pytest.mark.parametrize("module", ["midstream", "midstream.client", "midstream.testing"])
def test_the_public_names_are_these(module):
    pinned = dict(line.split(": ", 1) for line in PUBLIC.read_text(encoding="utf-8").splitlines())
    found = importlib.import_module(module)
    names = found.__all__ if hasattr(found, "__all__") else public(found)
    assert " ".join(sorted(names)) == pinned[module]
    assert all(hasattr(found, name) for name in names)


def public(module) -> list[str]:
    """What a module without `__all__` defines itself, in lower or CamelCase."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
