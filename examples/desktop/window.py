"""The window: the transcript as it streams, a line to type in, and what waits for a person."""

import tkinter as tk
from tkinter import ttk
from typing import Final

from examples.desktop.dialog import ApprovalDialog
from examples.desktop.feed import Feed, Shown
from examples.desktop.transcript import Block, blocks, bounded, correction_line
from midstream.client import Approval
from midstream.client.safe_text import safe_line

LOOK_EVERY_MS: Final = 33
MAX_CORRECTIONS: Final = 3
"""The newest, above the line they are typed in."""

TITLE: Final = "Midstream"

_CONNECTION: Final = {
    "connecting": "Connecting …",
    "ready": "Connected",
    "reconnecting": "The connection is lost, coming back …",
    "closed": "Not connected",
}
_COLOURS: Final = {"note": "#4a5a78", "user": "#1b4f9c", "assistant": "#1c1c1c", "call": "#5a5a5a", "end": "#4a5a78"}


class Window:
    """Draws what `feed` has, and hands it what is typed and pressed. Everything here runs in Tk's own thread."""

    def __init__(self, root: tk.Tk, feed: Feed) -> None:
        self.root = root
        self.dialogs: dict[str, ApprovalDialog] = {}
        self._feed = feed
        self._drawn: Shown | None = None
        self._asked: set[str] = set()
        self._returned: set[str] = set()

        # Elsewhere the desktop's own look is the default.
        if root.tk.call("tk", "windowingsystem") == "x11":
            ttk.Style(root).theme_use("clam")
        root.title(TITLE)
        root.minsize(480, 360)
        root.protocol("WM_DELETE_WINDOW", self.close)
        frame = ttk.Frame(root, padding=10)
        frame.pack(fill="both", expand=True)

        head = ttk.Frame(frame)
        head.pack(fill="x", pady=(0, 8))
        self.status = ttk.Label(head)
        self.status.pack(side="left", fill="x", expand=True)
        self.stop_button = ttk.Button(head, text="Stop", command=self._stop)
        self.stop_button.pack(side="right")
        self.waiting_button = ttk.Button(head, command=self._ask_again)

        foot = ttk.Frame(frame)
        foot.pack(side="bottom", fill="x", pady=(8, 0))
        self.corrections = ttk.Label(foot, justify="left", wraplength=640)
        self.corrections.pack(anchor="w")
        self.prompt = ttk.Label(foot, justify="left", wraplength=640)
        self.prompt.pack(anchor="w")
        self.entry = ttk.Entry(foot)
        self.entry.pack(side="left", fill="x", expand=True)
        self.entry.bind("<Return>", lambda _: self._send())
        self.send_button = ttk.Button(foot, command=self._send)
        self.send_button.pack(side="right", padx=(6, 0))

        self.transcript = Transcript(frame)
        self._look()
        self.entry.focus_set()

    def close(self) -> None:
        """The run goes on at the server; `--run` comes back to it."""
        self.root.after_cancel(self._next)
        self._feed.close()
        self.root.destroy()

    # -- looking

    def _look(self) -> None:
        shown = self._feed.shown
        if shown is not self._drawn:
            self._draw(shown)
            self._drawn = shown
        for dialog in self.dialogs.values():
            dialog.tick()
        while not self._feed.refused.empty():
            refused = self._feed.refused.get()
            self.prompt.configure(text=safe_line(refused.why, limit=400))
            self._give_back(refused.text)
        self._next = self.root.after(LOOK_EVERY_MS, self._look)

    def _draw(self, shown: Shown) -> None:
        view = shown.view
        said = _CONNECTION[shown.state]
        if shown.state in ("closed", "reconnecting") and shown.why:
            said = f"{said} ({safe_line(shown.why)})"
        if view is not None:
            doing = view.status_text if view.status == "running" and view.status_text else view.status
            said = f"{said} · {safe_line(doing)}"
        self.status.configure(text=said)
        self.stop_button.state(["!disabled" if shown.running else "disabled"])
        action = "Answer" if shown.questions else "Correct" if shown.running else "Start"
        self.send_button.configure(text=action)
        if view is not None and (self._drawn is None or view is not self._drawn.view):
            self.transcript.show(blocks(view))
            newest = view.corrections[-MAX_CORRECTIONS:]
            self.corrections.configure(text="\n".join(correction_line(each) for each in newest))
            for each in view.corrections:
                if each.state == "returned" and each.correction_id not in self._returned:
                    self._returned.add(each.correction_id)
                    self._give_back(each.text)
        self._draw_waiting(shown)

    def _draw_waiting(self, shown: Shown) -> None:
        before = self._drawn or Shown()
        if shown.questions:
            question = shown.questions[0]
            choices = f" ({' / '.join(question.choices)})" if question.choices else ""
            self.prompt.configure(text=bounded(f"The agent asks: {question.question}{choices}"))
        elif before.questions:
            self.prompt.configure(text="")
        open_ids = {each.id for each in shown.approvals}
        for approval_id in self.dialogs.keys() - open_ids:
            # Answered elsewhere, or too late.
            self.dialogs.pop(approval_id).close()
        for approval in shown.approvals:
            if approval.id not in self._asked:
                self._asked.add(approval.id)
                self.root.bell()
                self._ask(approval)
        waits = len(shown.approvals) + len(shown.questions)
        self.root.title(f"({waits}) {TITLE}" if waits else TITLE)
        if shown.approvals:
            self.waiting_button.configure(text=f"Waiting for you: {len(shown.approvals)}")
            self.waiting_button.pack(side="right", padx=6)
        else:
            self.waiting_button.pack_forget()

    # -- asking

    def _ask(self, approval: Approval) -> None:
        self.dialogs[approval.id] = ApprovalDialog(
            self.root,
            approval,
            on_approve=lambda answered: self._answered(answered, approve=True),
            on_deny=lambda answered, reason: self._answered(answered, approve=False, reason=reason),
            on_later=self._put_off,
        )

    def _put_off(self, approval: Approval) -> None:
        self.dialogs.pop(approval.id, None)

    def _ask_again(self) -> None:
        for approval in self._feed.shown.approvals:
            if approval.id in self.dialogs:
                self.dialogs[approval.id].window.lift()
            else:
                self._ask(approval)

    def _answered(self, approval: Approval, *, approve: bool, reason: str = "") -> None:
        self.dialogs.pop(approval.id, None)
        if approve:
            self._feed.approve(approval)
        else:
            self._feed.deny(approval, reason)

    # -- telling

    def _send(self) -> None:
        text = self.entry.get().strip()
        if not text:
            return
        self.entry.delete(0, "end")
        self.prompt.configure(text="")
        questions = self._feed.shown.questions
        if questions:
            self._feed.answer(questions[0], text)
        else:
            self._feed.say(text)

    def _stop(self) -> None:
        self._feed.stop()

    def _give_back(self, text: str) -> None:
        # Never over what was typed meanwhile.
        if text and not self.entry.get():
            self.entry.insert(0, text)


