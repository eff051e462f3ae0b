"""A chat that is asked like Slack's: two methods, one channel, and no more than one call a second.

`python examples/chat_forwarder/chat_server.py` prints what its channel shows. Tests use it as well.
"""

import math
import time
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CHANNEL: Final = "C1"
TOKEN: Final = "xoxb-example"  # noqa: S105 - nobody's
PORT: Final = 8490


class ChatServer:
    """`shown`: what each message says. `calls`: when each that was taken came. `refused`: how many were too many."""

    def __init__(
        self,
        *,
        interval_s: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.shown: dict[str, str] = {}
        self.calls: list[float] = []
        self.refused = 0
        self._interval_s = interval_s
        self._now = now
        self._changed = changed
        routes = [Route(f"/api/{name}", self._method, methods=["POST"]) for name in ("chat.postMessage", "chat.update")]
        self.app = Starlette(routes=routes)

    async def _method(self, request: Request) -> Response:
        now = self._now()
        early = self._interval_s - (now - self.calls[-1]) if self.calls else 0.0
        if early > 0:
            self.refused += 1
            headers = {"retry-after": str(math.ceil(early))}
            return JSONResponse({"ok": False, "error": "ratelimited"}, status_code=429, headers=headers)
        self.calls.append(now)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"ok": False, "error": "invalid_auth"})
        return JSONResponse(self._said(request.url.path.rpartition("/")[2], await request.json()))

    def _said(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("channel") != CHANNEL:
            return {"ok": False, "error": "channel_not_found"}
        ts = f"1700000000.{len(self.shown):06}" if method == "chat.postMessage" else fields.get("ts", "")
        if method == "chat.update" and ts not in self.shown:
            return {"ok": False, "error": "message_not_found"}
        self.shown[ts] = fields["text"]
        self._changed(fields["text"])
        return {"ok": True, "channel": CHANNEL, "ts": ts, "text": fields["text"]}


def main() -> None:
    server = ChatServer(changed=lambda text: print(f"{text}\n{'-' * 40}", flush=True))
    print(f"A chat on http://127.0.0.1:{PORT}/api, channel {CHANNEL}")
    uvicorn.run(server.app, port=PORT, log_level="warning")


if __name__ == "__main__":
    main()
