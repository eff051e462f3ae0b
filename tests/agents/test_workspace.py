"""The built-in copilot: nothing leads out of its folder, nothing is changed unseen, nothing is left running."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream import ToolError, workspace_agent
from midstream.agents.workspace import command, files
from midstream.agents.workspace.edit import difference
from midstream.agents.workspace.files import MAX_ENTRIES, looking_tools
from midstream.agents.workspace.folder import Folder, lines_of
from midstream.tasks import spawn
from midstream.testing import call
from tests.agents.kit import acting, check_log, eventually


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "work"
    place.mkdir()
    (tmp_path / "secret.txt").write_text("top secret")
    (place / "a.txt").write_text("one\ntwo\nthree\n")
    (place / "src").mkdir()
    (place / "src" / "main.py").write_text("print('Hello')\n")
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("Hello")
    # Where the server itself keeps its runs, by default in the folder that the copilot is for.
    (place / ".midstream").mkdir()
    (place / ".midstream" / "midstream.db").write_text("Hello")
    (place / "bin.dat").write_bytes(b"\0\1Hello")
    return place


@pytest.fixture
def look(root):
    return {tool.name: tool for tool in looking_tools(Folder(root))}


class TestPaths:
    @pytest.mark.parametrize(
        "path", ["../secret.txt", "/etc/passwd", "src/../../secret.txt", "src/../a.txt", "a\0b", "..", "/"]
    )
    def test_paths_that_lead_out_are_refused(self, look, path):
        for name in ("read_file", "list_files"):
            with pytest.raises(ToolError):
                look[name](path)

    @pytest.mark.parametrize("target", ["../secret.txt", "{tmp}/secret.txt", ".."])
    def test_links_that_lead_out_are_refused(self, root, look, target, tmp_path):
        (root / "link").symlink_to(target.format(tmp=tmp_path))
        for path in ("link", "link/secret.txt"):
            with pytest.raises(ToolError):
                look["read_file"](path)
            with pytest.raises(ToolError):
                Folder(root).write(path, b"x")
        assert (tmp_path / "secret.txt").read_text() == "top secret"
        assert "top secret" not in look["search_text"]("secret")

    def test_links_that_stay_inside_work(self, root, look):
        (root / "link").symlink_to("src/main.py")
        assert look["read_file"]("link") == "print('Hello')\n"

    def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(self, root, tmp_path, monkeypatch):
        folder = Folder(root)
        inside = folder.inside

        def swapped(path):
            place = inside(path)
            (root / "src" / "main.py").unlink()
            (root / "src").rmdir()
            (root / "src").symlink_to(tmp_path)
            return place

        monkeypatch.setattr(folder, "inside", swapped)
        (tmp_path / "main.py").write_text("outside")
        with pytest.raises(ToolError):
            folder.read("src/main.py")

    def test_a_listed_folder_that_becomes_a_link_meanwhile_is_not_followed(self, root, tmp_path):
        (tmp_path / "private").touch()
        seen = []
        for place, _ in Folder(root).walk(".", depth=6):
            seen.append(place.as_posix())
            if seen[-1] == "src":
                (root / "src" / "main.py").unlink()
                (root / "src").rmdir()
                (root / "src").symlink_to(tmp_path)
        assert seen == ["a.txt", "bin.dat", "src"]

    def test_names_that_are_no_utf_8(self, root, look):
        (root / "src" / os.fsdecode(b"\xff.txt")).write_text("Hello")
        assert "main.py" in look["list_files"]("src")
        assert "Hello" in look["search_text"]("hello", "src")

    def test_links_that_go_round(self, root, look):
        (root / "x").symlink_to("y")
        (root / "y").symlink_to("x")
        with pytest.raises(ToolError):
            look["read_file"]("x")

    def test_a_pipe_is_no_file(self, root, look):
        os.mkfifo(root / "pipe")
        with pytest.raises(ToolError, match="no ordinary file"):
            look["read_file"]("pipe")
        with pytest.raises(ToolError, match="no ordinary file"):
            Folder(root).write("pipe", b"x")


class TestLooking:
    def test_lists(self, look):
        assert look["list_files"]().splitlines() == ["a.txt", "bin.dat", "src/", "src/main.py"]
        assert look["list_files"](depth=1).splitlines() == ["a.txt", "bin.dat", "src/"]
        assert look["list_files"]("src") == "src/main.py"

    def test_a_long_list_is_cut(self, root, look):
        for n in range(MAX_ENTRIES + 10):
            (root / "src" / f"{n:04}").touch()
        lines = look["list_files"]("src").splitlines()
        assert len(lines) == MAX_ENTRIES + 1
        assert "there is more" in lines[-1]

    def test_reads(self, look):
        assert look["read_file"]("a.txt") == "one\ntwo\nthree\n"
        assert look["read_file"]("a.txt", first_line=2, lines=1) == "two\n\n[lines 2 to 2 of 3]"
        for path, says in [("bin.dat", "binary"), ("gone", "no such file"), ("src", "folder|directory")]:
            with pytest.raises(ToolError, match=says):
                look["read_file"](path)
        with pytest.raises(ToolError, match="3 lines"):
            look["read_file"]("a.txt", first_line=9)

    def test_a_long_file_is_cut(self, root, look):
        (root / "long").write_text("x" * 100_000)
        assert len(look["read_file"]("long")) < 30_000
        (root / "many").write_text("line\n" * 5_000)
        assert look["read_file"]("many").endswith("[lines 1 to 1000 of 5000]")

    def test_lines_are_counted_as_editors_count_them(self, root, look):
        (root / "feed").write_bytes(b"one\x0cstill one\r\ntwo\xe2\x80\xa8still two\rand\nthree needle")
        assert look["read_file"]("feed", first_line=3) == "three needle\n[lines 3 to 3 of 3]"
        assert look["search_text"]("needle") == "feed:3: three needle"

    def test_a_search_ends_by_itself(self, root, look, monkeypatch):
        monkeypatch.setattr(files, "SEARCH_S", -1.0)
        assert look["search_text"]("hello") == "… stopped after 0 files: search in a folder of it"

    def test_searches(self, look):
        assert look["search_text"]("hello") == "src/main.py:1: print('Hello')"
        assert look["search_text"]("hello", ignore_case=False) == "(nothing found)"
        assert look["search_text"]("t", "src") == "src/main.py:1: print('Hello')"


SEE = [call("read_file", path="a.txt"), "It says one."]


@pytest.mark.asyncio
async def test_looking_asks_nobody(root):
    async with acting(workspace_agent(root), SEE) as (run, model, _):
        assert await run.result() == "It says one."
        assert model.told() == ["one\ntwo\nthree\n"]
        assert {tool.name for tool in model.requests[0].tools} == {
            "list_files", "read_file", "search_text", "edit_file", "run_command", "ask_user",
        }  # fmt: skip
        check_log(run)


class TestEditing:
    @pytest.mark.asyncio
    async def test_the_difference_is_shown_and_then_made(self, root):
        (root / "a.txt").chmod(0o755)
        script = [call("edit_file", path="a.txt", old="two", new="zwei"), "Done."]
        async with acting(workspace_agent(root), script) as (run, model, _):
            asked = (await run.until("approval.required")).payload
            assert asked.preview.kind == "diff"
            assert asked.preview.data == "--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n"
            assert (root / "a.txt").read_text() == "one\ntwo\nthree\n"
            await run.approve()
            await run.result()
            assert (root / "a.txt").read_text() == "one\nzwei\nthree\n"
            assert (root / "a.txt").stat().st_mode & 0o777 == 0o755
            assert model.told() == ["a.txt was changed."]
            assert sorted(path.name for path in root.iterdir()) == [".git", ".midstream", "a.txt", "bin.dat", "src"]

    @pytest.mark.asyncio
    async def test_a_file_that_changed_meanwhile_is_asked_about_anew(self, root):
        script = [call("edit_file", path="a.txt", old="two", new="zwei"), "Done."]
        async with acting(workspace_agent(root), script) as (run, _, _stage):
            await run.until("approval.required")
            (root / "a.txt").write_text("one\ntwo\nfour\n")
            await run.approve()
            again = (await run.until("approval.required")).payload
            assert again.reason == "changed"
            assert " four" in again.preview.data
            await run.deny()
            await run.result()
            assert (root / "a.txt").read_text() == "one\ntwo\nfour\n"

    def test_a_name_as_long_as_names_can_be(self, root):
        name = "字" * 84
        (root / name).write_text("one")
        Folder(root).write(name, b"two")
        assert (root / name).read_text() == "two"

    @pytest.mark.asyncio
    async def test_a_new_file(self, root):
        script = [call("edit_file", path="new/deep/b.txt", old="", new="b"), "Done."]
        async with acting(workspace_agent(root), script) as (run, _, _stage):
            asked = (await run.until("approval.required")).payload
            assert asked.preview.data.startswith("--- /dev/null\n+++ b/new/deep/b.txt\n")
            assert asked.preview.data.endswith("+b\n\\ No newline at end of file\n")
            assert not (root / "new").exists()
            await run.approve()
            await run.result()
            assert (root / "new/deep/b.txt").read_text() == "b"

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            ({"path": "a.txt", "old": "nine", "new": "x"}, "does not occur"),
            ({"path": "a.txt", "old": "e", "new": "x"}, "occurs 3 times"),
            ({"path": "a.txt", "old": "", "new": "x"}, "is there already"),
            ({"path": "gone.txt", "old": "x", "new": "y"}, "does not exist"),
            ({"path": "a.txt", "old": "one", "new": "one"}, "are the same"),
            ({"path": "bin.dat", "old": "H", "new": "x"}, "binary"),
            ({"path": "../secret.txt", "old": "top", "new": "x"}, "outside of the workspace"),
        ],
    )
    @pytest.mark.asyncio
    async def test_an_edit_that_cannot_be_asks_nobody(self, root, args, says):
        async with acting(workspace_agent(root), [call("edit_file", **args), "Sorry."]) as (run, model, _):
            await run.result()
            assert says in model.told()[0]
            assert run.of_type("approval.required") == []

    @pytest.mark.asyncio
    async def test_a_file_keeps_its_line_ends(self, root):
        (root / "dos.txt").write_bytes(b"one\r\ntwo\r\nthree")
        script = [call("edit_file", path="dos.txt", old="one\ntwo", new="1\n2"), "Done."]
        async with acting(workspace_agent(root), script) as (run, _, _stage):
            await run.until("approval.required")
            await run.approve()
            await run.result()
            assert (root / "dos.txt").read_bytes() == b"1\r\n2\r\nthree"


def alive(pid: int) -> bool:
    try:
        # A zombie that nobody has waited for yet runs no more.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def pid_in(path) -> int:
    await eventually(lambda: path.exists() and path.read_text().strip())
    return int(path.read_text())


class Context:
    tool_call_id = "call_1"

    async def progress(self, text):
        """Nobody watches."""


SERVER = """
import asyncio, sys
from pathlib import Path
from midstream.agents.workspace import command, files
from midstream.agents.workspace.edit import difference

