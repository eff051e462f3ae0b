"""A real nginx in front of a server, with what Debian's package sets and nothing that would make it easier."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.testkit.programs import needed

START_S = 10.0

_CONF = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    sendfile on;
    tcp_nopush on;
    gzip on;
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
{location}
        }}
    }}
}}
"""

UPGRADE = """
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
"""
"""What WebSockets need."""


@contextlib.asynccontextmanager
async def nginx(folder: Path, *, upstream: str, location: str = "") -> AsyncIterator[str]:
    """Its URL. `location` are further directives for what is passed on."""
    program = needed("nginx", package="nginx-light")
    conf, port = _configured(folder, upstream=upstream, location=location)
    running = await asyncio.create_subprocess_exec(
        program, "-p", str(folder), "-c", str(conf), "-e", str(folder / "start.log"), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(START_S):
            while not await _listens(port):
                assert running.returncode is None, (await running.communicate())[1]
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        await running.communicate()


def _configured(folder: Path, **asked: str) -> tuple[Path, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder.mkdir()
    conf = folder / "nginx.conf"
    # Its workers would otherwise be somebody who may not look into this folder.
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(_CONF.format(folder=folder, port=port, user=user, **asked))
    return conf, port


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
