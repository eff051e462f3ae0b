/** Stopping: gently, at once, by force; a whole run, or one call of it. */

import { useEffect, useState } from "preact/hooks";
import type { CancelOptions, Run, View } from "@midstream/client";

import { NotifyButton } from "./notify_button.js";
import { safeInline } from "../text/safe.js";
import { useChanges } from "./subscribed.js";
import { refused } from "./words.js";

/** How hard the run has been asked to stop. `asked`: somehow, before this page looked. */
export type Stage = "none" | "after_step" | "asked" | "now" | "forced";

/** The stage after a `run.cancelling`. Asking again means more: after the step, now, without a grace. */
export function nextStage(before: Stage, cancelling: { mode: string; escalated: boolean }): Stage {
  if (cancelling.mode === "after_step" && !cancelling.escalated) return "after_step";
  if (before === "now" || before === "forced") return "forced";
  return "now";
}

const SAYS: Readonly<Record<Stage, string>> = {
  none: "",
  after_step: "Stopping after this step.",
  asked: "Stopping.",
  now: "Stopping now. Running tools get a moment to finish.",
  forced: "Stopping by force.",
};

/** Calls shown with a button of their own. */
const MAX_CALLS = 8;
const RUNNING: ReadonlySet<string> = new Set(["running", "retrying", "background", "requested"]);

export function StopControls({ run }: { run: Run }) {
  useChanges(run);
  const [asked, setAsked] = useState<Stage>("none");
  const [sending, setSending] = useState(false);
  const [refusal, setRefusal] = useState("");
  useEffect(
    () =>
      run.onUpdate((update) => {
        if (update.kind === "reset") setAsked("none");
        else if (
          update.kind === "event" &&
          update.event.type === "run.cancelling" &&
          update.event.payload.tool_call_id === undefined
        ) {
          const { payload } = update.event;
          setAsked((before) => nextStage(before, payload));
        }
      }),
    [run],
  );
  const stage: Stage = asked === "none" && run.view.phase === "cancelling" ? "asked" : asked;
  if (run.ended) return null;
  if (run.can.length > 0 && !run.can.includes("cancel")) return null;
  const cancel = async (options: CancelOptions): Promise<void> => {
    setSending(true);
    setRefusal("");
    try {
      await run.cancel(options);
    } catch (error) {
      setRefusal(refused(error));
    }
    setSending(false);
  };
  return (
    <section class="stop" aria-label="Stop the run">
      <div class="stop-buttons">
        {stage === "none" && (
          <button type="button" disabled={sending} onClick={() => void cancel({ mode: "after_step" })}>
            Stop after this step
          </button>
        )}
        {(stage === "none" || stage === "after_step" || stage === "asked") && (
          <button type="button" class="danger" disabled={sending} onClick={() => void cancel({ mode: "now" })}>
            Stop now
          </button>
        )}
        {(stage === "now" || stage === "forced") && (
          <button
            type="button"
            class="danger"
            disabled={sending || stage === "forced"}
            onClick={() => void cancel({ mode: "now" })}
          >
            Force stop
          </button>
        )}
      </div>
      <p class="stop-said" role="status">
        {SAYS[stage]}
        {refusal !== "" && <span class="problem"> {refusal}</span>}
      </p>
      <RunningCalls run={run} calls={run.view.calls} />
      <NotifyButton />
    </section>
  );
}

function RunningCalls({ run, calls: all }: { run: Run; calls: View["calls"] }) {
  const calls = all.filter(({ state }) => RUNNING.has(state));
  if (calls.length === 0) return null;
  return (
    <details class="running-calls">
      <summary>{calls.length === 1 ? "1 call is running" : `${calls.length} calls are running`}</summary>
      <ul>
        {calls.slice(0, MAX_CALLS).map((call) => (
          <li key={call.tool_call_id}>
            <span>{safeInline(call.label === "" ? call.tool : call.label, 80)}</span>
            <CancelCall run={run} call={call} />
          </li>
        ))}
      </ul>
      {calls.length > MAX_CALLS && <p class="muted">And {calls.length - MAX_CALLS} more.</p>}
    </details>
  );
}

/** Cancels one call; the run goes on. Nothing for a call that is over. */
export function CancelCall({ run, call }: { run: Run; call: View["calls"][number] }) {
  const [asked, setAsked] = useState(false);
  const [refusal, setRefusal] = useState("");
  if (!RUNNING.has(call.state) && call.state !== "waiting_approval") return null;
  const cancel = async (): Promise<void> => {
    setAsked(true);
    try {
      await run.cancel({ toolCallId: call.tool_call_id });
    } catch (error) {
      setAsked(false);
      setRefusal(refused(error));
    }
  };
  return (
    <>
      <button type="button" class="small" disabled={asked} onClick={() => void cancel()}>
        {asked ? "Cancelling" : "Cancel"}
        <span class="visually-hidden"> {safeInline(call.label === "" ? call.tool : call.label, 80)}</span>
      </button>
      {refusal !== "" && (
        <span class="problem" role="alert">
          {refusal}
        </span>
      )}
    </>
  );
}
