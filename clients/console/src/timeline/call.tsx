/** A tool call: what it is, how far it is, what came of it. */

import type { CallView, Run } from "@midstream/client";
import { createContext } from "preact";
import { useContext } from "preact/hooks";

import { StatusMark } from "../runs/status.js";
import { CancelCall } from "../steering/stop.js";
import { PlainText } from "../text/plain.js";
import { asJson, safeInline, withoutAnsi } from "../text/safe.js";
import type { Entry } from "./order.js";
import { inWords, outcomeWords, Time, type Tone } from "./parts.js";
import { secondsOf, wordsOf } from "./words.js";

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

/** Up to this many characters a tool's result is shown without being asked for. */
const SHORT_PREVIEW = 280;

/** A result of one line up to this many characters needs no box. */
const ONE_LINE = 90;

export function CallBody({ entry }: { entry: Entry & { kind: "call" } }) {
  const { call, retries } = entry;
  const [tone, text] = CALL[call.state] ?? ["", safeInline(call.state, 30)];
  const args = call.args ?? call.args_preview;
  const done = call.state === "completed" || call.state === "failed";
  const elsewhere = call.via === "tool" ? undefined : call.via;
  const run = useContext(TimelineRun);
  return (
    <div class={`box call ${call.state}`}>
      <div class="box-head">
        <h3>{safeInline(call.label || call.tool)}</h3>
        <StatusMark tone={tone} text={text} />
        <span class="grow" />
        <code class="call-tool">{safeInline(call.tool, 80)}</code>
        {!done && run !== undefined && <CancelCall run={run} call={call} />}
        {call.duration_ms !== undefined && <span class="small muted">{secondsOf(call.duration_ms / 1000)}</span>}
        <Time at={entry.ts} />
      </div>
      {(call.description !== undefined || elsewhere !== undefined) && (
        <p class="small muted">
          {safeInline(call.description ?? "")}
          {elsewhere !== undefined && ` From ${safeInline(elsewhere, 60)}.`}
        </p>
      )}
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
