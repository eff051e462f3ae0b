/**
 * What the timeline shows, and in which order. The content of messages, calls, steps and corrections is the view's,
 * which is the law; the log adds the order in which they came, and what a view does not keep.
 */

import type {
  CallView,
  CorrectionView,
  EventOf,
  InputRequired,
  MessageView,
  ApprovalRequired,
  ObjectCreated,
  RunEvent,
  StepView,
  View,
} from "@midstream/client";

/** What only the log has, shown as a line of its own. */
export type NoteEvent = EventOf<
  | "plan.created"
  | "plan.updated"
  | "recovery.started"
  | "guardrail.triggered"
  | "context.trimmed"
  | "run.cancelling"
  | "message.superseded"
  | "notice"
>;

export interface Retry {
  readonly attempt: number;
  readonly maxAttempts: number;
  readonly code: string;
  readonly waitS: number;
}

interface Place {
  /** Stable over updates and resets: kind and id. */
  readonly key: string;
  /** The event it first appeared with; 0 where only a snapshot knows it. */
  readonly seq: number;
  readonly ts?: string;
  readonly stepId?: string;
}

export type Entry = Place & { readonly stage?: StepView } & (
    | { readonly kind: "message"; readonly message: MessageView; readonly correctionId?: string }
    | { readonly kind: "call"; readonly call: CallView; readonly retries: readonly Retry[] }
    | { readonly kind: "stage"; readonly step: StepView }
    | { readonly kind: "correction"; readonly correction: CorrectionView }
    | {
        readonly kind: "approval";
        readonly approval: ApprovalRequired;
        readonly resolved?: EventOf<"approval.resolved">["payload"];
      }
    | {
        readonly kind: "question";
        readonly question: InputRequired;
        readonly resolved?: EventOf<"input.resolved">["payload"];
      }
    | { readonly kind: "object"; readonly object: ObjectCreated }
    | { readonly kind: "note"; readonly note: NoteEvent }
    | { readonly kind: "end"; readonly view: View }
  );

export type EntryKind = Entry["kind"];

type Ref = Place & { readonly kind: EntryKind; readonly id: string };

/** Mutable, owned by one model: the order so far and what the view does not keep. */
export class Order {
  readonly #refs: Ref[] = [];
  readonly #known = new Set<string>();
  readonly #notes = new Map<string, NoteEvent>();
  readonly #retries = new Map<string, readonly Retry[]>();
  readonly #approvals = new Map<string, ApprovalRequired>();
  readonly #approved = new Map<string, EventOf<"approval.resolved">["payload"]>();
  readonly #questions = new Map<string, InputRequired>();
  readonly #answered = new Map<string, EventOf<"input.resolved">["payload"]>();
  readonly #correctionOf = new Map<string, string>();
  #last: readonly Entry[] = [];
  #lastByKey = new Map<string, Entry>();

  /** Where everything that this event speaks of stands from now on. */
  add(event: RunEvent): void {
    switch (event.type) {
      case "message.started":
      case "message.completed":
        if (event.type === "message.completed" && event.payload.correction_id !== undefined)
          this.#correctionOf.set(event.payload.message_id, event.payload.correction_id);
        return this.#place("message", event.payload.message_id, event);
      case "tool.retrying": {
        const { tool_call_id: id, attempt, max_attempts: maxAttempts, code, wait_s: waitS } = event.payload;
        this.#retries.set(id, [...(this.#retries.get(id) ?? []), { attempt, maxAttempts, code, waitS }]);
        return this.#place("call", id, event);
      }
      case "tool.preparing":
      case "tool.started":
      case "tool.requested":
      case "tool.progress":
      case "tool.pending":
      case "tool.completed":
      case "tool.failed":
        return this.#place("call", event.payload.tool_call_id, event);
      case "run.step":
        if (event.payload.kind === "stage") this.#place("stage", event.payload.step_id, event);
        return;
      case "approval.required":
        this.#approvals.set(event.payload.approval_id, event.payload);
        this.#place("call", event.payload.tool_call_id, event);
        return this.#place("approval", event.payload.approval_id, event);
      case "approval.resolved":
        this.#approved.set(event.payload.approval_id, event.payload);
        return;
      case "input.required":
        this.#questions.set(event.payload.input_id, event.payload);
        return this.#place("question", event.payload.input_id, event);
      case "input.resolved":
        this.#answered.set(event.payload.input_id, event.payload);
        return;
      case "correction.accepted":
        return this.#place("correction", event.payload.correction_id, event);
      case "object.created":
        return this.#place("object", event.payload.object_id, event);
      case "plan.updated":
        // Every step of a stage updates the plan; only a changed plan is news.
        if (event.payload.reason === undefined && event.payload.correction_id === undefined) return;
        return this.#note(event);
      case "plan.created":
      case "recovery.started":
      case "guardrail.triggered":
      case "context.trimmed":
      case "run.cancelling":
      case "message.superseded":
      case "notice":
        return this.#note(event);
      case "run.completed":
      case "run.failed":
      case "run.cancelled":
        return this.#place("end", "end", event);
      default:
        return;
    }
  }

