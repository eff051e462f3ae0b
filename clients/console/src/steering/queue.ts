/** Which approvals wait, which one is looked at, and what was typed for each. */

import { signal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import type { Approval } from "@midstream/client";

import type { Mistake } from "./check.js";
import type { DraftObject, JsonObject } from "./json.js";

/** Approval ids are a run's own; this one is the page's. */
export const keyOf = (approval: { readonly runId: string; readonly id: string }): string =>
  `${approval.runId}/${approval.id}`;

/** What somebody has typed and chosen for one approval, and how far its answer is. */
export interface Answering {
  readonly args: DraftObject;
  /** A scope to remember the approval for; empty: this call only. */
  readonly remember: string;
  /** Seconds that it is remembered; undefined: until revoked. */
  readonly forSeconds: number | undefined;
  readonly reason: string;
  /** A call of high risk was confirmed. */
  readonly confirmed: boolean;
  readonly sending: "approve" | "deny" | undefined;
  /** The newest refusal, in words. */
  readonly refusal: string;
  readonly mistakes: readonly Mistake[];
}

export interface Said {
  readonly id: number;
  readonly text: string;
}

/** Lines of news kept in sight at once. */
const MAX_SAID = 3;
/** Milliseconds that news stays: long enough to look up from something else. */
export const SAID_MS = 12_000;

export class Queue {
  readonly open: Signal<readonly Approval[]> = signal([]);
  /** Key of the approval that is looked at. */
  readonly shown: Signal<string | undefined> = signal(undefined);
  readonly minimised: Signal<boolean> = signal(false);
  /** The run whose page is shown: it lists its own approvals. */
  readonly here: Signal<string | undefined> = signal(undefined);
  readonly said: Signal<readonly Said[]> = signal([]);
  readonly answers: Signal<ReadonlyMap<string, Answering>> = signal(new Map());
  #news = 0;

  /** Takes the approvals that wait now, oldest first. The one looked at stays, or its place goes to the next. */
  waiting(approvals: readonly Approval[]): void {
    const before = this.open.peek();
    if (before.length === approvals.length && before.every((each, index) => each === approvals[index])) return;
    const shown = this.shown.peek();
    const keys = approvals.map(keyOf);
    if (shown === undefined || !keys.includes(shown)) {
      const at = before.findIndex((each) => keyOf(each) === shown);
      this.shown.value = at === -1 ? keys[0] : (keys[Math.min(at, keys.length - 1)] ?? undefined);
    }
    this.open.value = approvals;
    this.answers.value = new Map([...this.answers.peek()].filter(([key]) => keys.includes(key)));
    if (approvals.length === 0) this.minimised.value = false;
  }

  answering(approval: Approval): Answering {
    return this.answers.value.get(keyOf(approval)) ?? fresh(approval);
  }

  change(approval: Approval, change: Partial<Answering>): void {
    const key = keyOf(approval);
    // An answer that comes back for an approval that is gone has nobody to tell.
    if (!this.open.peek().some((each) => keyOf(each) === key)) return;
    const before = this.answers.peek().get(key) ?? fresh(approval);
    this.answers.value = new Map(this.answers.peek()).set(key, { ...before, ...change });
  }

  /** Looks at one, or goes on `step` places; around the ends. */
  look(to: string | number): void {
    const keys = this.open.peek().map(keyOf);
    if (typeof to === "string") {
      if (keys.includes(to)) this.shown.value = to;
    } else if (keys.length > 0) {
      const at = keys.indexOf(this.shown.peek() ?? "");
      this.shown.value = keys[(at + to + keys.length) % keys.length];
    }
  }

  /** Opens the dialog, at this approval if one is named. */
  review(key?: string): void {
    if (key !== undefined) this.look(key);
    this.minimised.value = false;
  }

  say(text: string): void {
    this.#news += 1;
    this.said.value = [...this.said.peek(), { id: this.#news, text }].slice(-MAX_SAID);
  }

  forget(id: number): void {
    this.said.value = this.said.peek().filter((each) => each.id !== id);
  }
}

const fresh = (approval: Approval): Answering => ({
  args: approval.args as JsonObject,
  remember: "",
  forSeconds: undefined,
  reason: "",
  confirmed: false,
  sending: undefined,
  refusal: "",
  mistakes: [],
});

/** The page's one queue. */
export const queue = new Queue();
