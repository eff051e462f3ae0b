"""A folder that nothing leads out of: every path is inside it, or refused with a word that helps.

A name is resolved first, so that links which stay inside work; then it is opened from the root, part by part, never
following a link. Whoever swaps a part for a link between the two is refused by the system, not by a check that came
too early.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from midstream.agents.tools.context import ToolError

IGNORED: Final = frozenset(
    {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".tox", ".midstream"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis"}
)
"""Folders that are neither listed nor searched: large, and made by programs. `.midstream` is where runs are kept."""

MAX_FILE_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a file that is read whole: more than a person would edit by hand."""

_SNIFFED: Final = 8_192
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not to be held up by a pipe that nobody writes to.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


Kind = Literal["file", "folder", "link", "other"]


class Folder:
    """`root` is the real path. All methods block, and raise `ToolError` with a text for the model."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root.resolve(strict=True)
        if not self.root.is_dir():
            raise NotADirectoryError(f"{self.root} is no folder")

    def inside(self, path: str) -> Path:
        """The real place of a path (it may not exist), relative to the root. Raises `ToolError`."""
        if "\0" in path:
            raise ToolError("A path cannot hold a NUL character.")
        given = Path(path or ".")
        if given.is_absolute() or ".." in given.parts:
            raise ToolError(f"{path} is outside of the workspace: give a path relative to it, without `..`.")
        try:
            real = (self.root / given).resolve()
            return real.relative_to(self.root)
        except ValueError:
            raise ToolError(f"{path} leads out of the workspace.") from None
        except (OSError, RuntimeError) as error:
            raise ToolError(f"{path} cannot be used: {_why(error)}.") from error

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        place = self.inside(path)
        with self._parent(place, path) as parent, _said(path):
            if not place.parts:
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            with open(os.open(place.name, _READ, dir_fd=parent), "rb") as file:  # noqa: PTH123 - from a descriptor
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode):
                    raise ToolError(f"{path} is no ordinary file.")
                if about.st_size > MAX_FILE_BYTES:
                    raise ToolError(f"{path} has {about.st_size:,} bytes; {MAX_FILE_BYTES:,} can be read.")
                return file.read(MAX_FILE_BYTES)

    def exists(self, path: str) -> bool:
        place = self.inside(path)
        return os.path.lexists(self.root / place)

    def write(self, path: str, data: bytes) -> None:
        """Replace or make a file, whole or not at all. A file that is replaced keeps its mode."""
        place = self.inside(path)
        if not place.parts:
            raise ToolError(f"{path} is a folder.")
        with self._parent(place, path, make=True) as parent, _said(path):
            mode = 0o644
            with contextlib.suppress(FileNotFoundError):
                about = os.stat(place.name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISREG(about.st_mode):
                    raise ToolError(f"{path} is no ordinary file.")
                mode = stat.S_IMODE(about.st_mode)
            # Without the name: it may be as long as a name can be already.
            draft = f".{secrets.token_hex(8)}.tmp"
            with open(os.open(draft, _CREATE, 0o600, dir_fd=parent), "wb") as file:  # noqa: PTH123
                try:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), mode)
                    os.replace(draft, place.name, src_dir_fd=parent, dst_dir_fd=parent)
                except BaseException:
                    os.unlink(draft, dir_fd=parent)
                    raise

    def walk(self, path: str, *, depth: int) -> Iterator[tuple[Path, Kind]]:
        """What lies below a folder, `depth` levels down, in order, without following links. `IGNORED` is left out."""
        place = self.inside(path)
        with self._opened(place, path) as at, _said(path):
            entries = _entries(at)
        yield from self._below(place, entries, depth)

    def _below(self, place: Path, entries: list[tuple[str, Kind]], depth: int) -> Iterator[tuple[Path, Kind]]:
        for name, kind in entries:
            if name in IGNORED:
                continue
            below = place / name
            yield below, kind
            if depth > 1 and kind == "folder":
                try:
                    # From the root again: none of it may have become a link meanwhile, nor stay open while others are.
                    with self._opened(below, name) as at, _said(name):
                        found = _entries(at)
                except ToolError:
                    # Gone meanwhile, or not ours to read: it is then not part of the list.
                    continue
                yield from self._below(below, found, depth - 1)

    @contextlib.contextmanager
    def _opened(self, place: Path, path: str) -> Iterator[int]:
        """That folder."""
        with self._parent(place, path) as parent:
            with _said(path):
                at = os.open(place.name or ".", _DIRECTORY, dir_fd=parent)
            try:
                yield at
            finally:
                os.close(at)

    @contextlib.contextmanager
    def _parent(self, place: Path, path: str, *, make: bool = False) -> Iterator[int]:
        """The folder that holds `place`, opened from the root part by part."""
        with contextlib.ExitStack() as stack:
            with _said(path):
                at = os.open(self.root, _DIRECTORY)
                stack.callback(os.close, at)
                for part in place.parts[:-1]:
                    if make:
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(part, dir_fd=at)
                    at = os.open(part, _DIRECTORY, dir_fd=at)
                    stack.callback(os.close, at)
            yield at


def _entries(at: int) -> list[tuple[str, Kind]]:
    with os.scandir(at) as found:
        return sorted((entry.name, _kind(entry)) for entry in found)


def _kind(entry: os.DirEntry[str]) -> Kind:
    try:
        if entry.is_symlink():
            return "link"
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        return "other"


def as_text(data: bytes, path: str) -> str:
    """A text file's text, with its own line ends. Raises `ToolError` for what is no text."""
    if b"\0" in data[:_SNIFFED]:
        raise ToolError(f"{path} is a binary file.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path} is no UTF-8 text.") from error


def lines_of(text: str) -> list[str]:
    """Its lines with their ends, as editors count them: `splitlines` also ends one at a form feed and the like."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


@contextlib.contextmanager
def _said(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ToolError(f"{path}: {_why(error)}.") from error


def _why(error: OSError | RuntimeError) -> str:
    if not isinstance(error, OSError):
        return "its links go round in a circle"
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return "it became a link that leads elsewhere"
    return (error.strerror or type(error).__name__).lower()
