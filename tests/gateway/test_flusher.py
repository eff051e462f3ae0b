"""Who is asked to write when: once a turn, the new before the long, and together when there is load."""

import asyncio
import logging

import pytest
import structlog

from midstream.gateway.flusher import BUSY_WRITES, WINDOW_S, Flusher

pytestmark = pytest.mark.asyncio


class Out:
    """Writes its number into `written`; `pieces` times in all."""

    def __init__(self, number: int, written: list[int], *, pieces: int = 1, error: Exception | None = None) -> None:
        self.wrote_in = 0
        self.number = number
        self.written = written
        self.pieces = pieces
        self.error = error
        self.failed = False

    def flush(self) -> bool:
        if self.error is not None:
            raise self.error
        self.written.append(self.number)
        self.pieces -= 1
        return self.pieces > 0

    def fail(self) -> None:
        self.failed = True


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nothing_is_written_before_the_turn_and_then_all_once_in_order() -> None:
    flusher, written = Flusher(), []
    outs = [Out(number, written) for number in range(5)]
    for out in outs:
        flusher.mark(out)
    assert written == []
    await turns(1)
    assert written == [0, 1, 2, 3, 4]
    await turns(3)
    assert written == [0, 1, 2, 3, 4]


async def test_who_has_more_has_one_piece_a_turn_and_the_new_go_first() -> None:
    flusher, written = Flusher(), []
    flusher.mark(Out(1, written, pieces=3))
    flusher.mark(Out(2, written, pieces=3))
    await turns(1)
    assert written == [1, 2]
    flusher.mark(Out(9, written))
    await turns(1)
    assert written == [1, 2, 9, 1, 2]
    await turns(1)
    assert written == [1, 2, 9, 1, 2, 1, 2]


async def test_a_long_turn_is_cut_and_neither_the_new_nor_the_long_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every look at the clock is beyond the turn's time.
    monkeypatch.setattr("midstream.gateway.flusher.TURN_S", -1.0)
    flusher, written = Flusher(), []
    for number in range(3):
        flusher.mark(Out(number, written, pieces=2))
    await turns(1)
    assert written == [0]
    # One of the new and one of the long at least in each turn.
    await turns(1)
    assert written == [0, 1, 0]
    await turns(2)
    assert sorted(written) == [0, 0, 1, 1, 2, 2]


async def test_one_that_fails_is_ended_and_the_others_are_written(caplog: pytest.LogCaptureFixture) -> None:
    flusher, written = Flusher(), []
    bad = Out(1, written, error=ValueError("broken"))
    for out in (Out(0, written), bad, Out(2, written)):
        flusher.mark(out)
    with structlog.testing.capture_logs() as logs, caplog.at_level(logging.ERROR):
        await turns(1)
    assert written == [0, 2]
    assert bad.failed
    assert [line["log_level"] for line in logs] == ["error"]


async def test_with_little_to_do_nobody_waits() -> None:
    flusher, written = Flusher(), []
    out = Out(1, written, pieces=BUSY_WRITES * 2)
    for count in range(1, BUSY_WRITES):
        flusher.mark(out)
        out.pieces = 1
        await turns(1)
        assert len(written) == count


async def test_under_load_who_wrote_waits_for_the_next_window_and_who_did_not_goes_at_once() -> None:
    flusher, written = Flusher(), []
    crowd = [Out(number, written) for number in range(BUSY_WRITES + 10)]
    for out in crowd:
        flusher.mark(out)
    await turns(1)
    assert len(written) == len(crowd)
    written.clear()
    late = crowd[-1]
    late.pieces = 1
    flusher.mark(late)
    flusher.mark(Out(99, written))
    await turns(1)
    assert written == [99]
    await asyncio.sleep(WINDOW_S * 5)
    assert written == [99, late.number]


async def test_marking_from_within_a_flush_is_another_turn() -> None:
    flusher, written = Flusher(), []
    second = Out(2, written)

    class First(Out):
        def flush(self) -> bool:
            flusher.mark(second)
            return super().flush()

    flusher.mark(First(1, written))
    await turns(1)
    assert written == [1]
    await turns(1)
    assert written == [1, 2]
