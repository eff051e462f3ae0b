import type { Approval, ApprovalResolved, View } from "@midstream/client";
import { Refused } from "@midstream/client";
import { beforeEach, describe, expect, test, vi } from "vitest";

import { askedBy } from "../src/steering/asked_by.js";
import { edits, fieldErrors, mistakesOf, send } from "../src/steering/answering.js";
import { badge, keepTitle, urgent } from "../src/steering/attention.js";
import { escaped, hasUnseen } from "../src/steering/fields.js";
import { keyOf, Queue } from "../src/steering/queue.js";
import { nextStage } from "../src/steering/stop.js";
import { howResolved, refused, scopeCovers, timeLeft, whenExpired, whyAsked } from "../src/steering/words.js";

const accepted = { command_id: "cmd_1", status: "accepted" } as const;

function approval(given: Partial<Approval> = {}): Approval {
  return {
    id: "apr_1",
    runId: "run_1",
    callId: "call_1",
    tool: "refund",
    label: "Refund 20",
    reason: "policy",
    risk: "low",
    args: { amount: 20, order: "17" },
    argsSchema: {
      type: "object",
      properties: { amount: { type: "number", maximum: 100 }, order: { type: "string", pattern: "^x" } },
      required: ["amount", "order"],
    },
    editable: true,
    argsDigest: "d",
    preview: undefined,
    decisions: ["approve", "deny"],
    rememberScopes: ["run", "always"],
    expiresAt: new Date(0),
    onExpire: "deny",
    approve: vi.fn(() => Promise.resolve(accepted)),
    deny: vi.fn(() => Promise.resolve(accepted)),
    edit: vi.fn(() => Promise.resolve(accepted)),
    ...given,
  };
}

describe("words", () => {
  test.each([
    [0.2, "1 s"],
    [59, "59 s"],
    [60, "1 min"],
    [250, "4 min 10 s"],
    [7500, "2 h 5 min"],
    [90_000, "1 d 1 h"],
    [-5, "0 s"],
  ])("%d seconds are %s", (seconds, text) => expect(timeLeft(seconds)).toBe(text));

  test("a reason of a tool's own is shown as it is, without tricks", () => {
    expect(whyAsked("over \u202e50")).toBe("over [U+202E]50");
    expect(whyAsked("unknown_outcome")).toContain("it may happen twice");
    expect(whenExpired("fail")).toBe("If nobody answers in time, the run fails.");
  });

  test("a scope says what it covers", () => {
    const facts = { tool: "refund", agent: "desk" };
    expect(scopeCovers({ ...facts, scope: "run" })).toBe(
      "From now on every call of refund, whatever its arguments, runs in this run without asking.",
    );
    expect(scopeCovers({ ...facts, scope: "thread" }, 3600)).toContain(
      "by the agent desk runs in this conversation without asking, for one hour.",
    );
    expect(scopeCovers({ ...facts, scope: "always" })).toContain(
      "in any run of yours without asking, until you revoke it",
    );
  });

  const resolved = (given: Partial<ApprovalResolved>): ApprovalResolved => ({
    approval_id: "apr_1",
    tool_call_id: "call_1",
    decision: "approved",
    by: "user_2",
    edited: false,
    args_digest: "d",
    ...given,
  });
  test.each<[Partial<ApprovalResolved>, { here: boolean; me: boolean }, string]>([
    [{}, { here: true, me: true }, "Refund: approved by you."],
    [{}, { here: false, me: true }, "Refund: approved by you in another window."],
    [{ edited: true }, { here: false, me: false }, "Refund: approved by user_2 with other arguments."],
    [
      { decision: "denied", reason: "no\u200b" },
      { here: false, me: false },
      "Refund: denied by user_2. Reason: no[U+200B]",
    ],
    [{ decision: "expired", by: "system" }, { here: false, me: false }, "Refund: nobody answered in time."],
    [{ decision: "cancelled" }, { here: false, me: false }, "Refund: withdrawn, because the call was cancelled."],
  ])("%o is %o: %s", (given, who, text) => expect(howResolved("Refund", resolved(given), who)).toBe(text));

  test("a refusal says who was first", () => {
    const first = new Refused({
      code: "already_resolved",
      text: "x",
      resolution: { decision: "denied", by: "user_2" },
    });
    expect(refused(first)).toBe("This was denied already, by user_2.");
    expect(refused(new Refused({ code: "digest_mismatch", text: "x" }))).toContain("no longer the ones you saw");
    expect(refused(new Refused({ code: "new_code", text: "Say it otherwise." }))).toBe("Say it otherwise.");
    expect(refused(new Error(""))).toBe("It was refused.");
  });
});

