"""One run at a terminal, with a run that does what the test says."""

import asyncio
import io

import pytest

from midstream.cli.following import Following
from midstream.cli.terminal import Terminal
from midstream.client import Disconnected, Received
from midstream_protocol.errors import AlreadyResolved
from midstream_protocol.frames import Receipt, RunAttached, RunCaughtUp
from tests.cli.test_render import approval, events

pytestmark = pytest.mark.asyncio


class FakeRun:
    """Commands wait until the test answers them; updates come when the test gives them."""

    run_id = "run_1"

    def __init__(self) -> None:
        self.asked = []
        self.answers: list[asyncio.Future] = []

    def __getattr__(self, name):
        async def command(*args, **options):
            self.asked.append((name, *args, options))
            answer = asyncio.get_running_loop().create_future()
            self.answers.append(answer)
            return await answer

        return command


class FakeStage:
    url = "http://test"

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.following = None

    def note(self, text, style="dim"):
        del style
        self.notes.append(text)

    def ask_again(self):
        self.following.ask_again()


class Tty(io.StringIO):
    def isatty(self):
        return True


class Desk:
    def __init__(self, **options) -> None:
        self.run = FakeRun()
        self.stage = FakeStage()
        self.out = Tty()
        self.left = False
        chosen = {"person": True, "yes": False, "json": False, "quiet": False, "own_input": True, "starts_anew": False}
        self.terminal = Terminal(self.out, io.StringIO())
        self.following = self.stage.following = Following(
            self.run, self.terminal, self.stage, leave=self._leave, **(chosen | options)
        )

    def _leave(self):
        self.left = True

    def give(self, *payloads, live=True):
        attached = RunAttached(
            command_id="c",
            run_id="run_1",
            thread_id="t",
            epoch="e",
            head_seq=0,
            first_seq=1,
            status="running",
            can=[],
            pending=[],
        )
        self.following._show(attached)
        for event in events(*payloads):
            self.following._show(Received(event=event, text=""))
        if live:
            self.following._show(RunCaughtUp(run_id="run_1", seq=len(payloads)))

    def typed(self, line):
        self.terminal.typed()
        self.following.typed(line)

    def prompts(self) -> int:
        return self.out.getvalue().count("approve?")


async def turn():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_nothing_is_asked_before_the_replay_is_over():
    desk = Desk()
    desk.give(approval(), live=False)
    assert desk.prompts() == 0
    desk.following._show(RunCaughtUp(run_id="run_1", seq=1))
    assert desk.prompts() == 1


async def test_what_was_seen_is_what_is_approved():
    desk = Desk()
    desk.give(approval())
    desk.typed("y")
    await turn()
    assert desk.run.asked == [("approve", "ap_1", {"args": None, "args_digest": "d", "remember": None})]
    assert desk.prompts() == 1


async def test_a_refused_answer_is_explained_and_asked_for_again():
    desk = Desk()
    desk.give(approval())
    desk.typed("n")
    await turn()
    desk.run.answers[0].set_exception(AlreadyResolved("taken", resolution={"decision": "approved", "by": "ann"}))
    await turn()
    assert desk.stage.notes == ["it was answered already: approved by ann"]
    assert desk.prompts() == 2


async def test_the_next_question_is_asked_while_an_answer_is_on_its_way():
    desk = Desk()
    desk.give(approval(), approval(approval_id="ap_2"))
    desk.typed("y")
    assert desk.prompts() == 2
    desk.typed("y")
    await turn()
    assert [each[1] for each in desk.run.asked] == ["ap_1", "ap_2"]


async def test_for_this_run_only_where_it_is_offered():
    desk = Desk()
    desk.give(approval(remember_scopes=[]))
    desk.typed("a")
    await turn()
    assert desk.run.asked == []
    assert desk.prompts() == 2


async def test_yes_approves_loudly_and_does_not_ask():
    desk = Desk(yes=True)
    desk.give(approval())
    await turn()
    assert desk.run.asked[0][:2] == ("approve", "ap_1")
    assert desk.prompts() == 0
    assert "!! APPROVED WITHOUT ASKING" in desk.out.getvalue()


async def test_ctrl_c_cancels_forces_and_then_there_is_nothing_harder():
    desk = Desk()
    desk.give()
    assert desk.following.interrupted() is False
    assert desk.following.interrupted() is False
    await turn()
    assert [each[0] for each in desk.run.asked] == ["cancel", "cancel"]
    assert desk.following.interrupted() is True
    screen = desk.out.getvalue()
    assert "cancelling; Ctrl-C again to force" in screen
    assert screen.index("cancelling;") < screen.index("forcing;")


async def test_commands_do_not_wait_for_each_other():
    desk = Desk()
    desk.give()
    for line in ("be brief", "!now", "/idle later", "/after enough", "/revoke", "/quit"):
        desk.typed(line)
    await turn()
    assert [each[0] for each in desk.run.asked] == ["correct", "correct", "correct", "cancel"]
    assert desk.stage.notes == ["there is no correction to take back"]
    assert desk.left


async def test_what_was_typed_last_is_sent_and_what_is_not_confirmed_is_said():
    desk = Desk()
    desk.give()
    desk.typed("be brief")
    ending = asyncio.create_task(desk.following.end())
    await turn()
    assert desk.run.asked[0][:2] == ("correct", "be brief")
    desk.run.answers[0].set_result(Receipt(command_id="c", status="accepted"))
    await ending
    assert desk.stage.notes == []


async def test_a_lost_connection_is_one_line():
    desk = Desk()
    desk.give()
    desk.typed("be brief")
    await turn()
    desk.run.answers[0].set_exception(Disconnected(4503, "not yours"))
    await turn()
    assert desk.stage.notes == ["the server at http://test ended the connection: not yours"]
