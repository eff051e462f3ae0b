"""Programs of the benchmark as processes: each on a core, ended by its id, and what the system says of them."""

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Self, TypeVar

import msgspec

HERE: Final = Path(__file__).parent
START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 20.0
SERVER_CORE: Final = 0
CLIENT_CORE: Final = 1

SAID_BYTES: Final = 3000

T = TypeVar("T")


class Failed(Exception):
    """A program of the benchmark did not do its work. The notes say what its server said."""


class Server(msgspec.Struct, kw_only=True, frozen=True):
    """A server that listens: its process id and port."""

    pid: int
    port: int


def pin(core: int) -> None:
    """This process, on one core, where there are two and the system can do that."""
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def pinned(command: Sequence[str], core: int, *, python: str = sys.executable) -> list[str]:
    """A Python program of this folder, on one core."""
    if (os.cpu_count() or 1) < 2 or not hasattr(os, "sched_setaffinity"):
        return [python, *command]
    # Children of a program that starts others (LangGraph's) stay on the core too.
    program = f"import os, runpy, sys; os.sched_setaffinity(0, {{{core}}}); sys.path.insert(0, {str(HERE)!r}); "
    program += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return [python, "-c", program, *command]


def environment(**more: str) -> dict[str, str]:
    """That of a program: nothing of the surroundings may change what is measured."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MIDSTREAM_", "ANTHROPIC_")) and not name.lower().endswith("_proxy")
    }
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **more}


@contextmanager
def serving(
    program: str, *arguments: str, core: int = SERVER_CORE, python: str = sys.executable, abrupt: bool = False
) -> Iterator[Server]:
    """A program of this folder that tells its port on its first line. `abrupt`: killed at the end."""
    command = pinned([str(HERE / program), *arguments], core, python=python)
    # What it says goes to a file: a pipe that nobody empties would stop it, and a terminal would slow it.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment())
        try:
            yield Server(pid=process.pid, port=_told_port(process))
        except Exception as error:
            error.add_note(f"the server {' '.join([program, *arguments])!r} said:\n{_end_of(said)}")
            raise
        finally:
            ended(process, abrupt=abrupt)


def _told_port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line.isdigit():
        raise Failed("the server did not start")
    return int(line)


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - SAID_BYTES))
    return file.read().decode(errors="replace") or "nothing"


def ended(process: "subprocess.Popen[Any]", *, abrupt: bool = False) -> None:
    (process.kill if abrupt else process.terminate)()
    try:
        process.wait(timeout=STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def asked(program: str, order: Any, kind: type[T], *, limit_s: float) -> T:
    """What a client program found: it is given its order as JSON, and prints JSON of `kind`."""
    command = pinned([str(HERE / program), msgspec.json.encode(order).decode()], CLIENT_CORE)
    done = subprocess.run(command, capture_output=True, check=False, timeout=limit_s, env=environment())
    if done.returncode:
        raise Failed(f"{program} failed: {done.stderr[-SAID_BYTES:].decode(errors='replace')}")
    return msgspec.json.decode(done.stdout, type=kind)


class Beside:
    """A client program that goes on until it is told to stop. It is there when it has said its first line."""

    def __init__(self, program: str, order: Any) -> None:
        command = pinned([str(HERE / program), msgspec.json.encode(order).decode()], CLIENT_CORE)
        self._program = program
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        if not self.said:
            ended(self._process, abrupt=True)
            raise Failed(f"{self._program} did not get ready")
        return self

    def __exit__(self, *_: object) -> None:
        ended(self._process)

    def tell(self, what: Any) -> None:
        """One line of JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(what).decode() + "\n")
        self._process.stdin.flush()

    def finish(self, kind: type[T]) -> T:
        """Tell it to stop (its stdin ends); the line it says then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        line = self._process.stdout.readline()
        if not line.strip():
            raise Failed(f"{self._program} ended without a word")
        return msgspec.json.decode(line, type=kind)


# -- what the system says of a process


def processor_s(pid: int) -> float:
    """User and system time of a process so far; 0 where the system does not tell.

    Its threads' run time in nanoseconds where there is such a thing: the usual count has steps of 10 ms.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9
    except (OSError, IndexError, ValueError):
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """`VmRSS`: resident now; `VmHWM`: the most so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def settled_mb(pid: int, *, limit_s: float) -> float:
    """Resident memory once it stays within a part in two hundred for a second; the server is asked to tidy up first."""
    until = time.monotonic() + limit_s
    before = 0.0
    while True:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGUSR1)
        time.sleep(1.0)
        now = memory_mb(pid)
        if abs(now - before) <= now / 200 or time.monotonic() > until:
            return now
        before = now


def tidy_on_signal() -> None:
    """For servers: on SIGUSR1 collect garbage and give freed memory back, so that what is resident is in use."""

    def tidy(*_: Any) -> None:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)

    signal.signal(signal.SIGUSR1, tidy)
