"""However iterations begin, lag and overtake one another, each gets every event once, and the view never goes back."""

import asyncio
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.client import reader as reader_module
from midstream.client.run import Run
from midstream.client.updates import Received
from midstream.clock import SystemClock
from midstream_protocol.codec import decode_frame
from midstream_protocol.frames import RunAttached, RunCaughtUp, RunReset
from midstream_protocol.view import fold_all, view_to_builtins
from tests.client.server_model import TERMINAL, USAGE, attached, caught_up, event, frame

SMALL = 5
"""Updates kept for a slow reader, here."""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("stream"), st.integers(1, 9)),
        st.tuples(st.just("stream"), st.integers(1, 9)),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["begin", "leave"]), st.integers(0, 3)),
    ),
    max_size=60,
)


class Stage:
    """A log, one stream of it that can be set back, and a run with its readers."""

    client_id = "me"

    def __init__(self, length: int, since_seq: int) -> None:
        self.tasks = set()
        self.log = [event(seq) for seq in range(1, length)]
        self.log.append(event(length, TERMINAL, result=None, usage=USAGE, digest="d"))
        self.out: list[bytes] = []
        self.rereads = 0
        self.run = Run("run_1", self, clock=SystemClock(), since_seq=since_seq, epoch=None)
        self._attach(0)
        if since_seq > 0:
            # As the client does it: first the whole as a snapshot.
            head = (since_seq + length) // 2
            whole = fold_all(decode_frame(data) for data in self.log[:head])
            snapshot = {"snapshot": view_to_builtins(whole), "snapshot_seq": head}
            reset = frame("run.reset", run_id="run_1", reason="requested", epoch="e1", **snapshot)
            self.out = [attached("a", head=length), reset, *self.log[head:], caught_up(length)]
        self.seen: list[list[int]] = []
        self.readers = []

    def _attach(self, since: int) -> None:
        self.out = [attached("a", head=len(self.log)), *self.log[since:], caught_up(len(self.log))]

    def reread(self, run, *, since_seq, epoch) -> None:
        self.rereads += 1
        assert self.rereads < 10_000
        self._attach(since_seq)

    def passed(self, *_args, **_options) -> None:
        pass

    def stream(self, times: int) -> None:
        for data in self.out[:times]:
            before = self.run.view.cursor.seq
            said = decode_frame(data)
            payload = said.payload
            update = (
                payload
                if isinstance(payload, RunAttached | RunCaughtUp | RunReset)
                else Received(event=said, text=data.decode())
            )
            self.run.put(update)
            assert self.run.view.cursor.seq >= before
            if (isinstance(update, Received) and update.event.type == TERMINAL) or self._over(update):
                self.run.end(None)
        del self.out[:times]

    def _over(self, update) -> bool:
        return isinstance(update, RunCaughtUp) and self.run.ended

    async def read(self, which: int, times: int = 4) -> None:
        if not self.readers:
            return
        reader, seen = self.readers[which % len(self.readers)], self.seen[which % len(self.readers)]
        for _ in range(times):
            taking = asyncio.ensure_future(anext(reader, None))
            await asyncio.sleep(0)
            if not taking.done():
                taking.cancel()
                await asyncio.sleep(0)
                return
            update = taking.result()
            if isinstance(update, Received):
                seen.append(update.event.seq)

    def begin(self) -> None:
        self.readers.append(self.run.updates())
        self.seen.append([])


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 40), since=st.integers(0, 6), steps=STEPS)
def test_every_reader_gets_all_once(length, since, steps):
    since = min(since, length)

    async def play():
        stage = Stage(length, since)
        for what, number in steps:
            match what:
                case "stream":
                    stage.stream(number)
                case "read":
                    await stage.read(number)
                case "begin":
                    stage.begin()
                case "leave" if len(stage.readers) > 1:
                    del stage.readers[0], stage.seen[0]
            for seen in stage.seen:
                assert seen == list(range(since + 1, since + 1 + len(seen)))
            assert all(len(each._unread) <= SMALL + 2 * (1 + stage.rereads) for each in stage.run._readers)
        stage.begin()
        for _ in range(60 + 3 * length * len(stage.readers)):
            stage.stream(SMALL)
            for which in range(len(stage.readers)):
                await stage.read(which)
        assert stage.run.view.status == "completed"
        assert stage.run.view.cursor.seq == length
        for seen in stage.seen:
            assert seen == list(range(since + 1, length + 1))

    with patch.object(reader_module, "MAX_UNREAD", SMALL):
        asyncio.run(play())
