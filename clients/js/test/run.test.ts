import { describe, expect, it, vi } from "vitest";
import type { Update } from "../src/index.js";
import { event, frame } from "./fake/server.js";
import { collect, following, settle, world } from "./fake/world.js";

const APPROVAL = {
  approval_id: "apr_1",
  tool_call_id: "call_1",
  tool: "edit",
  label: "Edit a.py",
  reason: "policy",
  risk: "medium",
  args: { path: "a.py" },
  editable: true,
  args_digest: "d".repeat(64),
  decisions: ["approve", "deny"],
  remember_scopes: ["run"],
  expires_at: "2026-01-01T00:05:00.000Z",
  expires_in_s: 300,
  on_expire: "deny",
};
const ANSWER = { decision: "approved", by: "u", edited: false, args_digest: "d" };
const RESOLVED = { approval_id: "apr_1", tool_call_id: "call_1", ...ANSWER };
const INPUT = { input_id: "inp_1", question: "Which?", expires_at: "2026-01-01T00:05:00.000Z", expires_in_s: 300 };

describe("the view", () => {
  it("is there at once, and the fold of what came", async () => {
    const { client, server } = world();
    server.log();
    server.append(3);
    const attach = client.attach("run_1");
    expect(client.run("run_1")?.view).toMatchObject({ run_id: "run_1", status: "running", cursor: { seq: 0 } });
    const run = await attach;
    await settle();
    expect(run).toMatchObject({ attached: true, caughtUp: true, ended: false });
    expect(run.can).toEqual(["correct", "cancel", "approve", "input"]);
    expect(run.view).toMatchObject({ agent: "a", messages: [{ text: "3 4 5 " }], cursor: { seq: 5, epoch: "e_1" } });
  });

  it("survives cuts, duplicates and holes", async () => {
    const { server, clock, run } = await following();
    server.append(2);
    await settle();
    server.socket.say(JSON.stringify(event(4)));
    server.socket.say(JSON.stringify(event(2, "message.started", { message_id: "msg_1", role: "assistant" })));
    server.held = true;
    server.append();
    server.socket.out.shift();
    server.held = false;
    server.append();
    await settle();
    server.socket.cut();
    expect(run.attached).toBe(false);
    server.append(2);
    await clock.advance(250);
    expect(run.view.messages[0]?.text).toBe("3 4 5 6 7 8 ");
    expect(run.attached).toBe(true);
  });

  it("is replaced by a snapshot when the history is another one", async () => {
    const { server, clock, run } = await following();
    server.append(5);
    await settle();
    server.socket.cut();
    server.epoch = "e_2";
    server.logs.set("run_1", server.log().slice(0, 4));
    await clock.advance(250);
    expect(run.view).toMatchObject({ cursor: { seq: 4, epoch: "e_2" }, messages: [{ text: "3 4 " }] });
    server.append();
    await settle();
    expect(run.view.messages[0]?.text).toBe("3 4 5 ");
  });

  it("is not moved back by a reset that says nothing new", async () => {
    const { server, run } = await following();
    server.append(2);
    await settle();
    server.held = true;
    server.reset(server.socket, "too_far");
    const late = server.socket.out.splice(0);
    server.held = false;
    server.append(3);
    await settle();
    for (const text of late) server.socket.say(text);
    await settle();
    expect(run.view.cursor.seq).toBe(7);
    server.append();
    await settle();
    expect(run.view.cursor.seq).toBe(8);
  });

  it("is not spoilt by joined events that begin before its place", async () => {
    const { server, run } = await following();
    server.append(4);
    await settle();
    server.held = true;
    const first = run[Symbol.asyncIterator]();
    for (let each = 0; each < 6; each += 1) await first.next();
    const late = run[Symbol.asyncIterator]();
    const got = late.next();
    await settle();
    server.append(2);
    server.socket.out.splice(2);
    // The server joins 3..8; the view has 6 of them.
    const joined = { ...event(8, "message.delta", { message_id: "msg_1", text: "3 4 5 6 7 8 " }), from: 3 };
    server.socket.say(JSON.stringify(server.log()[0]));
    server.socket.say(JSON.stringify(server.log()[1]));
    server.socket.say(JSON.stringify(joined));
    server.held = false;
    server.socket.deliver();
    await settle();
    expect((await got).value?.seq).toBe(1);
    expect(run.view.messages[0]?.text).toBe("3 4 5 6 7 8 ");
    expect(run.view.cursor.seq).toBe(8);
  });

  it("of a snapshot that cannot be read is not taken: the connection comes back", async () => {
    const { client, server, run } = await following();
    const before = run.view;
    const snapshot = { ...before, run_id: "other" };
    const reset = { run_id: "run_1", reason: "too_far", epoch: "e_1", snapshot_seq: 9, snapshot };
    server.socket.say(frame("run.reset", reset));
    await settle();
    expect(client.connection.status).toBe("reconnecting");
    expect(run.view).toBe(before);
  });
});

