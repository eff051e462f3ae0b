"""What a browser is given: the console at `/`, the protocol's page at `/docs`, and their parts. Static files of one
folder, without a token: there is nothing secret in them, and what they show they ask for with the person's own.
"""

import gzip
import hashlib
import re
from pathlib import Path
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from midstream.gateway.answers import Json, matches
from midstream_protocol.errors import NotFound

CONSOLE: Final = Path(__file__).parent.parent / "console"
"""Where `make console`, and the building of a wheel, put the files."""

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, in nobody's frame; text of a model becomes markup through one policy only."""

_SAME_ORIGIN: Final = {"cross-origin-resource-policy": "same-origin", "referrer-policy": "no-referrer"}

_PAGE_HEADERS: Final = {
    **_SAME_ORIGIN,
    "content-security-policy": _CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    # Run ids stand behind the #, which is never sent; this is for who puts something into a query all the same.
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}

_FOR_EVER: Final = "public, max-age=31536000, immutable"
"""For names with a hash of the content in them: another content has another name."""

_ASK_AGAIN: Final = "no-cache"
"""Kept, and asked about each time: a page must not name parts that an upgrade took away."""

_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""Our own list: the system's knows other types on other systems."""

_PACKED: Final = frozenset({".png", ".woff2"})
"""Compressed as they are."""

_BESIDE: Final = ("favicon.svg", "manifest.webmanifest")
"""Files that stand beside the pages; everything else is under assets/."""

_ASSET: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

_NOT_BUILT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<title>Midstream</title>
<h1>The console is not built</h1>
<p>The server runs, and its API answers: only this page is missing. In a checkout, <code>make console</code> builds it
(it needs Node 20.19 or newer, or a package index to fetch one from); then load this page again. An installed wheel
without it was built with <code>MIDSTREAM_WITHOUT_CONSOLE=1</code>.</p>
<p>Meanwhile <code>midstream chat</code> does the same in a terminal.</p>
</html>
"""


class _File(Struct, frozen=True):
    version: tuple[int, int]
    """Time of change and size: a console that was built anew is seen without a restart."""
    body: bytes
    compressed: bytes | None
    etag: str
    media_type: str


class Pages:
    """The files of `folder` as routes. They are held in memory: together less than a few runs take."""

    def __init__(self, folder: Path = CONSOLE, *, server: str) -> None:
        """`server` is how the server names itself."""
        self._folder = folder
        self._server = server
        self._files: dict[str, _File] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/", self._index, methods=["GET"]),
            Route("/docs", self._docs, methods=["GET"]),
            Route("/docs/", _without_slash, methods=["GET"]),
            Route("/assets/{name}", self._asset, methods=["GET"]),
            *(Route(f"/{name}", self._beside, methods=["GET"]) for name in _BESIDE),
        ]

    async def _index(self, request: Request) -> Response:
        # Who asks for JSON is a program that was given the bare address; a browser asks for HTML, curl for anything.
        accept = request.headers.get("accept", "")
        if "application/json" in accept and "text/html" not in accept:
            return Json(self._directory(request), headers={"vary": "accept"})
        return self._page(request, "index.html")

    async def _docs(self, request: Request) -> Response:
        return self._page(request, "docs.html")

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        file = self._read(f"assets/{name}") if _ASSET.fullmatch(name) else None
        if file is None:
            raise NotFound("there is no such file; load the page again: the server may be a newer one than it is")
        return _answer(request, file, {**_SAME_ORIGIN, "cache-control": _FOR_EVER})

    async def _beside(self, request: Request) -> Response:
        file = self._read(request.url.path.rpartition("/")[2])
        if file is None:
            raise NotFound("there is no such file")
        return _answer(request, file, {**_SAME_ORIGIN, "cache-control": _ASK_AGAIN})

    def _page(self, request: Request, name: str) -> Response:
        headers = _PAGE_HEADERS | {"vary": "accept, accept-encoding"}
        file = self._read(name)
        if file is None:
            # 404: whoever looks at the status alone should not take this for the console.
            return Response(_NOT_BUILT, status_code=404, media_type="text/html", headers=headers)
        return _answer(request, file, headers | {"cache-control": _ASK_AGAIN})

    def _directory(self, request: Request) -> dict[str, object]:
        root = request.scope.get("root_path", "")
        names = ("ws", "runs", "agents", "feed", "schema", "asyncapi")
        links = {name: f"{root}/v1/{name}" for name in names}
        return {"server": self._server, "links": {**links, "console": f"{root}/", "docs": f"{root}/docs"}}

    def _read(self, name: str) -> _File | None:
        path = self._folder / name
        try:
            found = path.stat()
            version = (found.st_mtime_ns, found.st_size)
            file = self._files.get(name)
            if file is None or file.version != version:
                file = self._files[name] = _loaded(path, version)
        except OSError:
            return None
        return file


def is_built(folder: Path = CONSOLE) -> bool:
    """Whether there is a console to be shown."""
    return (folder / "index.html").is_file()


def _loaded(path: Path, version: tuple[int, int]) -> _File:
    body = path.read_bytes()
    return _File(
        version=version,
        body=body,
        # Once for all requests: there is nothing secret in it whose length could tell (BREACH), and a phone on a
        # mobile network waits for a third of the bytes. Not at build time, which would double what a wheel carries.
        compressed=None if path.suffix in _PACKED else gzip.compress(body, mtime=0),
        # Of the content: an installer may give every file of every version the same time.
        etag=f'W/"{hashlib.sha256(body).hexdigest()[:20]}"',
        media_type=_TYPES.get(path.suffix, "application/octet-stream"),
    )


async def _without_slash(_request: Request) -> Response:
    # The page finds its parts beside it, so it has one address; relative, because of prefixes.
    return Response(status_code=308, headers={"location": "../docs"})


def _answer(request: Request, file: _File, headers: dict[str, str]) -> Response:
    headers = {"vary": "accept-encoding", "etag": file.etag, **headers}
    if matches(request.headers.get("if-none-match"), file.etag):
        return Response(status_code=304, headers=headers)
    if file.compressed is not None and _takes_gzip(request):
        headers["content-encoding"] = "gzip"
        return Response(file.compressed, media_type=file.media_type, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


def _takes_gzip(request: Request) -> bool:
    for offered in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = offered.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
