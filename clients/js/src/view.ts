/**
 * `fold`: what each event does to a run's view. It is the server's own function in another language: PROTOCOL.md,
 * section 6, says it in words, and protocol/conformance/fold in cases that both of them pass.
 *
 * Persistent: a fold returns a new view and shares every item that did not change, so `===` tells what did. Nothing
 * that goes in is ever changed. Total: an event of an unknown type, with a payload that cannot be read, or about an
 * item that is not there moves the cursor and nothing else.
 *
 * Cost: an event copies the references of the one list that it changes.
 */

import { isObject, known } from "./known.js";
import type * as wire from "./protocol.gen.js";
import type { CallState, EventOf, EventType, Pending, RunEvent, View } from "./protocol.js";

/** What changes: a field that is undefined is removed. */
type Changes = { readonly [Field in keyof View]?: View[Field] | undefined };

/** The view of a run before its first event. */
export function emptyView(runId: string): View {
  return {
    run_id: runId,
    thread_id: "",
    agent: "",
    status: "running",
    messages: [],
    plan: [],
    steps: [],
    calls: [],
    pending: [],
    corrections: [],
    objects: [],
    notices: [],
    cursor: { seq: 0 },
  };
}

/**
 * The view that a snapshot (parsed JSON) says, without fields this version does not know; undefined if it is none.
 * What is the same in `before` keeps its identity.
 */
export function readView(snapshot: unknown, before?: View): View | undefined {
  if (!isObject(snapshot)) return undefined;
  const read = known(snapshot) as Partial<View>;
  if (read.run_id === undefined || read.cursor?.seq === undefined) return undefined;
  const view = { ...emptyView(read.run_id), ...read };
  return before ? share(before, view) : view;
}

/**
 * The view after `event`; `view` itself if it has seen that seq. `epoch` names the log's history in the cursor, which
 * keeps the one it has if none is given. Whether events are missing in between is the caller's to check. Throws
 * RangeError for an event of another run.
 */
export function fold(view: View, event: RunEvent, epoch?: string): View {
  if (event.run_id !== view.run_id) {
    throw new RangeError(`an event of run ${event.run_id} cannot be folded into the view of run ${view.run_id}`);
  }
  if (!(event.seq > view.cursor.seq)) return view;
  const history = epoch || view.cursor.epoch;
  const cursor = history === undefined ? { seq: event.seq } : { epoch: history, seq: event.seq };
  return put(view, { ...changesOf(view, event), cursor });
}

/** The view after all of `events`, as `fold` one by one makes it. */
export function foldAll(view: View, events: Iterable<RunEvent>, epoch?: string): View {
  for (const event of events) view = fold(view, event, epoch);
  return view;
}

function changesOf(view: View, event: RunEvent): Changes {
  if (!Object.hasOwn(FOLDS, event.type) || !isObject(event.payload)) return {};
  return (FOLDS[event.type] as Fold<unknown>)(view, known(event.payload), event);
}

// -- items in order, found from the end because what changes is nearly always young

function put<Item extends object>(item: Item, changes: { [Field in keyof Item]?: Item[Field] | undefined }): Item {
  const changed = { ...item, ...changes } as Item;
  for (const field in changed) {
    if (changed[field] === undefined) delete changed[field];
  }
  return changed;
}

function find<Item, Key extends keyof Item>(items: readonly Item[], key: Key, id: Item[Key]): number {
  return items.findLastIndex((item) => item[key] === id);
}

function withItem<Item>(items: readonly Item[], at: number, item: Item): readonly Item[] {
  // Not by spreading or `with`: `concat` and `slice` copy a long list in one go.
  if (at < 0) return items.concat([item]);
  const changed = items.slice();
  changed[at] = item;
  return changed;
}

function without<Item>(items: readonly Item[], isGone: (item: Item) => boolean): readonly Item[] {
  return items.some(isGone) ? items.filter((item) => !isGone(item)) : items;
}