describe("finished", () => {
  it("is the final view", async () => {
    const { client, server, run } = await following();
    server.end();
    expect((await run.finished).status).toBe("completed");
    expect(run.ended).toBe(true);
    expect(client.runs).toEqual([]);
    expect((await client.attach("run_1")).id).toBe("run_1");
  });

  it("is there too for a run that was over before", async () => {
    const { client, server } = world();
    server.log();
    server.end();
    const run = await client.attach("run_1", { replay: "snapshot" });
    expect((await run.finished).result).toBe("done");
  });

  it("rejects when the run is gone, detached or cannot be had", async () => {
    const { client, server, run } = await following();
    server.socket.say(frame("run.reset", { run_id: "run_1", reason: "gone" }));
    await expect(run.finished).rejects.toMatchObject({ code: "not_found" });
    expect(run.error).toMatchObject({ code: "not_found" });
    const again = await client.attach("run_1");
    again.detach();
    again.detach();
    await expect(again.finished).rejects.toMatchObject({ code: "detached" });
    await settle();
    expect(server.commands("run.detach")).toHaveLength(1);
    await expect(client.attach("nowhere")).rejects.toMatchObject({ code: "not_found" });
    expect(client.runs).toEqual([]);
  });
});

describe("listeners", () => {
  it("are called once per frame, however much comes", async () => {
    const { server, clock, run } = await following();
    await clock.advance(100);
    const seen = vi.fn();
    const end = run.subscribe(seen);
    server.append(1000);
    await settle();
    expect(run.view.cursor.seq).toBe(1002);
    expect(seen).not.toHaveBeenCalled();
    await clock.advance(16);
    expect(seen).toHaveBeenCalledTimes(1);
    end();
    server.append();
    await clock.advance(100);
    expect(seen).toHaveBeenCalledTimes(1);
  });

  it("that throw stop nobody", async () => {
    const { server, clock, run, reported } = await following();
    const seen = vi.fn();
    run.subscribe(() => {
      throw new Error("mine");
    });
    run.subscribe(seen);
    run.onUpdate(() => {
      throw new Error("my tap");
    });
    server.append();
    await clock.advance(16);
    expect(seen).toHaveBeenCalled();
    expect(run.view.cursor.seq).toBe(3);
    expect(reported).toContainEqual(new Error("mine"));
    expect(reported).toContainEqual(new Error("my tap"));
  });

  it("of updates hear each in order; who comes late begins with the view as it is", async () => {
    const { client, server } = world();
    server.log();
    const early: Update[] = [];
    const late: Update[] = [];
    const run = await client.attach("run_1", { onUpdate: (update) => early.push(update) });
    await settle();
    await client.attach("run_1", { onUpdate: (update) => late.push(update) });
    const end = run.onUpdate(() => {});
    end();
    server.append();
    await settle();
    expect(early.map(({ kind }) => kind)).toEqual(["attached", "event", "event", "caughtUp", "event"]);
    expect(late).toMatchObject([{ kind: "reset", reason: "joined", view: { cursor: { seq: 2 } } }, { kind: "event" }]);
  });

  it("may command from within an update, and commands keep their order", async () => {
    const { server, run } = await following();
    const sent: Promise<unknown>[] = [];
    run.onUpdate((update) => {
      if (update.kind === "event") sent.push(run.correct(`after ${update.event.seq}`));
    });
    server.append(3);
    await settle();
    await Promise.all(sent);
    expect(server.performed.map(({ payload }) => payload.text)).toEqual(["after 3", "after 4", "after 5"]);
  });
});