describe("the queue", () => {
  const three = ["a", "b", "c"].map((id) => approval({ id }));
  let queue: Queue;
  beforeEach(() => {
    queue = new Queue();
    queue.waiting(three);
  });

  test("the oldest is looked at first, and the others go round", () => {
    expect(queue.shown.value).toBe("run_1/a");
    queue.look(-1);
    expect(queue.shown.value).toBe("run_1/c");
    queue.look(1);
    expect(queue.shown.value).toBe("run_1/a");
  });

  test("when the one that is looked at goes, its place goes to the next; the last one's to the one before", () => {
    queue.look("run_1/b");
    queue.waiting([three[0]!, three[2]!]);
    expect(queue.shown.value).toBe("run_1/c");
    queue.waiting([three[0]!]);
    expect(queue.shown.value).toBe("run_1/a");
  });

  test("one that comes or goes elsewhere does not move it", () => {
    queue.look("run_1/b");
    queue.waiting([...three.slice(1), approval({ id: "d" })]);
    expect(queue.shown.value).toBe("run_1/b");
  });

  test("what was typed belongs to its approval, and goes with it", () => {
    queue.change(three[0]!, { reason: "no" });
    expect(queue.answering(three[0]!).reason).toBe("no");
    expect(queue.answering(three[1]!).reason).toBe("");
    queue.waiting(three.slice(1));
    queue.change(three[0]!, { reason: "late" });
    expect(queue.answers.value.size).toBe(0);
  });

  test("putting aside ends with the last one", () => {
    queue.minimised.value = true;
    queue.waiting(three.slice(1));
    expect(queue.minimised.value).toBe(true);
    queue.waiting([]);
    expect(queue.minimised.value).toBe(false);
    expect(queue.shown.value).toBeUndefined();
  });

  test("runs have ids of their own", () => {
    expect(keyOf(approval({ runId: "r1" }))).not.toBe(keyOf(approval({ runId: "r2" })));
  });
});

describe("answering", () => {
  let queue: Queue;
  const waiting = (given: Partial<Approval> = {}): Approval => {
    const one = approval(given);
    queue.waiting([one]);
    return one;
  };
  beforeEach(() => {
    queue = new Queue();
  });

  test("what was not changed is approved as it was shown", async () => {
    const one = waiting();
    await send(queue, one, "approve");
    expect(one.approve).toHaveBeenCalledWith({});
    expect(one.edit).not.toHaveBeenCalled();
  });

  test("an edit sends what changed, and the grant that was chosen", async () => {
    const one = waiting();
    queue.change(one, { args: { ...one.args, amount: 7 } as never, remember: "always", forSeconds: 3600 });
    await send(queue, one, "approve");
    expect(one.edit).toHaveBeenCalledWith({ amount: 7 }, { remember: { scope: "always", expiresInS: 3600 } });
  });

  test("a grant for the run has no time of its own", async () => {
    const one = waiting();
    queue.change(one, { remember: "run", forSeconds: 3600 });
    await send(queue, one, "approve");
    expect(one.approve).toHaveBeenCalledWith({ remember: { scope: "run" } });
  });

  test("a denial sends its reason only if there is one", async () => {
    const one = waiting();
    await send(queue, one, "deny");
    expect(one.deny).toHaveBeenLastCalledWith(undefined);
    queue.change(one, { reason: " no ", sending: undefined });
    await send(queue, one, "deny");
    expect(one.deny).toHaveBeenLastCalledWith("no");
  });

  test("it is sent once, however often the key is pressed", async () => {
    const one = waiting();
    const first = send(queue, one, "approve");
    await send(queue, one, "approve");
    await first;
    expect(one.approve).toHaveBeenCalledTimes(1);
  });

  test("a refusal keeps what was typed, and puts the mistakes at the fields", async () => {
    const no = new Refused({
      code: "invalid_args",
      text: "no",
      errors: [{ path: "/amount", code: "maximum", text: "too much" }],
    });
    const one = waiting({ edit: () => Promise.reject(no) });
    queue.change(one, { args: { ...one.args, amount: 99 } as never });
    await send(queue, one, "approve");
    expect(queue.answering(one)).toMatchObject({
      args: { amount: 99 },
      sending: undefined,
      mistakes: [{ path: "/amount", text: "The server says: too much" }],
    });
    expect(fieldErrors(new Error("x"))).toEqual([]);
  });

  test("only what a person changed can be their mistake", () => {
    const one = waiting();
    expect(mistakesOf(one, queue.answering(one))).toEqual([]);
    queue.change(one, { args: { amount: 900, order: "17" } });
    expect(mistakesOf(one, queue.answering(one))).toEqual([{ path: "/amount", text: "This must be at most 100." }]);
  });

  test("something hidden is not sent back", () => {
    const one = waiting({ args: { amount: 1, card: { number: "[hidden]", name: "A" } }, argsSchema: undefined });
    expect(mistakesOf(one, queue.answering(one))).toEqual([]);
    queue.change(one, { args: { amount: 1, card: { number: "[hidden]", name: "B" } } });
    expect(Object.keys(edits(one, queue.answering(one)))).toEqual(["card"]);
    expect(mistakesOf(one, queue.answering(one)).map(({ path }) => path)).toEqual(["/card/number"]);
  });
});