  /** Begin from a snapshot: the view's lists, each item behind what it belongs to. */
  static of(view: View): Order {
    const order = new Order();
    const stages = stagesOf(view);
    const calls = new Map<string, CallView[]>();
    const loose: CallView[] = [];
    const messages = new Set(view.messages.map((message) => message.message_id));
    for (const call of view.calls) {
      if (call.message_id === undefined || !messages.has(call.message_id)) loose.push(call);
      else calls.set(call.message_id, [...(calls.get(call.message_id) ?? []), call]);
    }
    const placed = (kind: EntryKind, id: string, stepId?: string): void =>
      order.#place(kind, id, { seq: 0, ...(stepId === undefined ? {} : { step_id: stepId }) });
    const waiting = (call: CallView): void => {
      placed("call", call.tool_call_id);
      for (const pending of view.pending) {
        if (pending.kind !== "approval" || pending.tool_call_id !== call.tool_call_id) continue;
        order.#approvals.set(pending.approval_id, pending);
        placed("approval", pending.approval_id);
      }
    };
    const applied = new Map(view.corrections.filter((c) => c.state === "applied").map((c) => [c.text, c.correction_id]));
    for (const [index, message] of view.messages.entries()) {
      const stage = message.step_id === undefined ? undefined : stages.get(message.step_id);
      if (stage !== undefined) placed("stage", stage.step_id);
      const correction = index > 0 && message.role === "user" ? applied.get(message.text) : undefined;
      if (correction !== undefined) order.#correctionOf.set(message.message_id, correction);
      placed("message", message.message_id, message.step_id);
      for (const call of calls.get(message.message_id) ?? []) waiting(call);
    }
    loose.forEach(waiting);
    for (const step of view.steps) if (step.kind === "stage") placed("stage", step.step_id);
    for (const object of view.objects) placed("object", object.object_id);
    for (const [index, notice] of view.notices.entries()) {
      const note = { v: 1, seq: 0, run_id: view.run_id, type: "notice", ts: "", payload: notice } as const;
      order.#notes.set(`snapshot-${index}`, note);
      placed("note", `snapshot-${index}`);
    }
    for (const correction of view.corrections) placed("correction", correction.correction_id);
    for (const pending of view.pending) {
      if (pending.kind !== "input") continue;
      order.#questions.set(pending.input_id, pending);
      placed("question", pending.input_id);
    }
    if (isOver(view)) placed("end", "end");
    return order;
  }