describe("approvals and questions", () => {
  it("are the same objects as long as they are open", async () => {
    const { client, server, clock, run } = await following();
    expect(run.approvals).toEqual([]);
    const none = run.approvals;
    server.append();
    await settle();
    expect(run.approvals).toBe(none);
    server.write("approval.required", APPROVAL);
    await settle();
    const [approval] = run.approvals;
    const list = run.approvals;
    expect(client.approvals).toEqual([approval]);
    const all = client.approvals;
    server.write("input.required", INPUT);
    await settle();
    expect(run.approvals, "something else waits too").toBe(list);
    expect(client.approvals).toBe(all);
    server.write("approval.required", { ...APPROVAL, approval_id: "apr_2" });
    await settle();
    expect(run.approvals[0]).toBe(approval);
    expect(client.approvals.map(({ id }) => id)).toEqual(["apr_1", "apr_2"]);
    server.write("approval.resolved", { ...RESOLVED, approval_id: "apr_2" });
    await settle();
    const one = run.approvals;
    server.append();
    server.socket.cut();
    await clock.advance(250);
    expect(run.approvals).toBe(one);
    expect(run.questions).toMatchObject([{ id: "inp_1", question: "Which?" }]);
    server.write("approval.resolved", RESOLVED);
    await settle();
    expect(run.approvals).toEqual([]);
    expect(client.approvals).toEqual([]);
    expect(run.questions).toHaveLength(1);
  });

  it("are answered as what was seen", async () => {
    const { server, run } = await following();
    server.write("approval.required", APPROVAL);
    server.write("input.required", INPUT);
    await settle();
    const [approval] = run.approvals;
    await approval?.approve({ remember: { scope: "run", expiresInS: 60 } });
    await approval?.edit({ path: "b.py" }, { remember: "thread" });
    await approval?.deny("no");
    await approval?.deny();
    await run.questions[0]?.answer({ a: 1 });
    const digest = APPROVAL.args_digest;
    const approve = { approval_id: "apr_1", decision: "approve" };
    expect(server.performed.map(({ payload }) => payload)).toEqual([
      { ...approve, args_digest: digest, remember: { scope: "run", expires_in_s: 60 } },
      { ...approve, args_digest: digest, remember: { scope: "thread" }, args: { path: "b.py" } },
      { approval_id: "apr_1", decision: "deny", reason: "no" },
      { approval_id: "apr_1", decision: "deny" },
      { input_id: "inp_1", answer: { a: 1 } },
    ]);
  });

  it("expire by this client's clock, though it is wrong", async () => {
    const { server, run, clock } = await following({ server: { now: () => Date.parse("2026-01-01T02:00:00.000Z") } });
    server.write("approval.required", { ...APPROVAL, expires_at: "2026-01-01T02:05:00.000Z" });
    await settle();
    expect(run.approvals[0]?.expiresAt.getTime()).toBe(clock.time + 300_000);
  });
});

describe("commands", () => {
  it("say on the wire what the protocol says", async () => {
    const { server, run } = await following();
    await run.cancel({ mode: "after_step", toolCallId: "call_1", reason: "r" });
    await run.correct("text", { mode: "now", stepId: "step_1", replan: true, ifEnded: "reject" });
    await run.revoke("cmd_9");
    expect(server.performed.map(({ type, run_id, payload }) => [type, run_id, payload])).toEqual([
      ["run.cancel", "run_1", { mode: "after_step", tool_call_id: "call_1", reason: "r" }],
      ["run.correct", "run_1", { text: "text", mode: "now", step_id: "step_1", replan: true, if_ended: "reject" }],
      ["correction.revoke", "run_1", { correction_id: "cmd_9" }],
    ]);
  });
});

describe("attaching", () => {
  it("the same run is the same object; detached and attached again, another one", async () => {
    const { client, server, run } = await following();
    expect(await client.attach("run_1")).toBe(run);
    expect(server.commands("run.attach")).toHaveLength(1);
    run.detach();
    const other = await client.attach("run_1");
    expect(other).not.toBe(run);
    await settle();
    expect(other.view.cursor.seq).toBe(2);
    server.append();
    await settle();
    expect([other.view.cursor.seq, run.view.cursor.seq]).toEqual([3, 2]);
  });

  it("twice in one turn is one attach, and a detach in between is kept apart", async () => {
    const { client, server } = world();
    server.log();
    await client.ready;
    const first = client.attach("run_1");
    client.run("run_1")?.detach();
    const second = client.attach("run_1");
    await expect(first).rejects.toMatchObject({ code: "detached" });
    const run = await second;
    server.end();
    expect((await collect(run)).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  });

  it("can be aborted", async () => {
    const { client, server } = world();
    server.log();
    await client.ready;
    server.held = true;
    const stop = new AbortController();
    const attach = client.attach("run_1", { signal: stop.signal });
    stop.abort(new Error("no more"));
    await expect(attach).rejects.toThrow("no more");
    expect(client.runs).toEqual([]);
    await expect(client.attach("run_1", { signal: stop.signal })).rejects.toThrow("no more");
    expect(server.commands("run.detach")).toHaveLength(1);
  });

  it("for the first time is refused, for now or for good", async () => {
    const { client, server, clock } = world();
    server.log();
    server.refusals.set("run.attach", { code: "quota_exceeded", retryable: true });
    await expect(client.attach("run_1")).rejects.toMatchObject({ code: "quota_exceeded", retryable: true });
    expect(client.connection.status).toBe("ready");
    server.refusals.set("run.attach", { code: "draining", retryable: true });
    const attach = client.attach("run_1");
    await settle();
    server.refusals.clear();
    server.socket.cut(4001);
    await clock.advance(250);
    expect((await attach).id).toBe("run_1");
  });

  it("again is refused for now: it comes back; for good: the run ends with the reason", async () => {
    const { client, server, clock, run } = await following();
    server.refusals.set("run.attach", { code: "unavailable", retryable: true });
    server.socket.cut();
    await clock.advance(250);
    expect(client.connection.status).toBe("reconnecting");
    server.refusals.set("run.attach", { code: "not_found" });
    await clock.advance(500);
    expect(run.error).toMatchObject({ code: "not_found" });
  });
});
