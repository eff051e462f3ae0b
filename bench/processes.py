"""What the benchmarks share: servers as processes, each on a core; numbers with their spread; the machine."""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
START_LIMIT_S: Final = 30.0
SERVER_CORE: Final = 0
CLIENT_CORE: Final = 1


def pinned(command: Sequence[str], core: int) -> list[str]:
    """`command` on one core, where there are two and the system can do that."""
    if (os.cpu_count() or 1) < 2 or not hasattr(os, "sched_setaffinity"):
        return [sys.executable, *command]
    program = f"import os, runpy, sys; os.sched_setaffinity(0, {{{core}}}); sys.path.insert(0, {str(HERE)!r}); "
    program += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return [sys.executable, "-c", program, *command]


@contextmanager
def serving(program: str, *arguments: str, core: int = SERVER_CORE) -> Iterator[tuple[int, int]]:
    """A program of this folder that tells its port: its process id and port."""
    command = [str(HERE / program), *arguments]
    process = subprocess.Popen(pinned(command, core), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            sys.exit(f"the server {' '.join([program, *arguments])!r} did not start")
        yield process.pid, int(line)
    finally:
        process.terminate()
        try:
            process.wait(timeout=START_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def machine() -> str:
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "starlette", "websockets", "msgspec"))
    try:
        loop = f"uvloop {version('uvloop')}"
    except ModuleNotFoundError:
        loop = "asyncio's own loop"
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}, {loop}, {packages}; loopback, server and client each on a core."
    )
