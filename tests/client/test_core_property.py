"""Whatever the network does, each event comes once, in order, and each command happens once."""

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.client.actions import Answer, Deliver, Detached, Drop, Failed, Send
from midstream.client.core import ClientCore
from midstream.client.updates import Received
from midstream_protocol.commands import Command, RunCorrect, RunStart
from tests.client.server_model import Server

# What moves the world on is drawn more often than what disturbs it, or nothing would ever get far.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 6)),
        st.tuples(st.just("deliver"), st.integers(1, 6)),
        st.tuples(st.just("upload"), st.integers(1, 3)),
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(
            st.sampled_from(["cut", "lose frame", "lose frame", "repeat", "repeat", "correct", "reread"]),
            st.just(1),
        ),
    ),
    min_size=5,
    max_size=60,
)


class World:
    """A core and a server, with a network between them that does what the schedule says."""

    def __init__(self, *, by_start: bool) -> None:
        ids = count(1)
        self.core = ClientCore(new_id=lambda: f"own_{next(ids)}", fraction=lambda: 0.5)
        self.server = Server()
        self.server.append()
        self.uplink: list[bytes] = []
        self.seen: list[int] = []
        self.texts: list[str] = []
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.over = 0
        self.last: bytes | None = None
        self.open()
        self.step("deliver", 1)
        if by_start:
            self.command(RunStart(input="go"), run_id=None)
        else:
            self.do(self.core.attach("run_1"))
        self.step("upload", 1)
        self.step("deliver", 3)

    def open(self) -> None:
        self.server.connect()
        self.uplink.clear()
        self.last = None
        self.do(self.core.opened(now=0))

    def cut(self) -> None:
        self.do(self.core.closed(1006, "", now=0))
        self.open()

    def command(self, payload, run_id) -> None:
        command_id = f"cmd_{len(self.asked)}"
        self.asked.append(command_id)
        self.do(self.core.command(Command(type=payload.TYPE, command_id=command_id, payload=payload, run_id=run_id)))

    def do(self, actions) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self.uplink.append(data)
                case Deliver(_, Received(event=event)) if event.seq <= len(self.seen):
                    pass
                case Deliver(_, Received(event=event, text=text)):
                    self.seen.append(event.seq)
                    self.texts.append(text)
                case Answer(command_id):
                    self.answered.append(command_id)
                case Detached(_, error):
                    assert error is None
                    self.over += 1
                case Drop():
                    self.cut()
                    return
                case Failed(error):
                    raise error

    def step(self, what: str, times: int) -> None:
        match what:
            case "deliver":
                for _ in range(times):
                    if self.server.out:
                        self.last = self.server.out.pop(0)
                        self.do(self.core.received(self.last, now=0))
            case "upload":
                for _ in range(times):
                    if self.uplink:
                        self.server.receive(self.uplink.pop(0))
            case "cut":
                self.cut()
            case "lose frame" if (
                self.server.out and b'"seq"' in self.server.out[0] and b"caught_up" not in self.server.out[0]
            ):
                self.server.out.pop(0)
            case "repeat" if self.last is not None and b'"seq"' in self.last:
                self.do(self.core.received(self.last, now=0))
            case "append" if not self.server.ended:
                for _ in range(times):
                    self.server.append()
            case "correct":
                self.command(RunCorrect(text="x"), "run_1")
            case "reread" if "run_1" in self.core.runs:
                # From somewhere before: what comes again is passed over by place, as a reader does.
                self.do(self.core.reread("run_1", since_seq=len(self.seen) // 2, epoch=None))

    def finish(self) -> None:
        if not self.server.ended:
            self.server.append(last=True)
        # A lost last frame shows only at the next connection or heartbeat; the model has no heartbeats.
        self.cut()
        for _ in range(200):
            if not (self.uplink or self.server.out):
                break
            self.step("upload", 100)
            self.step("deliver", 1000)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, by_start=st.booleans())
def test_any_schedule_gives_the_same_events_once_each(steps, by_start):
    world = World(by_start=by_start)
    for what, times in steps:
        world.step(what, times)
        assert world.seen == list(range(1, len(world.seen) + 1))
    world.finish()
    assert [text.encode() for text in world.texts] == world.server.log
    assert world.over == 1
    assert world.server.performed == world.asked
    assert sorted(world.answered) == sorted(world.asked)
