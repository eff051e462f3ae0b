"""A server in a few lines, as the protocol page describes one: pure, so that a schedule decides what gets through."""

from typing import Any

import msgspec

TERMINAL = "run.completed"
USAGE = {"input_tokens": 1, "output_tokens": 1, "cached_input_tokens": 0, "total_tokens": 2, "by_model": {}}


def frame(type_: str, **payload: Any) -> bytes:
    return msgspec.json.encode({"v": 1, "type": type_, "payload": payload})


def event(seq: int, type_: str = "message.delta", run_id: str = "run_1", **payload: Any) -> bytes:
    body = payload or {"message_id": "msg_1", "text": f"{seq} "}
    return msgspec.json.encode(
        {"v": 1, "seq": seq, "run_id": run_id, "type": type_, "ts": "2026-01-01T00:00:00.000Z", "payload": body}
    )


def ready(*, heartbeat_s: float = 10, in_flight: int = 64) -> bytes:
    return frame(
        "connection.ready",
        connection_id="conn_1",
        client_id="client_1",
        server="midstream/0",
        now="2026-01-01T00:00:00.000Z",
        heartbeat_s=heartbeat_s,
        principal={"id": "p", "name": "p"},
        limits={
            "max_frame_bytes": 1 << 20,
            "max_input_bytes": 1 << 18,
            "max_tool_result_bytes": 1 << 19,
            "max_runs": 100,
            "commands_in_flight": in_flight,
            "command_memory_s": 3600,
        },
    )


def attached(
    command_id: str, *, run_id: str = "run_1", head: int = 0, status: str = "running", epoch: str = "e1"
) -> bytes:
    return frame(
        "run.attached",
        command_id=command_id,
        run_id=run_id,
        thread_id="thread_1",
        epoch=epoch,
        head_seq=head,
        first_seq=1,
        status=status,
        can=["correct", "cancel"],
        pending=[],
    )


def receipt(command_id: str, status: str = "accepted", **more: Any) -> bytes:
    return frame("receipt", command_id=command_id, status=status, **more)


def caught_up(seq: int, run_id: str = "run_1") -> bytes:
    return frame("run.caught_up", run_id=run_id, seq=seq)


class Server:
    """Durable: `log`, `receipts`, `performed`. Of a connection: what it will write, and whom it follows."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.receipts: dict[str, bytes] = {}
        self.performed: list[str] = []
        self.out: list[bytes] = []
        self.following = False

    def append(self, *, last: bool = False) -> None:
        seq = len(self.log) + 1
        if last:
            self.log.append(event(seq, TERMINAL, result=None, usage=USAGE, digest="d"))
        else:
            self.log.append(event(seq))
        if self.following:
            self.out.append(self.log[-1])

    @property
    def ended(self) -> bool:
        return bool(self.log) and TERMINAL.encode() in self.log[-1]

    def connect(self) -> None:
        self.out = [ready()]
        self.following = False

    def receive(self, data: bytes) -> None:
        command = msgspec.json.decode(data)
        command_id, kind = command["command_id"], command["type"]
        if kind == "run.detach":
            self.following = False
            self.out.append(receipt(command_id, run_id="run_1"))
        elif kind == "run.attach":
            self.out.append(receipt(command_id, run_id="run_1"))
            self._attach(command_id, command["payload"].get("since_seq", 0))
        else:
            if command_id not in self.receipts:
                self.performed.append(command_id)
                self.receipts[command_id] = receipt(command_id, run_id="run_1", at_seq=len(self.log))
            self.out.append(self.receipts[command_id])
            if kind == "run.start":
                self._attach(command_id, 0)

    def _attach(self, command_id: str, since: int) -> None:
        # What waited to be written for the attachment before is dropped or not, as it happens: here it is not.
        status = "completed" if self.ended else "running"
        self.out += [
            attached(command_id, head=len(self.log), status=status),
            *self.log[since:],
            caught_up(len(self.log)),
        ]
        self.following = not self.ended
