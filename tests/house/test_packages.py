"""The packages that need Node: pinned, without runtime dependencies where that is promised, and found by make."""

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.house.checkout import ROOT, read

PACKAGES = sorted(path.parent for path in [*ROOT.glob("clients/*/package.json"), *ROOT.glob("examples/*/package.json")])
DEPENDENCIES = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")


def manifest(folder: Path, name: str = "package.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_what_is_installed_is_pinned_and_is_what_the_package_asks_for(folder: Path):
    asked, lock = manifest(folder), manifest(folder, "package-lock.json")
    root = lock["packages"][""]
    assert {name: root.get(name, {}) for name in DEPENDENCIES} == {name: asked.get(name, {}) for name in DEPENDENCIES}
    fetched = {
        place: each
        for place, each in lock["packages"].items()
        # What comes with another package, and the folders of this checkout, are not fetched.
        if place.startswith("node_modules/") and not each.get("link") and not each.get("inBundle")
    }
    assert fetched or not any(asked.get(name) for name in DEPENDENCIES)
    assert [place for place, each in fetched.items() if "integrity" not in each] == []
    # Where a package is fetched from is the installing machine's to say.
    assert [place for place, each in fetched.items() if "resolved" in each] == []


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_each_has_a_suite_and_the_licence_of_the_whole(folder: Path):
    package = manifest(folder)
    assert package.get("scripts", {}).get("test"), "make test runs `npm test` in each package"
    assert package.get("license") == "Apache-2.0"


def test_the_client_is_of_the_servers_version_and_needs_nothing_at_run_time():
    package = manifest(ROOT / "clients" / "js")
    assert package["version"] == tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert not package.get("dependencies")
    assert not package.get("optionalDependencies")
    # Whoever does not use React need not have it.
    assert all(package["peerDependenciesMeta"][name]["optional"] for name in package.get("peerDependencies", {}))


def test_nothing_that_is_installed_or_built_is_committed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    built = ("node_modules/", "server/midstream/console/", "clients/js/dist/", "artefacts/")
    assert [name for name in listed.stdout.splitlines() if any(part in f"{name}/" for part in built)] == []
