"""`midstream chat` at a real terminal, with a real server."""

import json
import re
import signal
import sys

from tests.cli.console import call


def test_an_approval_is_shown_asked_and_given(chat, served):
    terminal = chat("write a note").expect("approve? y yes, n no [reason], e edit")
    assert "? Write note.txt  [write_note · medium risk]" in terminal.screen
    assert not (served.folder / "note.txt").exists()
    assert terminal.type("y").wait() == 0
    assert (served.folder / "note.txt").read_text() == "first\nsecond\n"
    assert "approved by" in terminal.screen
    assert "✓ Write note.txt" in terminal.screen
    assert terminal.screen.count("approve?") == 1, "an answer on its way is not asked for again"
    assert "All done." in terminal.screen
    assert "scripted: no real model answered" in terminal.screen


def test_a_denial_with_its_reason(chat, served):
    terminal = chat("write a note").expect("approve?").type("n not there")
    assert terminal.wait() == 0
    assert "denied by" in terminal.screen
    assert ": not there" in terminal.screen
    assert not (served.folder / "note.txt").exists()


def test_what_is_no_answer_is_asked_again(chat):
    terminal = chat("write a note").expect("approve?").type("yes but elsewhere").expect("answer y, n [reason]")
    assert terminal.type("n").wait() == 0


def test_edited_arguments_inline(chat, served):
    terminal = chat("write a note").expect("approve?").type('e {"path": "other.txt"}')
    assert terminal.wait() == 0
    assert "with edited arguments" in terminal.screen
    assert (served.folder / "other.txt").read_text() == "first\nsecond\n"


def test_arguments_that_do_not_fit_are_asked_for_again(chat, served):
    terminal = chat("write a note").expect("approve?").type('e {"path": 7}').expect("the arguments do not fit")
    assert terminal.type("y").wait() == 0
    assert (served.folder / "note.txt").exists()


def test_edited_arguments_in_an_editor(chat, served, tmp_path):
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import json, sys\nargs = json.load(open(sys.argv[1]))\nargs['text'] = 'edited'\n"
        "json.dump(args, open(sys.argv[1], 'w'))\n"
    )
    terminal = chat("write a note", EDITOR=f"{sys.executable} {editor}").expect("approve?").type("e")
    assert terminal.wait() == 0
    assert (served.folder / "note.txt").read_text() == "edited"


def test_without_a_chosen_editor_one_that_is_there_is_taken(chat, served, tmp_path):
    nano = tmp_path / "nano"
    nano.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[1], 'w').write('{{\"text\": \"by nano\"}}')\n")
    nano.chmod(0o755)
    terminal = chat("write a note", EDITOR="", VISUAL="", PATH=str(tmp_path)).expect("approve?").type("e")
    assert terminal.wait() == 0
    assert (served.folder / "note.txt").read_text() == "by nano"


def test_without_any_editor_it_is_said_how_to_edit_here(chat, tmp_path):
    terminal = chat("write a note", EDITOR="", VISUAL="", PATH=str(tmp_path)).expect("approve?").type("e")
    terminal.expect("type e and the arguments to replace").expect("nothing was changed")
    assert terminal.type("n").wait() == 0


def test_a_question_with_choices(chat):
    terminal = chat("ask me").expect("? Which colour?").expect("2  blue").expect("answer ›").type("2")
    assert terminal.wait() == 0
    assert re.search(r"answered by \w+: blue", terminal.screen)


def test_a_typed_line_corrects_the_run(chat, served):
    terminal = chat("wait for the file").expect("● Wait for go.txt").type("be brief")
    terminal.expect("correction accepted (at the next step): be brief")
    (served.folder / "go.txt").touch()
    assert terminal.wait() == 0
    assert "correction applied" in terminal.screen


def test_an_empty_line_holds_the_output_until_the_next(chat, served):
    terminal = chat("talk long").expect("word").type("").expect("held - type a correction, or Enter to go on")
    # Until the run is over on the server; nothing of that is printed here.
    assert "✓ completed" in call("tail", "--url", served.url, _newest(served)).stdout
    assert "completed" not in terminal.read().screen
    assert terminal.type("").wait() == 0
    assert terminal.screen.count("word") == 10
    assert "✓ completed" in terminal.screen


def test_ctrl_c_cancels_and_the_exit_code_says_so(chat):
    terminal = chat("wait for the file").expect("● Wait for go.txt").press("C")
    assert terminal.expect("cancelling; Ctrl-C again to force").wait() == 130
    assert "■ cancelled by" in terminal.screen


def test_quit_leaves_the_run_alone_and_one_can_come_back(chat, served):
    terminal = chat("wait for the file").expect("● Wait for go.txt").type("/quit").expect("the run goes on")
    assert terminal.wait() == 0
    run_id = re.search(r"chat --run (\S+)", terminal.screen).group(1)
    again = chat("--run", run_id).expect("› wait for the file").expect("● Wait for go.txt")
    (served.folder / "go.txt").touch()
    assert again.wait() == 0


def test_a_conversation_is_one_thread(chat, served):
    terminal = chat().expect("› ").type("hello").expect("✓ completed").type("write a note").expect("approve?")
    terminal.type("n").expect("denied by")
    terminal.expect_twice("✓ completed").type("/help").expect("Ctrl-C").press("D")
    assert terminal.wait() == 0
    both = call("runs", "--url", served.url, "--limit", "2").stdout.strip().split("\n")
    started = [call("tail", "--url", served.url, "--json", row.split("\t")[0]).stdout for row in both]
    first, second = (json.loads(each.split("\n")[0])["payload"]["thread_id"] for each in started)
    assert first == second


def _newest(served) -> str:
    return call("runs", "--url", served.url, "--limit", "1").stdout.split("\t")[0]


def test_a_server_killed_and_restarted_mid_run_costs_nothing(mortal, terminals):
    terminal = terminals("chat", "--url", mortal.url, "wait for the file", folder=mortal.folder)
    terminal.expect("● Wait for go.txt")
    mortal.end(signal.SIGKILL)
    terminal.expect("reconnecting…")
    mortal.start()
    terminal.expect("connected again")
    (mortal.folder / "go.txt").touch()
    assert terminal.wait() == 0
    assert terminal.screen.count("Waiting now.") == 1
    assert terminal.screen.count("✓ Wait for go.txt") == 1
    assert terminal.screen.count("✓ completed") == 1


def test_an_approval_survives_a_restart(mortal, terminals):
    terminal = terminals("chat", "--url", mortal.url, "write a note", folder=mortal.folder).expect("approve?")
    mortal.end(signal.SIGTERM)
    terminal.expect("reconnecting…")
    mortal.start()
    terminal.expect("connected again").type("y")
    assert terminal.wait() == 0
    assert (mortal.folder / "note.txt").read_text() == "first\nsecond\n"
    assert terminal.screen.count("? Write note.txt") == 1


def test_the_third_ctrl_c_leaves_even_without_a_server(mortal, terminals):
    terminal = terminals("chat", "--url", mortal.url, "wait for the file", folder=mortal.folder)
    terminal.expect("● Wait for go.txt")
    mortal.end(signal.SIGKILL)
    terminal.expect("reconnecting…").expect(f"  0 s no connection to {mortal.url}; trying again").expect("  1 s ")
    terminal.press("C").expect("cancelling;").press("C").expect("forcing;").press("C")
    assert terminal.wait() == 130
    assert re.search(rf"Come back with: midstream chat --run \S+ --url {mortal.url}", terminal.screen)
    # It was never sent: there was nobody to send it to, and that is said.
    assert "not confirmed by the server: 2" in terminal.screen
