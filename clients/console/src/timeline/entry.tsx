/** One entry of the timeline. Each is drawn again only when its entry became another object. */

import { memo } from "preact/compat";

import { StatusMark } from "../runs/status.js";
import { Markdown } from "../text/markdown.js";
import { CopyButton, PlainText } from "../text/plain.js";
import { safeInline } from "../text/safe.js";
import { CallBody } from "./call.js";
import { EndBody } from "./end.js";
import { ObjectBody } from "./object.js";
import type { Entry, NoteEvent } from "./order.js";
import { Box, inWords, Line, Time, type Tone } from "./parts.js";
import { secondsOf, wordsOf } from "./words.js";

export interface EntryProps {
  entry: Entry;
  /** Does what a failed run's `resume` offers. */
  onResume?: ((runId: string) => void) | undefined;
}

export const EntryBody = memo(({ entry, onResume }: EntryProps) => {
  switch (entry.kind) {
    case "message":
      return <MessageBody entry={entry} />;
    case "call":
      return <CallBody entry={entry} />;
    case "stage":
      return (
        <Line tone={entry.step.state === "failed" ? "bad" : ""} time={entry.ts}>
          <strong>{safeInline(entry.step.title)}</strong>{" "}
          <span class="muted">
            {safeInline(entry.step.agent, 60)}
            {entry.step.state === "started" ? "" : `, ${wordsOf(entry.step.state)}`}
          </span>
        </Line>
      );
    case "correction": {
      const { text, mode, state, reason } = entry.correction;
      return (
        <Box title="Correction" tone={state === "returned" ? "warn" : "plain"} time={entry.ts}>
          <PlainText text={text} />
          <p class="small muted">
            {wordsOf(mode)} {"\u00b7"} {correctionWords(state, reason)}
          </p>
        </Box>
      );
    }
    case "approval": {
      const { approval, resolved } = entry;
      const label = <strong>{safeInline(approval.label)}</strong>;
      if (resolved === undefined)
        return (
          <Line tone="warn" time={entry.ts}>
            Waiting for your approval: {label}
          </Line>
        );
      const edited = resolved.edited ? ", with other arguments" : "";
      const kept = resolved.grant_id === undefined ? "" : ", and so from now on";
      return (
        <Line tone={resolved.decision === "approved" ? "good" : "bad"} time={entry.ts}>
          {label} {wordsOf(resolved.decision)} by {safeInline(resolved.by, 60)}
          {edited}
          {kept}
          {resolved.reason === undefined ? "" : `: ${safeInline(resolved.reason)}`}
        </Line>
      );
    }
    case "question": {
      const { question, resolved } = entry;
      return (
        <Box title="Question" tone={resolved === undefined ? "warn" : "plain"} time={entry.ts}>
          <PlainText text={question.question} />
          <p class="small muted">
            {resolved === undefined
              ? "Waiting for your answer"
              : resolved.answer === undefined
                ? "Nobody answered"
                : `${safeInline(resolved.by, 60)} answered: ${safeInline(inWords(resolved.answer), 400)}`}
          </p>
        </Box>
      );
    }
    case "object":
      return (
        <Box title={safeInline(wordsOf(entry.object.kind), 60)} tone="plain" time={entry.ts}>
          <ObjectBody object={entry.object} />
        </Box>
      );
    case "note":
      return <NoteBody note={entry.note} />;
    case "end":
      return <EndBody view={entry.view} onResume={onResume} time={entry.ts} />;
  }
});

function MessageBody({ entry }: { entry: Entry & { kind: "message" } }) {
  const { message, correctionId } = entry;
  if (message.role === "user")
    return (
      <Box title={correctionId === undefined ? "You" : "Correction, applied here"} tone="person" time={entry.ts}>
        <PlainText text={message.text} />
      </Box>
    );
  const streaming = message.state === "open";
  return (
    <div class={`message ${streaming ? "streaming" : ""}`}>
      <div class="box-head">
        <h3>{safeInline(message.agent ?? "Agent", 60)}</h3>
        {message.state === "interrupted" && <StatusMark tone="warn" text="Interrupted" />}
        {message.stop_reason === "max_tokens" && <StatusMark tone="warn" text="Cut off at the length limit" />}
        <span class="grow" />
        {!streaming && message.text !== "" && <CopyButton text={message.text} />}
        <Time at={entry.ts} />
      </div>
      {message.reasoning !== undefined && (
        <details class="reasoning">
          <summary>Reasoning</summary>
          <PlainText text={message.reasoning} />
        </details>
      )}
      <Markdown text={message.text} streaming={streaming} />
    </div>
  );
}

function NoteBody({ note }: { note: NoteEvent }) {
  switch (note.type) {
    case "plan.created":
      return (
        <Line tone="" time={note.ts}>
          A plan of {note.payload.todos.length} {note.payload.todos.length === 1 ? "step" : "steps"} was made
        </Line>
      );
    case "plan.updated":
      return (
        <Line tone="" time={note.ts}>
          The plan changed{note.payload.reason === undefined ? "" : `: ${safeInline(wordsOf(note.payload.reason))}`}
        </Line>
      );
    case "recovery.started": {
      const { kind, attempt, max_attempts: most, wait_s: wait } = note.payload;
      return (
        <Line tone="warn" time={note.ts}>
          Recovering: {safeInline(wordsOf(kind), 60)}. Attempt {attempt} of {most}
          {wait > 0 ? ` after ${secondsOf(wait)}` : ""}
        </Line>
      );
    }
    case "guardrail.triggered":
      return (
        <Line tone="bad" time={note.ts}>
          Stopped by the guardrail {safeInline(note.payload.name, 60)}: {safeInline(note.payload.reason, 400)}
        </Line>
      );
    case "context.trimmed":
      return (
        <Line tone="" time={note.ts}>
          The conversation was shortened from {note.payload.before_tokens.toLocaleString("en")} to{" "}
          {note.payload.after_tokens.toLocaleString("en")} tokens
        </Line>
      );
    case "run.cancelling": {
      const { by, mode, escalated, reason, tool_call_id: call } = note.payload;
      return (
        <Line tone="warn" time={note.ts}>
          {safeInline(by, 60)} {escalated ? "insisted on stopping" : "asked to stop"} {call === undefined ? "the run" : "one call"}{" "}
          {mode === "now" ? "now" : "after this step"}
          {reason === undefined ? "" : `: ${safeInline(reason)}`}
        </Line>
      );
    }
    case "message.superseded":
      return (
        <Line tone="" time={note.ts}>
          An unfinished answer was withdrawn ({safeInline(wordsOf(note.payload.reason), 80)})
        </Line>
      );
    case "notice": {
      const tones: Record<string, Tone> = { info: "", warning: "warn", error: "bad" };
      return (
        <Line tone={tones[note.payload.level] ?? ""} time={note.ts}>
          {safeInline(note.payload.text, 600)}
        </Line>
      );
    }
  }
}

const correctionWords = (state: string, reason: string | undefined): string => {
  const why = reason === undefined ? "" : ` (${safeInline(wordsOf(reason), 80)})`;
  return (
    {
      accepted: "waits to be applied",
      held: `held${why}`,
      applied: "applied",
      returned: `not used${why}`,
      revoked: "taken back",
    }[state] ?? safeInline(state, 40)
  );
};
