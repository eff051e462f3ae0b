"""The program in a real terminal (a pty), and a real server to talk to: each a process of its own."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from typer.testing import CliRunner

from midstream.cli.program import app as program

APP = Path(__file__).parent / "app"
PROGRAM = [sys.executable, "-m", "midstream.cli"]
PATIENCE_S = 20.0
"""For a process to say what it must say: far more than it takes, so that only a defect reaches it."""

# Makes the pty the controlling terminal, so that its Ctrl-C is a signal. Not pty.fork: forking a process that has
# threads, as a test runner has, is warned about since Python 3.12.
_OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIDSTREAM_", "ANTHROPIC_"))}
    return kept | {"TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"} | more


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Served:
    """`midstream serve desk:app`, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, script: str, *, target: str | None = "desk:app", **variables: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._variables = variables
        self._target = [target] if target is not None else []
        self._script = folder / "script.yaml"
        self._script.write_text(script)
        self._process: subprocess.Popen[str] | None = None
        self.said = ""

    def start(self) -> "Served":
        self._process = subprocess.Popen(
            [
                *PROGRAM, "serve", *self._target, "--port", str(self.port),
                "--store", f"sqlite:///{self.folder}/runs.db", "--model", f"scripted:{self._script}",
                "--workspace", str(self.folder),
            ],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(APP), **self._variables),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        while "listens on" not in self.said:
            line = self._process.stderr.readline()
            assert line, f"the server did not start: {self.said}"
            self.said += line
        return self

    def end(self, number: int = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.communicate(timeout=PATIENCE_S)
        self.said = ""


class Terminal:
    """The program at a terminal. `screen` is all that was printed, without control codes."""

    def __init__(self, *arguments: str, folder: Path, **variables: str) -> None:
        self._fd, tty = pty.openpty()
        fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *PROGRAM, *arguments],
            cwd=folder,
            env=environment(**variables),
            stdin=tty,
            stdout=tty,
            stderr=tty,
            start_new_session=True,
        )
        os.close(tty)
        self.raw = b""

    @property
    def screen(self) -> str:
        return _ESCAPES.sub("", self.raw.decode(errors="replace"))

    def expect(self, text: str) -> "Terminal":
        """Read until `text` was printed (anywhere, since the start)."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            assert time.monotonic() < deadline, f"{text!r} never came; the screen:\n{self.screen}"
            if not self._read():
                assert text in self.screen, f"it ended without {text!r}; the screen:\n{self.screen}"
        return self

    def expect_twice(self, text: str) -> "Terminal":
        while self.screen.count(text) < 2:
            assert self._read(), f"it ended without a second {text!r}; the screen:\n{self.screen}"
        return self

    def read(self) -> "Terminal":
        """What has been printed by now."""
        self._read()
        return self

    def type(self, line: str) -> "Terminal":
        os.write(self._fd, f"{line}\n".encode())
        return self

    def press(self, key: str) -> "Terminal":
        """`C` for Ctrl-C, and so on."""
        os.write(self._fd, bytes([ord(key) - 64]))
        return self

    def wait(self) -> int:
        """Its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, f"it did not end; the screen:\n{self.screen}"
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def _read(self) -> bool:
        readable, _, _ = select.select([self._fd], [], [], 0.2)
        if not readable:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            # Linux says EIO when the last process has closed the terminal.
            return False
        self.raw += data
        return bool(data)


def call(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """The program without a terminal, in this process: what a second process would answer, without its start."""
    cleared: dict[str, str | None] = dict.fromkeys((name for name in os.environ if name.startswith("MIDSTREAM_")), None)
    result = CliRunner(env=cleared | variables).invoke(program, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(list(arguments), result.exit_code, result.stdout, result.stderr)


def run(*arguments: str, folder: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """The program without a terminal, as a process."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