class Transcript:
    """A text that is changed where it changed: what streams is added at its end, and nothing above it moves."""

    def __init__(self, parent: ttk.Frame) -> None:
        frame = ttk.Frame(parent)
        frame.pack(fill="both", expand=True)
        bar = ttk.Scrollbar(frame)
        bar.pack(side="right", fill="y")
        self.text = tk.Text(
            frame, width=84, height=24, wrap="word", font="TkTextFont", relief="flat", padx=8, pady=8, spacing2=2
        )
        self.text.pack(side="left", fill="both", expand=True)
        self.text.configure(state="disabled", yscrollcommand=bar.set)
        bar.configure(command=self.text.yview)
        for kind, colour in _COLOURS.items():
            self.text.tag_configure(kind, foreground=colour)
        self.text.tag_configure("call", lmargin1=18, lmargin2=18)
        self._shown: list[Block] = []

    def show(self, wanted: list[Block]) -> None:
        same = 0
        while same < min(len(wanted), len(self._shown)) and wanted[same] == self._shown[same]:
            same += 1
        if same == len(wanted) == len(self._shown):
            return
        at_end = self.text.yview()[1] >= 1.0
        self.text.configure(state="normal")
        grown = self._grown(wanted, same)
        if grown is not None:
            self.text.insert("end-1c", grown, (wanted[same].kind,))
            same += 1
        elif same < len(self._shown):
            self.text.delete(f"block{same}", "end-1c")
        for at in range(same, len(wanted)):
            self._add(at, wanted[at])
        self.text.configure(state="disabled")
        self._shown = wanted
        # A reader who has scrolled up stays where they are.
        if at_end:
            self.text.see("end")

    def _grown(self, wanted: list[Block], at: int) -> str | None:
        """What came to the last block that stands there, if that is all that happened to it."""
        if at != len(self._shown) - 1 or at >= len(wanted):
            return None
        old, new = self._shown[at], wanted[at]
        if (old.key, old.kind) != (new.key, new.kind) or not new.text.startswith(old.text):
            return None
        return new.text[len(old.text) :]

    def _add(self, at: int, block: Block) -> None:
        self.text.mark_set(f"block{at}", "end-1c")
        self.text.mark_gravity(f"block{at}", "left")
        gap = "\n\n" if at else ""
        self.text.insert("end-1c", f"{gap}{block.text}", (block.kind,))
