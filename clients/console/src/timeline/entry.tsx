/** One entry of the timeline. Each is drawn again only when its entry became another object. */

import type { CallView, Run, RunCancelled, RunFailed, View } from "@midstream/client";
import { createContext, type ComponentChildren } from "preact";
import { memo } from "preact/compat";
import { useContext } from "preact/hooks";

import { StatusMark } from "../runs/status.js";
import { CancelCall } from "../steering/stop.js";
import { Markdown } from "../text/markdown.js";
import { CopyButton, PlainText } from "../text/plain.js";
import { asJson, safeInline, withoutAnsi } from "../text/safe.js";
import { ObjectBody } from "./object.js";
import type { Entry, NoteEvent } from "./order.js";
import { secondsOf, wordsOf } from "./words.js";

type Tone = "good" | "warn" | "bad" | "busy" | "";

const CALL: Record<CallView["state"], readonly [Tone, string]> = {
  preparing: ["", "Preparing"],
  waiting_approval: ["warn", "Needs approval"],
  requested: ["busy", "Asked of a client"],
  running: ["busy", "Running"],
  retrying: ["warn", "Retrying"],
  background: ["busy", "In the background"],
  completed: ["good", "Done"],
  failed: ["bad", "Failed"],
};

/** The run whose timeline it is: single calls can be stopped where they stand. */
export const TimelineRun = createContext<Run | undefined>(undefined);

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

function Time({ at }: { at: string | undefined }) {
  if (at === undefined || at === "") return null;
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return null;
  return (
    <time class="time" dateTime={at} title={date.toLocaleString()}>
      {date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })}
    </time>
  );
}

function Line({ tone, time, children }: { tone: Tone; time: string | undefined; children: ComponentChildren }) {
  return (
    <div class={`line ${tone}`}>
      <span class="line-mark" aria-hidden="true" />
      <p class="grow">{children}</p>
      <Time at={time} />
    </div>
  );
}

interface BoxProps {
  title: ComponentChildren;
  tone: Tone | "plain" | "person";
  time: string | undefined;
  aside?: ComponentChildren;
  children: ComponentChildren;
}

function Box({ title, tone, time, aside, children }: BoxProps) {
  return (
    <div class={`box ${tone}`}>
      <div class="box-head">
        <h3>{title}</h3>
        {aside}
        <span class="grow" />
        <Time at={time} />
      </div>
      {children}
    </div>
  );
}

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

/** Up to this many characters a tool's result is shown without being asked for. */
const SHORT_PREVIEW = 280;

/** A result of one line up to this many characters needs no box. */
const ONE_LINE = 90;

function CallBody({ entry }: { entry: Entry & { kind: "call" } }) {
  const { call, retries } = entry;
  const [tone, text] = CALL[call.state] ?? ["", safeInline(call.state, 30)];
  const args = call.args ?? call.args_preview;
  const done = call.state === "completed" || call.state === "failed";
  const run = useContext(TimelineRun);
  return (
    <div class={`box call ${call.state}`}>
      <div class="box-head">
        <h3>{safeInline(call.label || call.tool)}</h3>
        <StatusMark tone={tone} text={text} />
        <span class="grow" />
        {!done && run !== undefined && <CancelCall run={run} call={call} />}
        {call.duration_ms !== undefined && <span class="small muted">{secondsOf(call.duration_ms / 1000)}</span>}
        <Time at={entry.ts} />
      </div>
      <p class="small muted call-tool">
        <code>{safeInline(call.tool, 80)}</code>
        {call.description !== undefined && <> {safeInline(call.description)}</>}
        {call.via !== undefined && call.via !== "tool" && <> {"\u00b7"} from {safeInline(call.via, 60)}</>}
      </p>
      {!done && (call.fraction !== undefined || call.text !== undefined) && (
        <div class="progress">
          {call.fraction !== undefined && (
            <progress max={1} value={Math.min(1, Math.max(0, call.fraction))} aria-label={safeInline(call.label, 80)} />
          )}
          <span class="small">{safeInline(call.text ?? `${Math.round((call.fraction ?? 0) * 100)} %`)}</span>
        </div>
      )}
      {retries.map((retry) => (
        <p class="small muted" key={retry.attempt}>
          Attempt {retry.attempt - 1} of {retry.maxAttempts} failed ({safeInline(wordsOf(retry.code), 60)}); tried again after{" "}
          {secondsOf(retry.waitS)}
        </p>
      ))}
      {call.state === "failed" && (
        <p class="call-failure">
          {safeInline(call.text ?? wordsOf(call.code ?? "failed"), 600)}
          <span class="small muted">
            {" "}
            {call.outcome !== undefined && outcomeWords(call.outcome)}
            {call.execution_id !== undefined && ` Record ${safeInline(call.execution_id, 64)}.`}
          </span>
        </p>
      )}
      {args !== undefined && Object.keys(args).length > 0 && (
        <details>
          <summary>Arguments</summary>
          <PlainText text={asJson(args)} class="code" />
        </details>
      )}
      {call.chunk !== undefined && !done && (
        <PlainText ansi="strip" class="code" text={inWords(call.chunk.data)} />
      )}
      {call.preview !== undefined && call.preview !== "" && <Preview call={call} preview={call.preview} />}
    </div>
  );
}