/** `after`, but with the very parts of `before` that are equal: what is sent whole says little that is new. */
function share<Value>(before: Value, after: Value): Value;
function share(before: unknown, after: unknown): unknown {
  if (before === after || !isCompound(before) || !isCompound(after)) return after;
  if (Array.isArray(before) !== Array.isArray(after)) return after;
  const keys = Object.keys(after);
  let equal = Object.keys(before).length === keys.length;
  const parts = keys.map((key): [string, unknown] => {
    const there = Object.hasOwn(before, key);
    const part = there ? share(before[key], after[key]) : after[key];
    equal &&= there && part === before[key];
    return [key, part];
  });
  if (equal) return before;
  return Array.isArray(after) ? parts.map(([, part]) => part) : Object.fromEntries(parts);
}

const isCompound = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

// -- messages

function inMessage(view: View, id: string, change: (message: wire.MessageView) => wire.MessageView): Changes {
  const at = find(view.messages, "message_id", id);
  const message = view.messages[at];
  return message ? { messages: withItem(view.messages, at, change(message)) } : {};
}

function ofStep(event: RunEvent): { step_id?: string } {
  return typeof event.step_id === "string" ? { step_id: event.step_id } : {};
}

// -- tool calls

/** These say how a call is getting on: the next state of the call does not inherit them. */
const PASSING = {
  text: undefined,
  fraction: undefined,
  chunk: undefined,
  code: undefined,
  max_attempts: undefined,
  wait_s: undefined,
  expires_at: undefined,
  expires_in_s: undefined,
};

type Said = { [Field in keyof wire.CallView]?: wire.CallView[Field] | undefined } & { tool_call_id: string };

/** The call with what was `said` written over it; a call first heard of now is named as well as `said` can. */
function inCall(view: View, said: Said, state?: CallState): Changes {
  const at = find(view.calls, "tool_call_id", said.tool_call_id);
  const call: wire.CallView = view.calls[at] ?? {
    tool_call_id: said.tool_call_id,
    tool: "",
    label: "",
    state: "running",
  };
  return { calls: withItem(view.calls, at, put(call, state ? { ...said, state } : said)) };
}

type ToolType = Extract<EventType, `tool.${string}`>;

const toCall =
  (state: CallState) =>
  (view: View, payload: EventOf<ToolType>["payload"]): Changes =>
    inCall(view, { ...PASSING, ...payload }, state);

const endOfCall =
  (state: CallState) =>
  (view: View, payload: EventOf<"tool.completed" | "tool.failed">["payload"]): Changes => ({
    ...toCall(state)(view, payload),
    ...closed(view, "tool", "tool_call_id", payload.tool_call_id),
  });

// -- questions

function opened(view: View, question: Pending): Changes {
  return { pending: withItem(view.pending, -1, question) };
}

function closed(view: View, kind: Pending["kind"], key: string, id: string): Changes {
  const isAnswered = (item: object) => (item as Record<string, unknown>)[key] === id;
  return { pending: without(view.pending, (item) => item.kind === kind && isAnswered(item)) };
}

// -- corrections

type CorrectionType = Extract<EventType, `correction.${string}`>;

const toCorrection =
  (state: wire.CorrectionView["state"]) =>
  (view: View, payload: EventOf<CorrectionType>["payload"]): Changes => {
    const at = find(view.corrections, "correction_id", payload.correction_id);
    const correction = view.corrections[at] ?? { ...payload, mode: "next_step", state };
    return { corrections: withItem(view.corrections, at, put(correction, { reason: undefined, ...payload, state })) };
  };

// -- the end: nothing is going on any more, so nothing says what is going on

const ended = ({ pending }: View, usage: wire.Usage): Changes => ({
  phase: undefined,
  status_text: undefined,
  pending: without(pending, () => true),
  usage,
});

type Fold<Payload> = (view: View, payload: Payload, event: RunEvent) => Changes;

