import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { type RunEvent, type View } from "../src/protocol.js";
import { emptyView, fold, foldAll, readView } from "../src/view.js";
import { asLog, frozen, hostileLogs, logs, RUN_ID } from "./logs.js";

const LISTS = ["messages", "plan", "steps", "calls", "pending", "corrections", "objects", "notices"] as const;

const json = <Value>(value: Value): Value => JSON.parse(JSON.stringify(value)) as Value;
const folded = (...drafts: Parameters<typeof asLog>[0]) => foldAll(emptyView(RUN_ID), asLog(drafts));
const after = (view: View, type: string, payload: unknown, seq = view.cursor.seq + 1) =>
  fold(view, { ...(asLog([{ type, payload }])[0] as RunEvent), seq });

const told = (id: string) => ({
  type: "message.started",
  payload: { message_id: id, role: "assistant", agent: "desk" },
});
const todo = (id: string, status: string) => ({ id, title: id, agent: "desk", status });
const approval = (id: string, call: string) => ({
  type: "approval.required",
  payload: {
    ...{
      approval_id: id,
      tool_call_id: call,
      tool: "send",
      label: "Send",
      reason: "policy",
      risk: "low",
      args: { to: "a" },
    },
    ...{
      editable: true,
      args_digest: "d",
      decisions: ["approve", "deny"],
      remember_scopes: ["run"],
      on_expire: "deny",
    },
    ...{ expires_at: "2026-06-12T12:05:00.000Z", expires_in_s: 300 },
  },
});

afterEach(() => expect(Object.keys(Object.prototype)).toEqual([]));

describe("laws, for any log", () => {
  test("a snapshot at n and the events after it make what all of them make", () => {
    fc.assert(
      fc.property(logs, fc.nat(40), (events, n) => {
        const snapshot = json(foldAll(emptyView(RUN_ID), events.slice(0, n)));
        const rest = events.slice(n);
        expect(foldAll(readView(snapshot) as View, rest)).toStrictEqual(foldAll(emptyView(RUN_ID), events));
      }),
    );
  });

  test("doubles and replays change nothing, whatever is sent again", () => {
    fc.assert(
      fc.property(logs, fc.array(fc.nat(40)), (events, again) => {
        const doubled = events.flatMap((event, at) => [event, ...events.slice(0, Math.min(again[at] ?? 0, at + 1))]);
        expect(foldAll(emptyView(RUN_ID), doubled)).toStrictEqual(foldAll(emptyView(RUN_ID), events));
      }),
    );
  });

  test("deltas merged into one event mean the same", () => {
    fc.assert(
      fc.property(fc.array(fc.string()), (texts) => {
        const merged = {
          ...(asLog([{ type: "message.delta", payload: { message_id: "m", text: texts.join("") } }])[0] as RunEvent),
        };
        const one = fold(folded(told("m")), { ...merged, from: 2, seq: texts.length + 2 });
        const each = folded(
          told("m"),
          ...texts.map((text) => ({ type: "message.delta", payload: { message_id: "m", text } })),
        );
        expect(one.messages).toStrictEqual(each.messages);
      }),
    );
  });

  test("nothing that goes in is changed", () => {
    fc.assert(
      fc.property(logs, (events) => {
        let view = frozen(emptyView(RUN_ID));
        for (const event of frozen(events)) view = frozen(fold(view, event));
      }),
    );
  });

  test("what an event does not touch keeps its identity: at most one item of a list is new", () => {
    fc.assert(
      fc.property(logs, (events) => {
        let view = emptyView(RUN_ID);
        for (const event of events) {
          const next = fold(view, event);
          for (const list of LISTS) {
            const before: readonly unknown[] = view[list];
            const now: readonly unknown[] = next[list];
            if (list !== "plan") expect(now.filter((item) => !before.includes(item)).length).toBeLessThanOrEqual(1);
            // A new list has something new in it, or something less.
            if (now !== before)
              expect(now.length === before.length && now.every((item, at) => item === before[at])).toBe(false);
          }
          view = next;
        }
      }),
    );
  });

  test("hostile payloads never throw, and never reach what they do not own", () => {
    fc.assert(
      fc.property(hostileLogs, (events) => {
        const view = foldAll(emptyView(RUN_ID), events);
        expect(view.cursor.seq).toBe(events.length);
        expect(Object.getPrototypeOf(view)).toBe(Object.prototype);
        // It is still a view: every field that it must have is there and of its kind.
        for (const [field, value] of Object.entries(emptyView(RUN_ID))) {
          expect([field, typeof view[field as keyof View]]).toEqual([field, typeof value]);
        }
        for (const list of LISTS)
          for (const item of view[list]) expect(Object.getPrototypeOf(item)).toBe(Object.prototype);
        expect(readView(json(view))).toStrictEqual(json(view));
        expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
      }),
      { numRuns: 300 },
    );
  });
});

