/** The dialog in which a person decides about one call. It can be put aside (Escape), and never answers by itself. */

import { useId, useLayoutEffect, useRef } from "preact/hooks";
import type { Approval, Client } from "@midstream/client";

import { safeInline } from "../text/safe.js";
import { argsSchema, edits, mistakesOf, send } from "./answering.js";
import { useSettled } from "./clock.js";
import { Facts, PreviewOf } from "./facts.js";
import type { Draft, DraftObject, JsonObject } from "./json.js";
import { keyOf } from "./queue.js";
import type { Answering, Queue } from "./queue.js";
import { Remember } from "./remember.js";
import { SchemaForm } from "./schema_form.js";
import { ShownValue } from "./shown_value.js";
import { useChanges } from "./subscribed.js";
import { scopeCovers, whyAsked } from "./words.js";

/** Milliseconds in which a new dialog takes no answer: the click or key was meant for something else. */
export const GUARD_MS = 500;
/** Whether keys go into this element as text. */
export function isField(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button", "submit"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable;
}

export function ApprovalDialog({ client, queue, visible }: { client: Client; queue: Queue; visible: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const approval = queue.open.value.find((each) => keyOf(each) === queue.shown.value);
  const showing = visible && approval !== undefined;
  const key = approval === undefined ? "" : keyOf(approval);
  const settled = useSettled(showing ? key : "", GUARD_MS) && showing;

  useLayoutEffect(() => {
    const element = dialog.current;
    if (element === null) return;
    if (showing && !element.open) {
      element.showModal();
      heading.current?.focus();
    } else if (!showing && element.open) {
      // The browser gives the focus back to where it was.
      element.close();
      if (document.activeElement === document.body) {
        // What had it is gone: the page's content is the next best place to go on from.
        const main = document.querySelector<HTMLElement>("main");
        main?.setAttribute("tabindex", "-1");
        main?.focus();
      }
    }
  }, [showing]);
  useLayoutEffect(() => {
    if (showing) heading.current?.focus();
  }, [key]);

  return (
    <dialog
      ref={dialog}
      class="approval"
      aria-labelledby="approval-label"
      onCancel={(event) => {
        event.preventDefault();
        queue.minimised.value = true;
      }}
      onClose={() => {
        // A browser may close it without asking, at a second Escape: then it is put aside all the same.
        if (queue.open.peek().length > 0 && showing) queue.minimised.value = true;
      }}
      // Shortcuts of the page below mean nothing here.
      onKeyDown={(event) => event.stopPropagation()}
    >
      {approval !== undefined && showing && (
        <Decision key={key} client={client} queue={queue} approval={approval} settled={settled} heading={heading} />
      )}
    </dialog>
  );
}

interface DecisionProps {
  readonly client: Client;
  readonly queue: Queue;
  readonly approval: Approval;
  readonly settled: boolean;
  readonly heading: { current: HTMLHeadingElement | null };
}

function Decision({ client, queue, approval, settled, heading }: DecisionProps) {
  const run = client.run(approval.runId);
  useChanges(run);
  useChanges(client);
  const id = useId();
  const reason = useRef<HTMLTextAreaElement>(null);
  const answering = queue.answering(approval);
  const mistakes = mistakesOf(approval, answering);
  const edited = Object.keys(edits(approval, answering)).length > 0;
  const change = (next: Partial<Answering>): void => queue.change(approval, next);
  const may = run === undefined || run.can.length === 0 || run.can.includes("approve");
  const busy = answering.sending !== undefined;
  const offers = (decision: string): boolean =>
    approval.decisions.length === 0 || approval.decisions.includes(decision);
  // What was focused keeps the focus while the answer is under way, so nothing is disabled then.
  const ready = settled && may;
  const canDeny = ready && offers("deny");
  const canApprove =
    ready && offers("approve") && mistakes.length === 0 && (approval.risk !== "high" || answering.confirmed);
  const answer = (decision: "approve" | "deny"): void => {
    if (!busy && (decision === "approve" ? canApprove : canDeny)) void send(queue, approval, decision);
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    const strong = event.ctrlKey || event.metaKey;
    if (event.key === "Enter" && strong) {
      event.preventDefault();
      // A key that is held down repeats: it would answer the next call as well.
      if (!event.repeat) answer(event.shiftKey ? "deny" : "approve");
    } else if (strong || event.altKey || isField(event.target)) {
      return;
    } else if (event.key === "d") {
      event.preventDefault();
      reason.current?.focus();
    } else if (event.key === "n" || event.key === "p") {
      event.preventDefault();
      queue.look(event.key === "n" ? 1 : -1);
    }
  };

  const count = queue.open.value.length;
  const at = queue.open.value.findIndex((each) => each === approval) + 1;
  return (
    <div class={`decision risk-${approval.risk}`} onKeyDown={onKeyDown}>
      <header class="decision-head">
        <p class="decision-count">{count > 1 ? `Approval ${at} of ${count}` : "Your approval is needed"}</p>
        {count > 1 && (
          <>
            <button
              type="button"
              class="small"
              aria-label="Previous approval"
              aria-keyshortcuts="p"
              onClick={() => queue.look(-1)}
            >
              Previous
            </button>
            <button
              type="button"
              class="small"
              aria-label="Next approval"
              aria-keyshortcuts="n"
              onClick={() => queue.look(1)}
            >
              Next
            </button>
          </>
        )}
        <button type="button" class="small" aria-keyshortcuts="Escape" onClick={() => (queue.minimised.value = true)}>
          Later
        </button>
      </header>
      <div class="decision-body">
        <h2 id="approval-label" ref={heading} tabIndex={-1}>
          {safeInline(approval.label === "" ? approval.tool : approval.label)}
        </h2>
        <Facts approval={approval} run={run} />
        <p class={approval.reason === "policy" ? "why" : "why strong"}>{whyAsked(approval.reason)}</p>
        {approval.preview !== undefined && <PreviewOf kind={approval.preview.kind} data={approval.preview.data} />}
        <section aria-labelledby={`${id}-args`}>
          <div class="section-head">
            <h3 id={`${id}-args`}>Arguments</h3>
            {edited && (
              <button
                type="button"
                class="small"
                onClick={() => change({ args: approval.args as JsonObject, mistakes: [] })}
              >
                Reset all
              </button>
            )}
          </div>
          {approval.editable && offers("approve") && may ? (
            <SchemaForm
              id={`${id}-form`}
              label="Arguments of the call"
              schema={argsSchema(approval)}
              value={answering.args as Draft}
              original={approval.args as JsonObject}
              mistakes={[...mistakes, ...answering.mistakes]}
              keepsAll
              onChange={(args) => change({ args: args as DraftObject, mistakes: [] })}
            />
          ) : (
            <ShownValue value={approval.args as JsonObject} />
          )}
        </section>
        {offers("approve") && may && approval.rememberScopes.length > 0 && (
          <Remember approval={approval} answering={answering} change={change} />
        )}
        {offers("deny") && may && (
          <div class="form-entry">
            <label for={`${id}-reason`}>Reason, if you deny</label>
            <p class="hint" id={`${id}-reason-help`}>
              The agent reads it and goes on without this call.
            </p>
            <textarea
              ref={reason}
              id={`${id}-reason`}
              aria-describedby={`${id}-reason-help`}
              rows={2}
              maxLength={2000}
              value={answering.reason}
              onInput={(event) => change({ reason: event.currentTarget.value })}
            />
          </div>
        )}
        {!may && <p class="why strong">You may look at this run, but not answer it.</p>}
      </div>
      <footer class="decision-foot">
        {approval.risk === "high" && offers("approve") && may && (
          <label class="check confirm" for={`${id}-confirm`}>
            <input
              type="checkbox"
              id={`${id}-confirm`}
              checked={answering.confirmed}
              onChange={(event) => change({ confirmed: event.currentTarget.checked })}
            />
            <span>This call is of high risk. I have looked at it and want it to run.</span>
          </label>
        )}
        <div class="decision-said" aria-live="polite">
          {answering.refusal !== "" && <p class="problem">{answering.refusal}</p>}
          {mistakes.length > 0 && <p class="problem">Correct the marked fields first.</p>}
          {answering.remember !== "" && (
            <p class="scope-covers">
              {scopeCovers(
                { scope: answering.remember, tool: approval.tool, agent: run?.view.agent ?? "" },
                answering.remember === "run" ? undefined : answering.forSeconds,
              )}
            </p>
          )}
          {client.connection.status !== "ready" && (
            <p class="muted">Not connected. Your answer will be sent when the connection is back.</p>
          )}
        </div>
        <div class="decision-buttons">
          {offers("deny") && (
            <button
              type="button"
              class="danger"
              disabled={!canDeny}
              aria-disabled={busy}
              aria-keyshortcuts="Control+Shift+Enter"
              onClick={() => answer("deny")}
            >
              {answering.sending === "deny" ? "Denying" : "Deny"}
            </button>
          )}
          {offers("approve") && (
            <button
              type="button"
              class="primary"
              disabled={!canApprove}
              aria-disabled={busy}
              aria-keyshortcuts="Control+Enter"
              onClick={() => answer("approve")}
            >
              {answering.sending === "approve" ? "Approving" : approveText(edited, answering.remember !== "")}
            </button>
          )}
        </div>
        <p class="keys">
          <span>
            <kbd>Ctrl</kbd>+<kbd>Enter</kbd> approve
          </span>
          <span>
            <kbd>Ctrl</kbd>+<kbd>Shift</kbd>+<kbd>Enter</kbd> deny
          </span>
          <span>
            <kbd>d</kbd> reason
          </span>
          {count > 1 && (
            <span>
              <kbd>n</kbd> <kbd>p</kbd> next, previous
            </span>
          )}
          <span>
            <kbd>Esc</kbd> later, <kbd>Alt</kbd>+<kbd>A</kbd> back
          </span>
        </p>
      </footer>
    </div>
  );
}

const approveText = (edited: boolean, remembered: boolean): string =>
  edited
    ? remembered
      ? "Approve with changes and remember"
      : "Approve with changes"
    : remembered
      ? "Approve and remember"
      : "Approve";