describe("attention", () => {
  test("what waits comes before what failed, and that before what is done", () => {
    expect(urgent({ waiting: 1, failed: 1, done: 1 })).toBe("blocked");
    expect(badge({ waiting: 2, failed: 1, done: 1 })).toBe("(2) ");
    expect(badge({ waiting: 0, failed: 1, done: 1 })).toBe("(failed) ");
    expect(badge({ waiting: 0, failed: 0, done: 3 })).toBe("(done) ");
    expect(badge({ waiting: 0, failed: 0, done: 0 })).toBe("");
  });

  test("a title has one badge, whatever it was before", () => {
    let now = "(1) ";
    document.title = "Runs";
    const title = keepTitle(() => now);
    title.update();
    now = "(2) ";
    title.update();
    expect(document.title).toBe("(2) Runs");
    title.stop();
    expect(document.title).toBe("Runs");
  });
});

describe("stopping", () => {
  test("each wish means more than the one before", () => {
    const gently = { mode: "after_step", escalated: false };
    const now = { mode: "now", escalated: true };
    expect(nextStage("none", gently)).toBe("after_step");
    expect(nextStage("after_step", now)).toBe("now");
    expect(nextStage("none", { mode: "now", escalated: false })).toBe("now");
    expect(nextStage("now", now)).toBe("forced");
    // Asked gently again, it is not gentle any more.
    expect(nextStage("after_step", { mode: "after_step", escalated: true })).toBe("now");
  });
});

describe("what cannot be seen", () => {
  test("has a name in JSON, and is the same value", () => {
    const hostile = { text: "\u202eevil\u202c \u200b \u{e0041} plain ü 🙂\n" };
    const shown = escaped(JSON.stringify(hostile));
    expect(hasUnseen(shown)).toBe(false);
    expect(shown).toContain("\\u202eevil\\u202c");
    expect(JSON.parse(shown)).toEqual(hostile);
  });
});

describe("who asks", () => {
  test("the agent of the message that has the call, in its step", () => {
    const view = {
      agent: "lead",
      messages: [{ message_id: "m1", agent: "research", step_id: "s1" }],
      steps: [{ step_id: "s1", kind: "stage", title: "Look it up" }],
      calls: [{ tool_call_id: "call_1", message_id: "m1" }, { tool_call_id: "call_2" }],
    } as unknown as View;
    expect(askedBy(view, "call_1")).toEqual({ agent: "research", step: "Look it up" });
    expect(askedBy(view, "call_2")).toEqual({ agent: "lead", step: "" });
  });
});