  /** The entries of `view`, which has at least the events added. An entry of which nothing changed is the same object. */
  entries(view: View): readonly Entry[] {
    const messages = new Map(view.messages.map((item) => [item.message_id, item]));
    const calls = new Map(view.calls.map((item) => [item.tool_call_id, item]));
    const steps = new Map(view.steps.map((item) => [item.step_id, item]));
    const corrections = new Map(view.corrections.map((item) => [item.correction_id, item]));
    const objects = new Map(view.objects.map((item) => [item.object_id, item]));
    const stages = stagesOf(view);
    const byKey = new Map<string, Entry>();
    const all: Entry[] = [];
    let same = true;
    for (const ref of this.#refs) {
      const entry = this.#entry(ref, view, { messages, calls, steps, corrections, objects, stages });
      if (entry === undefined) continue;
      const before = this.#lastByKey.get(ref.key);
      const kept = before !== undefined && alike(before, entry) ? before : entry;
      same &&= this.#last[all.length] === kept;
      byKey.set(ref.key, kept);
      all.push(kept);
    }
    if (same && all.length === this.#last.length) return this.#last;
    this.#lastByKey = byKey;
    this.#last = all;
    return all;
  }

  /** Entries that did not change keep their identity over a reset too. */
  continueFrom(before: Order): this {
    this.#last = before.#last;
    this.#lastByKey = before.#lastByKey;
    return this;
  }

  #entry(ref: Ref, view: View, by: Index): Entry | undefined {
    const { key, seq, ts, stepId, id } = ref;
    const place: Place = { key, seq, ...(ts === undefined ? {} : { ts }), ...(stepId === undefined ? {} : { stepId }) };
    const stage = stepId === undefined ? undefined : by.stages.get(stepId);
    const within = stage === undefined ? place : { ...place, stage };
    switch (ref.kind) {
      case "message": {
        const message = by.messages.get(id);
        const correctionId = this.#correctionOf.get(id);
        if (message === undefined || isEmpty(message)) return undefined;
        return { ...within, kind: "message", message, ...(correctionId === undefined ? {} : { correctionId }) };
      }
      case "call": {
        const call = by.calls.get(id);
        return call && { ...within, kind: "call", call, retries: this.#retries.get(id) ?? NONE };
      }
      case "stage": {
        const step = by.steps.get(id);
        return step && { ...place, kind: "stage", step };
      }
      case "correction": {
        const correction = by.corrections.get(id);
        return correction && { ...within, kind: "correction", correction };
      }
      case "object": {
        const object = by.objects.get(id);
        return object && { ...within, kind: "object", object };
      }
      case "approval": {
        const approval = this.#approvals.get(id);
        const resolved = this.#approved.get(id);
        return approval && { ...within, kind: "approval", approval, ...(resolved === undefined ? {} : { resolved }) };
      }
      case "question": {
        const question = this.#questions.get(id);
        const resolved = this.#answered.get(id);
        return question && { ...within, kind: "question", question, ...(resolved === undefined ? {} : { resolved }) };
      }
      case "note": {
        const note = this.#notes.get(id);
        return note && { ...within, kind: "note", note };
      }
      case "end":
        return isOver(view) ? { ...place, kind: "end", view } : undefined;
    }
  }

  #note(event: NoteEvent): void {
    this.#notes.set(String(event.seq), event);
    this.#place("note", String(event.seq), event);
  }

  #place(kind: EntryKind, id: string, at: { seq: number; ts?: string; step_id?: string }): void {
    const key = `${kind}:${id}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    this.#refs.push({
      key,
      kind,
      id,
      seq: at.seq,
      ...(at.ts === undefined ? {} : { ts: at.ts }),
      ...(at.step_id === undefined ? {} : { stepId: at.step_id }),
    });
  }
}

interface Index {
  readonly messages: ReadonlyMap<string, MessageView>;
  readonly calls: ReadonlyMap<string, CallView>;
  readonly steps: ReadonlyMap<string, StepView>;
  readonly corrections: ReadonlyMap<string, CorrectionView>;
  readonly objects: ReadonlyMap<string, ObjectCreated>;
  readonly stages: ReadonlyMap<string, StepView>;
}

const NONE: readonly Retry[] = [];

/** A complete answer without words says nothing; its calls follow it. */
const isEmpty = (message: MessageView): boolean =>
  message.state === "complete" && message.text === "" && message.reasoning === undefined;

export const isOver = (view: View): boolean =>
  view.status === "completed" || view.status === "failed" || view.status === "cancelled";

/** For every step, the stage it is in (or is). Steps come in the order they began, so a parent stands before. */
export const stagesOf = (view: View): ReadonlyMap<string, StepView> => {
  const stages = new Map<string, StepView>();
  for (const step of view.steps) {
    const stage = step.kind === "stage" ? step : step.parent_step_id && stages.get(step.parent_step_id);
    if (stage) stages.set(step.step_id, stage);
  }
  return stages;
};

const alike = (a: Entry, b: Entry): boolean => {
  const left = a as unknown as Record<string, unknown>;
  const right = b as unknown as Record<string, unknown>;
  const keys = Object.keys(right);
  return Object.keys(left).length === keys.length && keys.every((key) => left[key] === right[key]);
};