class Context:
    tool_call_id = "call_1"

    async def progress(self, text):
        pass

asyncio.run(command.run(sys.argv[2], cwd=Path(sys.argv[1]), timeout_s=100, context=Context()))
"""


class TestDifferences:
    def test_of_a_long_file_of_lines_that_are_alike(self):
        lines = ["same\n"] * 200_000
        after = [*lines[:150_000], "other\n", *lines[150_001:]]
        diff = difference("".join(lines), "".join(after), "a", "b")
        assert diff.startswith("--- a\n+++ b\n@@ -149998,7 +149998,7 @@\n same\n")
        assert diff.count("\n") == 11
        assert diff.count("\n+other\n") == 1

    def test_a_line_ends_where_it_ends(self):
        assert difference("a\x0cb\nc\n", "a\x0cb\nd\n", "a", "b") == "--- a\n+++ b\n@@ -1,2 +1,2 @@\n a\x0cb\n-c\n+d\n"

    @given(st.text("ab\n", max_size=40), st.text("ab\n", max_size=6), st.integers(0, 40), st.integers(0, 6))
    def test_it_leads_from_the_one_to_the_other(self, before, put, at, gone):
        after = before[:at] + put + before[at + gone :]
        assert patched(before, difference(before, after, "a", "b")) == after


def patched(before, diff):
    old, out, position = lines_of(before), [], 0
    for line in re.split(r"(?<=\n)(?!\\)", diff)[2:-1]:
        text = line[1:].removesuffix("\n\\ No newline at end of file\n")
        if line.startswith("@@"):
            first, _, count = line.split()[1].removeprefix("-").partition(",")
            start = int(first) - (count != "0")
            out += old[position:start]
            position = start
        elif line[0] in " -":
            assert old[position] == text, "it speaks of what is there"
            position += 1
        if line[0] in " +":
            out.append(text)
    return "".join([*out, *old[position:]])


class TestCommands:
    async def ran(self, root, command_line, **args):
        async with acting(workspace_agent(root), [call("run_command", command=command_line, **args), "Ok."]) as (
            run,
            model,
            _,
        ):
            asked = (await run.until("approval.required")).payload
            assert (asked.risk, asked.preview.kind, asked.preview.data) == ("high", "command", command_line)
            await run.approve()
            await run.result()
            check_log(run)
            return model.told()[0]

    @pytest.mark.asyncio
    async def test_what_it_says_and_how_it_ended(self, root):
        assert await self.ran(root, "cat a.txt; echo oh >&2; exit 3") == "exit code 3\none\ntwo\nthree\noh\n"
        assert await self.ran(root, "true") == "exit code 0\n(no output)"
        assert await self.ran(root, "cat") == "exit code 0\n(no output)", "it gets no input"

    @pytest.mark.asyncio
    async def test_it_does_not_get_the_servers_keys(self, root, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k3y")
        monkeypatch.setenv("MIDSTREAM_TOKEN", "t0ken")
        said = await self.ran(root, "env; pwd")
        assert "k3y" not in said
        assert "t0ken" not in said
        assert str(root) in said

    @pytest.mark.asyncio
    async def test_much_output_is_cut_in_the_middle(self, root):
        said = await self.ran(root, "seq 1 100000")
        assert said.startswith("exit code 0\n1\n2\n")
        assert said.endswith("99999\n100000\n")
        assert len(said) < 30_000
        assert "left out" in said

    @pytest.mark.asyncio
    async def test_it_has_a_timeout(self, root):
        said = await self.ran(root, "echo begun; sleep 600", timeout_s=1)
        assert said.startswith("tool_error: The command took more than 1 s and was stopped.")
        assert "begun" in said

    @pytest.mark.asyncio
    async def test_what_it_leaves_behind_is_stopped(self, root):
        began = time.monotonic()
        said = await self.ran(root, "sleep 600 & echo $! > pid; echo done")
        assert said == "exit code 0\ndone\n"
        pid = int((root / "pid").read_text())
        await eventually(lambda: not alive(pid), within_s=1.0)
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize(
        "command_line",
        [
            "sleep 600 & echo $! > pid; wait",
            "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done'",
        ],
        ids=["sleeps", "does not heed SIGTERM"],
    )
    @pytest.mark.asyncio
    async def test_a_cancelled_one_is_gone_within_a_second(self, root, command_line):
        async with acting(workspace_agent(root), [call("run_command", command=command_line)]) as (run, _, _stage):
            await run.until("approval.required")
            await run.approve()
            pid = await pid_in(root / "pid")
            await run.cancel()
            await eventually(lambda: not alive(pid), within_s=1.0)
            ended = (await run.ended()).payload
            assert [effect.outcome for effect in ended.effects] == ["failed"]
            check_log(run)

    @pytest.mark.asyncio
    async def test_people_see_its_output_while_it_runs(self, root):
        async with acting(workspace_agent(root), [call("run_command", command="echo begun; cat fifo"), "x"]) as (
            run,
            _,
            _s,
        ):
            os.mkfifo(root / "fifo")
            await run.until("approval.required")
            await run.approve()
            shown = (await run.until("tool.progress")).payload
            assert shown.text == "begun\n"
            (root / "fifo").write_text("end")
            await run.result()

    @pytest.mark.asyncio
    async def test_a_slow_log_loses_no_output(self, root):
        class Slow(Context):
            async def progress(self, text):
                await asyncio.Event().wait()

        line = "echo one; sleep 0.2; echo two"
        said = await command.run(line, cwd=root, timeout_s=20, context=Slow())
        assert said == "exit code 0\none\ntwo\n"

    @pytest.mark.asyncio
    async def test_one_that_is_cancelled_while_it_starts_is_gone(self, root, monkeypatch):
        create, begun, go_on = asyncio.create_subprocess_exec, asyncio.Event(), asyncio.Event()
        line = "sleep 600 & echo $! > pid; wait"

        async def slowly(*argv, **options):
            process = await create(*argv, **options)
            if line in argv:
                begun.set()
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    # What asyncio does when it is cancelled between the fork and its end.
                    process.kill()
                    raise
            return process

        monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
        running = spawn(command.run(line, cwd=root, timeout_s=20, context=Context()), name="command")
        await begun.wait()
        pid = await pid_in(root / "pid")
        running.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait({running})
        await eventually(lambda: not alive(pid), within_s=1.0)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_it_ends_with_its_server_however_that_ends(self, root, number):
        line = "(sleep 600; true) & echo $! > pid; wait"
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(root), line])
        try:
            pid = asyncio.run(pid_in(root / "pid"))
            assert alive(pid)
        finally:
            server.send_signal(number)
            server.wait()
        asyncio.run(eventually(lambda: not alive(pid), within_s=2.0))

    def test_the_kept_output_is_bounded_whatever_comes(self):
        output = command.Output()
        for n in range(10_000):
            output.add(f"{n:07}\n".encode() * 20)
        text = output.text()
        assert len(text) < command.MAX_HEAD + command.MAX_TAIL + 100
        assert text.startswith("0000000\n")
        assert text.endswith("0009999\n")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(OSError):
        workspace_agent(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        workspace_agent(tmp_path / "file")
