"""Connections that are held, until stdin ends: `python bench/clients/holding.py ORDER`. It says when all are there.

Each is attached to a run. Some read nothing more after that, some a byte a second.
"""

import contextlib
import select
import socket
import sys
from typing import Final

import msgspec
from clients.dialects import SALT, masked, websocket_request
from msgspec import Struct

LIMIT_S: Final = 30.0
SMALL_BUFFER: Final = 2048


class Hold(Struct, kw_only=True, frozen=True):
    """`runs`: attached to one after the other. `bytes_s` 0: nothing is read after the attach."""

    port: int
    runs: list[str]
    connections: int
    bytes_s: int = 0


class Held(Struct, kw_only=True, frozen=True):
    """How many the server closed, and what a slow one read."""

    closed: int
    read: int


def until(connection: socket.socket, mark: bytes) -> None:
    came = b""
    while mark not in came:
        # Not a byte more than needed: what is not read is the server's to hold.
        more = connection.recv(512)
        if not more or b'"rejected"' in came:
            raise ConnectionError(came[-400:].decode(errors="replace"))
        came += more


def opened(hold: Hold, number: int) -> socket.socket:
    connection = socket.socket()
    if hold.bytes_s:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    connection.settimeout(LIMIT_S)
    connection.connect(("127.0.0.1", hold.port))
    connection.sendall(websocket_request(f"/v1/ws?client_id=held{number}", hold.port))
    until(connection, b'"connection.ready"')
    run_id = hold.runs[number % len(hold.runs)]
    attach = f'"type":"run.attach","command_id":"{SALT}-{number}","run_id":"{run_id}","payload":{{}}'
    connection.sendall(masked(f'{{"v":1,{attach}}}'))
    until(connection, b'"run.attached"' if hold.bytes_s else b'"run.caught_up"')
    return connection


def main() -> None:
    hold = msgspec.json.decode(sys.argv[1], type=Hold)
    connections = [opened(hold, number) for number in range(hold.connections)]
    print("ready", flush=True)
    closed = read = 0
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        for connection in [*connections] if hold.bytes_s else []:
            with contextlib.suppress(BlockingIOError, TimeoutError):
                try:
                    got = connection.recv(hold.bytes_s, socket.MSG_DONTWAIT)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        continue
                    got = b""
                read += len(got)
                if not got:
                    closed += 1
                    connections.remove(connection)
    print(msgspec.json.encode(Held(closed=closed, read=read)).decode(), flush=True)


if __name__ == "__main__":
    main()