function Preview({ call, preview }: { call: CallView; preview: string }) {
  const whole = call.truncated !== true && call.partial !== true;
  if (whole && preview.length <= ONE_LINE && !preview.includes("\n"))
    return <p class="call-short">{safeInline(withoutAnsi(preview), ONE_LINE * 2)}</p>;
  return (
    <details open={preview.length <= SHORT_PREVIEW}>
      <summary>
        Result{call.truncated === true ? ", its beginning" : ""}
        {call.partial === true ? ", not complete" : ""}
      </summary>
      <PlainText ansi="strip" class="code" text={preview} />
    </details>
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

interface EndProps {
  view: View;
  time: string | undefined;
  onResume: EntryProps["onResume"];
}

function EndBody({ view, onResume, time }: EndProps) {
  if (view.failure !== undefined) return <FailedBody failure={view.failure} onResume={onResume} time={time} />;
  if (view.cancelled !== undefined) {
    const { by, reason } = view.cancelled;
    return (
      <Box title="Cancelled" tone="plain" time={time}>
        <p>
          By {safeInline(by, 60)}
          {reason === undefined ? "" : `: ${safeInline(reason)}`}
        </p>
        <Effects effects={view.cancelled.effects} />
      </Box>
    );
  }
  const said = view.messages.at(-1)?.text === view.result;
  return (
    <Box title="Completed" tone="good" time={time}>
      {!said && view.result !== undefined && <Result result={view.result} />}
      {view.usage !== undefined && view.usage.total_tokens > 0 && (
        <p class="small muted">{view.usage.total_tokens.toLocaleString("en")} tokens</p>
      )}
    </Box>
  );
}

function Result({ result }: { result: unknown }) {
  return typeof result === "string" ? <Markdown text={result} /> : <PlainText class="code" text={asJson(result)} />;
}

function FailedBody({ failure, onResume, time }: { failure: RunFailed; onResume: EntryProps["onResume"]; time: string | undefined }) {
  const { resume } = failure;
  return (
    <Box title="Failed" tone="bad" time={time} aside={<span class="small muted">{safeInline(wordsOf(failure.code), 60)}</span>}>
      <PlainText text={failure.text} />
      {failure.completed.length > 0 && (
        <div class="small">
          <p class="muted">Done before that</p>
          <ul class="done">
            {failure.completed.slice(0, 50).map((title, index) => (
              <li key={index}>{safeInline(title)}</li>
            ))}
          </ul>
        </div>
      )}
      <Effects effects={failure.effects} />
      {resume !== undefined && (
        <div class="row">
          <span class="small grow">{safeInline(resume.text, 400)}</span>
          {resume.run_id !== undefined && onResume !== undefined && (
            <button type="button" onClick={() => onResume(resume.run_id!)}>
              Go on from here
            </button>
          )}
        </div>
      )}
      <p class="small muted">
        Error <code>{safeInline(failure.error_id, 64)}</code> in the server's log
      </p>
    </Box>
  );
}

function Effects({ effects }: { effects: RunCancelled["effects"] }) {
  if (effects.length === 0) return null;
  return (
    <details open={effects.some((effect) => effect.outcome === "unknown")}>
      <summary>What became of its {effects.length === 1 ? "call" : `${effects.length} calls`}</summary>
      <ul class="done small">
        {effects.slice(0, 200).map((effect) => (
          <li key={effect.tool_call_id}>
            <code>{safeInline(effect.tool, 80)}</code>: {outcomeWords(effect.outcome)}
          </li>
        ))}
      </ul>
    </details>
  );
}

const outcomeWords = (outcome: string): string =>
  ({
    not_started: "Nothing was done.",
    failed: "It failed, and nothing goes on.",
    unknown: "Whether it had an effect is not known.",
    completed: "It was done.",
  })[outcome] ?? safeInline(wordsOf(outcome), 60);

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

const inWords = (value: unknown): string => (typeof value === "string" ? value : asJson(value));

