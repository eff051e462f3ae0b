"""The question before an effect: what will happen, how risky it is, the difference it makes; approve or deny.

A window of the desktop's own look rather than `tkinter.messagebox`: that one shows no difference, cannot say “Approve”,
and cannot be closed when the answer was given elsewhere. It leaves the main window usable: a run can still be stopped.
"""

import json
import tkinter as tk
from collections.abc import Callable
from datetime import UTC, datetime
from tkinter import ttk
from typing import Final

from examples.desktop.transcript import bounded
from midstream.client import Approval
from midstream.client.safe_text import safe_line

MAX_LINE_CHARS: Final = 500
"""Of a line of the preview: Tk lays a whole line out at once."""

_TAGS: Final = {"+++": "place", "---": "place", "@@": "place", "+": "added", "-": "removed"}


class ApprovalDialog:
    """`on_approve` and `on_deny` are called once at most, and then it closes. Escape or closing it decides nothing."""

    def __init__(
        self,
        parent: tk.Tk,
        approval: Approval,
        *,
        on_approve: Callable[[Approval], None],
        on_deny: Callable[[Approval, str], None],
        on_later: Callable[[Approval], None],
    ) -> None:
        self.approval = approval
        self._on_approve = on_approve
        self._on_deny = on_deny
        self._on_later = on_later
        self.window = tk.Toplevel(parent)
        self.window.title("Approve this?")
        self.window.transient(parent)
        self.window.minsize(420, 260)
        self.window.protocol("WM_DELETE_WINDOW", self.later)
        self.window.bind("<Escape>", lambda _: self.later())
        self.window.bind("<Alt-a>", lambda _: self._approve())
        self.window.bind("<Alt-d>", lambda _: self._deny())

        frame = ttk.Frame(self.window, padding=12)
        frame.pack(fill="both", expand=True)
        label = safe_line(approval.label or approval.tool)
        ttk.Label(frame, text=label, font="TkHeadingFont", wraplength=560).pack(anchor="w")
        self._left = ttk.Label(frame)
        self._left.pack(anchor="w", pady=(2, 8))

        buttons = ttk.Frame(frame)
        buttons.pack(side="bottom", fill="x", pady=(10, 0))
        self.approve_button = ttk.Button(buttons, text="Approve", underline=0, command=self._approve)
        self.deny_button = ttk.Button(buttons, text="Deny", underline=0, command=self._deny)
        self.later_button = ttk.Button(buttons, text="Decide later", command=self.later)
        self.later_button.pack(side="left")
        self.approve_button.pack(side="right")
        self.deny_button.pack(side="right", padx=6)
        asked = ttk.Frame(frame)
        asked.pack(side="bottom", fill="x", pady=(8, 0))
        ttk.Label(asked, text="Reason for denying (the agent reads it):").pack(anchor="w")
        self.reason = ttk.Entry(asked)
        self.reason.pack(fill="x")
        self.reason.bind("<Return>", lambda _: self._deny())

        self.preview = tk.Text(frame, width=76, height=14, wrap="none", font="TkFixedFont", relief="flat")
        self.preview.tag_configure("added", foreground="#0b6b2f", background="#e3f5e8")
        self.preview.tag_configure("removed", foreground="#9a1b1b", background="#fbe6e6")
        self.preview.tag_configure("place", foreground="#4a5a78")
        for line, tag in preview_lines(approval):
            self.preview.insert("end", f"{line}\n", (tag,) if tag else ())
        self.preview.configure(state="disabled")
        self.preview.pack(fill="both", expand=True)
        self.tick()
        # On neither button: whoever is typing when the dialog comes up must not decide with the next key.
        self.preview.focus_set()

    def tick(self) -> None:
        """Draw the time that is left anew."""
        left_s = max(0, int((self.approval.expires_at - datetime.now(UTC)).total_seconds()))
        then = "denied" if self.approval.on_expire == "deny" else "ended"
        time_left = f"{left_s // 60}:{left_s % 60:02d} left, then it is {then}" if left_s else "time is over"
        said = f"Risk: {self.approval.risk} · {safe_line(self.approval.tool)} · {time_left}"
        if str(self._left.cget("text")) != said:
            self._left.configure(text=said)

    def later(self) -> None:
        self.close()
        self._on_later(self.approval)

    def close(self) -> None:
        self.window.destroy()

    def _approve(self) -> None:
        self.close()
        self._on_approve(self.approval)

    def _deny(self) -> None:
        reason = self.reason.get().strip()
        self.close()
        self._on_deny(self.approval, reason)


def preview_lines(approval: Approval) -> list[tuple[str, str | None]]:
    """What it will do, line by line, each with the tag of its colour."""
    preview = approval.preview
    data = preview.data if preview is not None else approval.args
    text = data if isinstance(data, str) else json.dumps(data, indent=2, ensure_ascii=False)
    is_diff = preview is not None and preview.kind == "diff"
    lines = [line if len(line) <= MAX_LINE_CHARS else f"{line[:MAX_LINE_CHARS]}…" for line in bounded(text).split("\n")]
    return [(line, _tag(line) if is_diff else None) for line in lines]


def _tag(line: str) -> str | None:
    return next((tag for start, tag in _TAGS.items() if line.startswith(start)), None)
