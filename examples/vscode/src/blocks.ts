/** A run as blocks of text, and what changed between two pictures of it. Pure: the panel draws it. */

import type { CallState, View } from "@midstream/client";
import { bounded, safeLine } from "./safe.js";

/** The newest. Whoever wants to read a longer run opens it in the console. */
export const MAX_BLOCKS = 400;

export interface Block {
  readonly key: string;
  readonly kind: "plan" | "user" | "assistant" | "call" | "end";
  readonly text: string;
}

/** The first `keep` blocks stay as they are; the rest are these. */
export interface Change {
  readonly keep: number;
  readonly blocks: readonly Block[];
}

type Call = View["calls"][number];

const STEPS = { pending: "☐", in_progress: "▸", completed: "☑", failed: "✗", skipped: "–" } as const;

const STATES: Record<CallState, string> = {
  preparing: "being prepared",
  waiting_approval: "waits for you",
  requested: "runs in an editor",
  running: "running",
  retrying: "will be tried again",
  background: "goes on in the background",
  completed: "done",
  failed: "failed",
};

const ENDS: ReadonlyMap<string, string> = new Map([
  ["completed", "The run has completed."],
  ["cancelled", "The run was stopped."],
]);

/** Messages, each with the calls it made; before them the plan, after them how it ended. */
export function blocksOf(view: View): readonly Block[] {
  const found: Block[] = [];
  if (view.plan.length > 0) {
    const steps = view.plan.map((todo) => `${STEPS[todo.status] ?? "?"} ${safeLine(todo.title)}`);
    found.push({ key: "plan", kind: "plan", text: steps.join("\n") });
  }
  const calls = new Map<string | undefined, Call[]>();
  for (const call of view.calls) calls.set(call.message_id, [...(calls.get(call.message_id) ?? []), call]);
  for (const message of view.messages) {
    const { message_id: key, role: kind, text } = message;
    if (text) found.push({ key, kind, text: bounded(text) });
    found.push(...(calls.get(key) ?? []).map(blockOfCall));
    calls.delete(key);
  }
  // Of messages that were taken back, or of none.
  for (const left of calls.values()) found.push(...left.map(blockOfCall));
  const end = view.status === "failed" ? `The run failed. ${bounded(view.failure?.text ?? "")}` : ENDS.get(view.status);
  if (end !== undefined) found.push({ key: "end", kind: "end", text: end });
  return found.slice(-MAX_BLOCKS);
}

/** What is to be drawn anew, or nothing. */
export function changeOf(before: readonly Block[], now: readonly Block[]): Change | undefined {
  let keep = 0;
  while (keep < before.length && keep < now.length && same(before[keep], now[keep])) keep++;
  return keep === before.length && keep === now.length ? undefined : { keep, blocks: now.slice(keep) };
}

function same(one: Block | undefined, other: Block | undefined): boolean {
  return one?.key === other?.key && one?.kind === other?.kind && one?.text === other?.text;
}

function blockOfCall(call: Call): Block {
  const { tool_call_id: key, state, fraction } = call;
  const how = state === "running" && fraction !== undefined ? `${Math.round(fraction * 100)} %` : (STATES[state] ?? state);
  const said = state === "completed" ? call.preview : call.text;
  const text = `${safeLine(call.label || call.tool)} (${how})${said ? `\n${safeLine(said)}` : ""}`;
  return { key, kind: "call", text };
}
