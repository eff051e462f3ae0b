/** The parts of the dialog that only tell: who asks, how long there is to answer, what will happen. */

import type { Approval, Run } from "@midstream/client";

import { PlainText } from "../text/plain.js";
import { asJson, safeInline } from "../text/safe.js";
import { askedBy, runName } from "./asked_by.js";
import { useNow } from "./clock.js";
import { DiffView } from "./diff_view.js";
import { useChanges } from "./subscribed.js";
import { timeLeft, whenExpired } from "./words.js";

/** Seconds left from which the time is shown as urgent. */
const URGENT_S = 60;

/** What a person needs to know of a call before they decide. */
export function Facts({ approval, run }: { approval: Approval; run: Run | undefined }) {
  useChanges(run);
  const by = run === undefined ? { agent: "", step: "" } : askedBy(run.view, approval.callId);
  return (
    <>
      <dl class="decision-facts">
        <div>
          <dt>Risk</dt>
          <dd>
            <span class={`status ${approval.risk === "high" ? "bad" : approval.risk === "medium" ? "warn" : "good"}`}>
              {approval.risk}
            </span>
          </dd>
        </div>
        <div>
          <dt>Tool</dt>
          <dd>
            <code>{safeInline(approval.tool, 80)}</code>
          </dd>
        </div>
        <div>
          <dt>Asked by</dt>
          <dd>
            {safeInline(by.agent === "" ? "the agent" : by.agent, 80)}
            {by.step !== "" && `, in the step “${safeInline(by.step, 80)}”`}
          </dd>
        </div>
        <div>
          <dt>Run</dt>
          <dd>
            <a href={`#/runs/${encodeURIComponent(approval.runId)}`}>{safeInline(runName(run, approval.runId), 60)}</a>
          </dd>
        </div>
        <div>
          <dt>Time left</dt>
          <dd>
            <TimeLeft until={approval.expiresAt} />
          </dd>
        </div>
      </dl>
      <p class="hint">{whenExpired(approval.onExpire)}</p>
    </>
  );
}

/** A count-down that is read aloud on demand only: one that speaks every second is a nuisance. */
export function TimeLeft({ until }: { until: Date }) {
  const left = (until.getTime() - useNow()) / 1000;
  if (!Number.isFinite(left)) return null;
  return (
    <span class={`time-left${left < URGENT_S ? " urgent" : ""}`} role="timer" aria-live="off">
      {left <= 0 ? "over" : timeLeft(left)}
    </span>
  );
}

/** What the call will do, as its tool shows it. */
export function PreviewOf({ kind, data }: { kind: string; data: unknown }) {
  const text = typeof data === "string" ? data : asJson(data);
  return (
    <section class="preview" aria-label="What it will do">
      <h3>What it will do</h3>
      {kind === "diff" && typeof data === "string" ? (
        <DiffView text={text} label="Difference" />
      ) : (
        <PlainText text={text} class="code" />
      )}
    </section>
  );
}
