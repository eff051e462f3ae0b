import type { RunStatus } from "@midstream/client";

import { safeInline } from "../text/safe.js";

type Tone = "good" | "warn" | "bad" | "busy" | "";

const RUN: Record<RunStatus, readonly [Tone, string]> = {
  queued: ["", "Queued"],
  running: ["busy", "Running"],
  waiting: ["warn", "Waiting for you"],
  completed: ["good", "Completed"],
  failed: ["bad", "Failed"],
  cancelled: ["", "Cancelled"],
};

const MARKS: Record<Tone, string> = {
  good: "M3 8.5l3.2 3.2L13 4.8",
  warn: "M8 3.5v5.5M8 12v.5",
  bad: "M4 4l8 8M12 4l-8 8",
  busy: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  "": "M4 8h8",
};

/** A state as a mark and a word: never by its colour alone. */
export function StatusMark({ tone, text }: { tone: Tone; text: string }) {
  return (
    <span class={`status ${tone}`}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d={MARKS[tone]} fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" />
      </svg>
      {text}
    </span>
  );
}

/** Where a run stands. `phase` tells a cancel under way and a recovery apart from plain running. */
export function RunStatusMark({ status, phase }: { status: RunStatus; phase?: string | undefined }) {
  if (phase === "cancelling") return <StatusMark tone="warn" text="Stopping" />;
  if (phase === "recovering") return <StatusMark tone="warn" text="Recovering" />;
  if (phase === "paused") return <StatusMark tone="" text="Paused" />;
  const [tone, text] = RUN[status] ?? ["", safeInline(status, 30)];
  return <StatusMark tone={tone} text={text} />;
}
