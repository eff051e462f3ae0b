"""A screen that nobody sees, for windows: an X server of its own, and pictures of it.

with virtual_screen() as display:
    root = tkinter.Tk(screenName=display)
"""

import os
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.testkit.programs import needed

SIZE: Final = (1024, 768)
STOP_TIMEOUT_S: Final = 10.0
"""A busy machine stops it slowly."""

_CONTENTS: Final = "Xvfb_screen0"


class Screen:
    def __init__(self, display: str, folder: Path) -> None:
        self.display = display
        self._folder = folder

    def shot(self, path: Path) -> None:
        """What is on it now, as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png((self._folder / _CONTENTS).read_bytes()))


@contextmanager
def virtual_screen() -> Iterator[Screen]:
    program = needed("Xvfb", package="xvfb")
    width, height = SIZE
    with TemporaryDirectory() as folder:
        read, write = os.pipe()
        options = (
            "-displayfd",
            str(write),
            "-screen",
            "0",
            f"{width}x{height}x24",
            "-fbdir",
            folder,
            "-nolisten",
            "tcp",
        )
        process = subprocess.Popen(
            [program, *options],
            pass_fds=(write,),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        try:
            with os.fdopen(read) as told:
                number = told.readline().strip()
            assert number, f"Xvfb ended with {process.wait()} before it had a screen"
            yield Screen(f":{number}", Path(folder))
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _png(xwd: bytes) -> bytes:
    """Of the X window dump that the server keeps: 32 bits a pixel, blue first."""
    header = struct.unpack(">25I", xwd[:100])
    header_size, width, height, line_bytes, colours = header[0], header[4], header[5], header[12], header[19]
    start = header_size + colours * 12
    rows = bytearray()
    for row in range(height):
        line = xwd[start + row * line_bytes :][: width * 4]
        rows += b"\0"
        pixels = bytearray(width * 3)
        pixels[0::3], pixels[1::3], pixels[2::3] = line[2::4], line[1::4], line[0::4]
        rows += pixels

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    )