describe("identity", () => {
  test("a delta makes its message anew and nothing else", () => {
    const view = folded(told("m1"), told("m2"), { type: "plan.created", payload: { todos: [todo("t1", "pending")] } });
    const next = after(view, "message.delta", { message_id: "m2", text: "hi" });
    expect(next.messages[1]).not.toBe(view.messages[1]);
    expect(next.messages[0]).toBe(view.messages[0]);
    for (const list of LISTS.slice(1)) expect(next[list]).toBe(view[list]);
  });

  test("a plan is sent whole; the todos that are as they were are the very same", () => {
    const view = folded({ type: "plan.created", payload: { todos: [todo("t1", "pending"), todo("t2", "pending")] } });
    const next = after(view, "plan.updated", { todos: [todo("t1", "completed"), todo("t2", "pending")] });
    expect(next.plan.map(({ status }) => status)).toEqual(["completed", "pending"]);
    expect(next.plan[0]).not.toBe(view.plan[0]);
    expect(next.plan[1]).toBe(view.plan[1]);
    expect(after(next, "plan.updated", { todos: json(next.plan) }).plan).toBe(next.plan);
  });

  test("an answer leaves the other questions as they were", () => {
    const view = folded(approval("a1", "c1"), approval("a2", "c2"));
    const resolved = {
      approval_id: "a1",
      tool_call_id: "c1",
      decision: "approved",
      by: "u",
      edited: false,
      args_digest: "d",
    };
    const next = after(view, "approval.resolved", resolved);
    expect(next.pending).toHaveLength(1);
    expect(next.pending[0]).toBe(view.pending[1]);
    expect(next.calls[1]).toBe(view.calls[1]);
    expect(after(next, "approval.resolved", resolved).pending).toBe(next.pending);
  });

  test("a snapshot shares with the view before it all that is the same", () => {
    const view = folded(told("m1"), told("m2"), approval("a1", "c1"));
    const snapshot = json(after(view, "message.delta", { message_id: "m2", text: "hi" }));
    const read = readView(snapshot, view) as View;
    expect(read).toStrictEqual(snapshot);
    expect(read.messages[0]).toBe(view.messages[0]);
    expect(read.messages[1]).not.toBe(view.messages[1]);
    expect(read.pending).toBe(view.pending);
    expect(readView(json(view), view)).toBe(view);
  });

  test("sharing never changes what a snapshot says", () => {
    fc.assert(
      fc.property(logs, logs, (one, other) => {
        const snapshot = json(foldAll(emptyView(RUN_ID), other));
        expect(readView(snapshot, foldAll(emptyView(RUN_ID), one))).toStrictEqual(snapshot);
      }),
    );
  });
});

describe("edges", () => {
  test("the epoch stays in the cursor until another is told", () => {
    const [first, second, third] = asLog([told("m1"), told("m2"), told("m3")]) as [RunEvent, RunEvent, RunEvent];
    const view = fold(fold(emptyView(RUN_ID), first, "e_1"), second);
    expect(view.cursor).toEqual({ seq: 2, epoch: "e_1" });
    expect(fold(view, third, "e_2").cursor).toEqual({ seq: 3, epoch: "e_2" });
  });

  test("an event of another run is refused", () => {
    expect(() => fold(emptyView("run_2"), asLog([told("m")])[0] as RunEvent)).toThrow(/run run_1 .* run run_2/);
  });

  test("an event without a readable seq changes nothing", () => {
    const view = folded(told("m"));
    const event = asLog([told("n")])[0] as RunEvent;
    for (const seq of [undefined, null, Number.NaN, "x", {}])
      expect(fold(view, { ...event, seq } as RunEvent)).toBe(view);
  });

  test.each<unknown>([
    undefined,
    null,
    [[]],
    "text",
    {},
    { ...emptyView("r"), cursor: {} },
    { ...emptyView("r"), run_id: 7 },
  ])("is not a view: %j", (snapshot) => expect(readView(snapshot)).toBeUndefined());

  test("of a snapshot, what is missing or cannot be read is as if there was nothing yet", () => {
    const spoilt = {
      ...{
        run_id: "r",
        cursor: { seq: 7 },
        messages: [null],
        calls: {},
        title: 7,
        notices: [{ level: "info", code: 7 }],
      },
      ...{ usage: { total_tokens: 3, by_model: { small: null } }, plan: [{ id: "t1", depends_on: ["t0", 7] }] },
    };
    const read = { notices: [{ level: "info" }], usage: { total_tokens: 3 }, plan: [{ id: "t1" }], cursor: { seq: 7 } };
    expect(readView(spoilt)).toStrictEqual({ ...emptyView("r"), ...read });
  });

  test("a name that every object has is a name like any other", () => {
    const usage = { input_tokens: 1, output_tokens: 1, cached_input_tokens: 0, total_tokens: 2 };
    const byModel = JSON.parse(
      `{"__proto__":${JSON.stringify(usage)},"constructor":${JSON.stringify(usage)}}`,
    ) as object;
    const view = folded({ type: "usage.updated", payload: { ...usage, by_model: byModel } });
    expect(JSON.stringify(view.usage?.by_model)).toBe(JSON.stringify(byModel));
  });
});
