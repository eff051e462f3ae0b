import { describe, expect, test } from "vitest";

import { landmarksOf } from "../src/timeline/outline.js";
import { Order, type Entry } from "../src/timeline/order.js";
import { eventOf, recordings, viewOf } from "./logs.js";

const orderOf = (events: Parameters<typeof viewOf>[0]): Order => {
  const order = new Order();
  for (const event of events) order.add(event);
  return order;
};
const keys = (entries: readonly Entry[]): string[] => entries.map((entry) => entry.key);

describe.each([...recordings])("the recorded run %s", (_, events) => {
  test("shows every message, call and correction of the view once", () => {
    const view = viewOf(events);
    const entries = orderOf(events).entries(view);
    expect(new Set(keys(entries)).size).toBe(entries.length);
    const shown = new Set(keys(entries));
    for (const call of view.calls) expect(shown).toContain(`call:${call.tool_call_id}`);
    for (const correction of view.corrections) expect(shown).toContain(`correction:${correction.correction_id}`);
    for (const message of view.messages) if (message.text !== "") expect(shown).toContain(`message:${message.message_id}`);
    expect(entries.at(-1)!.kind).toBe("end");
  });

  test("grows without moving what is there: an entry keeps its place among the others", () => {
    const order = new Order();
    let before: readonly Entry[] = [];
    for (const [index, event] of events.entries()) {
      order.add(event);
      const now = order.entries(viewOf(events.slice(0, index + 1)));
      const old = keys(before).filter((key) => keys(now).includes(key));
      expect(keys(now).filter((key) => old.includes(key))).toEqual(old);
      before = now;
    }
  });

  test("an entry of which nothing changed is the same object", () => {
    const order = orderOf(events);
    const view = viewOf(events);
    const first = order.entries(view);
    expect(order.entries(view)).toBe(first);
    expect(order.entries({ ...view, phase: "x" })[0]).toBe(first[0]);
  });

  test("a snapshot has the same entries but for what only the log has", () => {
    const view = viewOf(events);
    const whole = keys(orderOf(events).entries(view)).filter((key) => !/^(note|approval|question):/.test(key));
    const snapshot = keys(Order.of(view).entries(view)).filter((key) => !/^(note|approval|question):/.test(key));
    expect([...snapshot].sort()).toEqual([...whole].sort());
  });

  test("a reset to the same state keeps the entries", () => {
    const view = viewOf(events);
    const order = orderOf(events);
    const before = new Map(order.entries(view).map((entry) => [entry.key, entry]));
    const after = Order.of(view).continueFrom(order).entries(view);
    expect(after.every((entry) => !before.has(entry.key) || before.get(entry.key)!.kind === entry.kind)).toBe(true);
    const jumps = landmarksOf(after).map((landmark) => landmark.key);
    expect(keys(after)).toEqual(expect.arrayContaining(jumps));
  });
});

test("an approval says how it was settled, where it was asked", () => {
  const call = { tool_call_id: "c", tool: "t", label: "T" };
  const asked = eventOf(2, "approval.required", { ...call, approval_id: "a", args: {}, args_digest: "d", risk: "low" });
  const settled = eventOf(3, "approval.resolved", { approval_id: "a", tool_call_id: "c", decision: "denied", by: "u", args_digest: "d" });
  const events = [eventOf(1, "run.started", { agent: "a", thread_id: "t" }), asked];
  const order = orderOf(events);
  const open = order.entries(viewOf(events)).find((entry) => entry.kind === "approval")!;
  expect(open).not.toHaveProperty("resolved");
  order.add(settled);
  const after = order.entries(viewOf([...events, settled]));
  expect(after.find((entry) => entry.kind === "approval")).toMatchObject({ resolved: { decision: "denied", by: "u" } });
  expect(keys(after)).toEqual(["call:c", "approval:a"]);
});

test("retries stay on their call, and a withdrawn message leaves a note", () => {
  const events = [
    eventOf(1, "run.started", { agent: "a", thread_id: "t" }),
    eventOf(2, "message.started", { message_id: "m", role: "assistant", agent: "a" }),
    eventOf(3, "message.delta", { message_id: "m", text: "x" }),
    eventOf(4, "tool.started", { tool_call_id: "c", tool: "t", label: "T", args_preview: {}, args_digest: "d", attempt: 1 }),
    eventOf(5, "tool.retrying", { tool_call_id: "c", attempt: 2, max_attempts: 3, wait_s: 1, code: "timeout" }),
    eventOf(6, "tool.retrying", { tool_call_id: "c", attempt: 3, max_attempts: 3, wait_s: 2, code: "timeout" }),
    eventOf(7, "message.superseded", { message_id: "m", reason: "overloaded" }),
  ];
  const entries = orderOf(events).entries(viewOf(events));
  expect(keys(entries)).toEqual(["call:c", "note:7"]);
  expect((entries[0] as Entry & { kind: "call" }).retries).toHaveLength(2);
});

test("what a stage did stands in it, also in a turn of it", () => {
  const events = [
    eventOf(1, "run.started", { agent: "a", thread_id: "t" }),
    eventOf(2, "run.step", { step_id: "s", state: "started", kind: "stage", title: "Stage", agent: "a" }),
    eventOf(3, "run.step", { step_id: "u", state: "started", kind: "turn", title: "Turn", agent: "a", parent_step_id: "s" }),
    eventOf(4, "message.completed", { message_id: "m", role: "assistant", text: "x", state: "complete" }, "u"),
    eventOf(5, "a.new.type", {}),
  ];
  const entries = orderOf(events).entries(viewOf(events));
  expect(keys(entries)).toEqual(["stage:s", "message:m"]);
  expect(entries[1]!.stage?.title).toBe("Stage");
});

test("ten thousand entries are put in order in the time of a frame or two", () => {
  const events = [eventOf(1, "run.started", { agent: "a", thread_id: "t" })];
  for (let seq = 2; seq <= 10_001; seq++) events.push(eventOf(seq, "notice", { level: "info", code: "n", text: String(seq) }));
  const order = orderOf(events);
  const view = viewOf(events);
  order.entries(view);
  const began = performance.now();
  order.add(eventOf(10_002, "notice", { level: "info", code: "n", text: "x" }));
  expect(order.entries(view)).toHaveLength(10_001);
  expect(performance.now() - began).toBeLessThan(200);
});