/** `guardrail.triggered` and `context.trimmed` move the cursor only. */
const FOLDS: { readonly [Type in EventType]?: Fold<EventOf<Type>["payload"]> } = {
  "run.started": (_view, { agent = "", thread_id = "" }) => ({ agent, thread_id, status: "running" }),
  "run.status": (view, { status = view.status, phase, text }) => ({ status, phase, status_text: text }),
  "run.step": ({ steps }, step) => {
    const at = find(steps, "step_id", step.step_id);
    return { steps: withItem(steps, at, { ...steps[at], ...step }) };
  },
  "run.cancelling": (_view, { tool_call_id }) => (tool_call_id === undefined ? { phase: "cancelling" } : {}),
  "recovery.started": () => ({ phase: "recovering" }),
  "thread.titled": (_view, { title }) => ({ title }),
  "plan.created": ({ plan }, { todos = plan }) => ({ plan: share<View["plan"]>(plan, todos) }),
  "plan.updated": ({ plan }, { todos = plan }) => ({ plan: share<View["plan"]>(plan, todos) }),

  "message.started": ({ messages }, { message_id, role, agent }, event) => {
    const message: wire.MessageView = { message_id, role, text: "", state: "open", agent, ...ofStep(event) };
    return { messages: withItem(messages, find(messages, "message_id", message_id), message) };
  },
  "message.delta": (view, { message_id, text = "" }) =>
    inMessage(view, message_id, (message) => ({ ...message, text: message.text + text })),
  "reasoning.delta": (view, { message_id, text = "" }) =>
    inMessage(view, message_id, (message) => ({ ...message, reasoning: (message.reasoning ?? "") + text })),
  "message.completed": ({ messages }, { message_id, role, text, state, stop_reason }, event) => {
    const at = find(messages, "message_id", message_id);
    const message = messages[at] ?? { message_id, role, text, state, ...ofStep(event) };
    return { messages: withItem(messages, at, put(message, { role, text, state, stop_reason })) };
  },
  "message.superseded": ({ messages, calls }, { message_id }) => ({
    messages: without(messages, (message) => message.message_id === message_id),
    calls: without(calls, (call) => call.message_id === message_id && call.state === "preparing"),
  }),

  "tool.preparing": toCall("preparing"),
  "tool.started": toCall("running"),
  "tool.requested": (view, payload) => ({
    ...toCall("requested")(view, payload),
    ...opened(view, { kind: "tool", ...payload }),
  }),
  "tool.progress": (view, payload) => {
    // Work is seen again: the wait before a retry is over.
    const waited = view.calls[find(view.calls, "tool_call_id", payload.tool_call_id)]?.state === "retrying";
    return inCall(view, payload, waited ? "running" : undefined);
  },
  "tool.retrying": toCall("retrying"),
  "tool.pending": toCall("background"),
  "tool.completed": endOfCall("completed"),
  "tool.failed": endOfCall("failed"),

  "approval.required": (view, payload) => {
    const { tool_call_id, tool, label, args_digest } = payload;
    return {
      ...inCall(view, { tool_call_id, tool, label, args_digest }, "waiting_approval"),
      ...opened(view, { kind: "approval", ...payload }),
    };
  },
  "approval.resolved": (view, { approval_id, tool_call_id, args_digest }) => ({
    ...closed(view, "approval", "approval_id", approval_id),
    // Answered, and not yet started or failed: that event comes next and says which.
    ...(find(view.calls, "tool_call_id", tool_call_id) < 0
      ? {}
      : inCall(view, { tool_call_id, args_digest }, "preparing")),
  }),
  "input.required": (view, payload) => opened(view, { kind: "input", ...payload }),
  "input.resolved": (view, { input_id }) => closed(view, "input", "input_id", input_id),

  "correction.accepted": toCorrection("accepted"),
  "correction.held": toCorrection("held"),
  "correction.applied": toCorrection("applied"),
  "correction.returned": toCorrection("returned"),
  "correction.revoked": toCorrection("revoked"),

  "object.created": ({ objects }, object) => ({
    objects: withItem(objects, find(objects, "object_id", object.object_id), object),
  }),
  "usage.updated": (_view, usage) => ({ usage }),
  notice: ({ notices }, notice) => ({ notices: withItem(notices, -1, notice) }),

  "run.completed": (view, { result, usage }) => ({
    ...ended(view, usage),
    status: "completed",
    result: result ?? undefined,
  }),
  "run.failed": (view, failure) => ({ ...ended(view, failure.usage), status: "failed", failure }),
  "run.cancelled": (view, cancelled) => ({ ...ended(view, cancelled.usage), status: "cancelled", cancelled }),
};
