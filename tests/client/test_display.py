"""A view drawn for people: whatever a model, a tool or a person wrote is only ever shown."""

import io
import re

import nbclient
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from midstream.client import screen
from midstream.client.display import MAX_LINE_CHARS, MAX_MESSAGE_CHARS, as_html, as_markdown, as_text
from midstream_protocol.view import empty_view, view_from_builtins, view_to_builtins

HOSTILE = "<script>alert(1)</script> \x1b]52;c;aGk=\x07 \x1b[2J \u202eevil\u202c ```` ~~~~ </pre> [x](javascript:1) &amp;\r gone"

texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [HOSTILE, "`" * 9, "", "\u2028", "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")]
    ),
)


def view_of(text: str):
    built = view_to_builtins(empty_view("run_1"))
    built |= {
        "title": text,
        "phase": text,
        "status_text": text,
        "messages": [
            {"message_id": "m1", "role": "user", "text": text, "state": "complete"},
            {"message_id": "m2", "role": "assistant", "text": text, "state": "interrupted", "agent": text},
        ],
        "plan": [{"id": "t", "title": text, "agent": text, "status": "in_progress"}],
        "calls": [
            {"tool_call_id": "c1", "tool": text, "label": text, "state": "completed", "preview": text},
            {"tool_call_id": "c2", "tool": text, "label": "", "state": "running", "text": text, "fraction": 0.5},
        ],
        "pending": [
            {"kind": "approval", "label": text, "risk": "high"},
            {"kind": "input", "question": text},
            {"kind": "tool", "label": text},
        ],
        "failure": {**FAILURE, "text": text},
        "usage": USAGE,
    }
    return view_from_builtins(built)


USAGE = {"input_tokens": 1, "output_tokens": 1, "cached_input_tokens": 0, "total_tokens": 2, "by_model": {}}

FAILURE = {
    "code": "x",
    "retryable": False,
    "error_id": "err_1",
    "completed": [],
    "effects": [],
    "usage": USAGE,
    "digest": "d",
}

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@given(texts)
def test_nothing_is_obeyed(text):
    view = view_of(text)
    assert not OBEYED.search(as_text(view))
    page = as_html(view)
    assert re.fullmatch(r"<pre[^<>]*>[^<>]*</pre>", page)
    markdown = as_markdown(view)
    fence = re.match("`+", markdown)[0]
    assert markdown.count(fence) == 2
    assert markdown.endswith(f"\n{fence}")


def test_what_a_person_needs_is_there():
    shown = as_text(view_of("Pay the rent"))
    for part in (
        "Pay the rent",
        "waits for approval",
        "high risk",
        "asks:",
        "50%",
        "[completed]",
        "2 tokens",
        "failed:",
    ):
        assert part in shown


def test_ten_megabytes_are_bounded():
    shown = as_text(view_of("x" * 10_000_000))
    assert len(shown) < 2 * MAX_MESSAGE_CHARS
    assert max(map(len, shown.split("\n"))) < 2 * MAX_LINE_CHARS
    assert len(as_text(view_of("line\n" * 2_000_000))) < 4 * MAX_MESSAGE_CHARS


def test_lines_say_the_last_state_once(capsys, monkeypatch):
    monkeypatch.setattr(screen, "Console", lambda: Console(file=io.StringIO(), force_terminal=False))
    with screen.screen() as draw:
        draw(view_of("first"))
        draw(view_of("second"))
    said = capsys.readouterr().out
    assert "second" in said
    assert "first" not in said


def test_a_terminal_shows_the_end_and_leaves_all_of_it(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(screen, "Console", lambda: Console(file=out, force_terminal=True, width=60, height=10))
    with screen.screen() as draw:
        draw(view_of(HOSTILE))
        drawn = out.getvalue()
        assert drawn.count("\n") < 10
    assert "\x1b]52" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert "[x](javascript:1)" in out.getvalue().replace("\n", "")


NOTEBOOK = [
    "from midstream.client.sync import connect\nclient = connect({url!r})\nrun = client.start(input='pay')\nrun.show()",
    "approval = run.approvals[0]\napproval.approve().status",
    "run.show()",
    "run",
    "client.close()",
]


@pytest.mark.slow
def test_a_notebook(url):
    cells = [nbformat.v4.new_code_cell(source.format(url=url)) for source in NOTEBOOK]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
    waiting, answered, ended, shown, _ = (cell.outputs for cell in notebook.cells)
    assert [output.output_type for output in waiting] == ["display_data"]
    assert "waits for approval: Pay &lt;b&gt;5&lt;/b&gt;" in waiting[0].data["text/html"]
    assert answered[0].data["text/plain"] == "'accepted'"
    assert "completed" in ended[-1].data["text/html"]
    assert "paid 5" in shown[0].data["text/html"]
    assert "````text" in shown[0].data["text/markdown"]
