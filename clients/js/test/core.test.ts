/** The core as transcripts: frames in, actions out. What heals by itself, and so is hidden elsewhere, is seen here. */

import { describe, expect, it } from "vitest";
import type { Action } from "../src/actions.js";
import { createCore } from "../src/core.js";
import { event, FakeServer, frame } from "./fake/server.js";

function playbook() {
  let ids = 0;
  const core = createCore({ newId: () => `own_${(ids += 1)}`, random: () => 1, renewable: false });
  const taken = () => core.actions.splice(0);
  const get = (...texts: string[]): Action[] => {
    for (const text of texts) core.received(text, 0);
    return taken();
  };
  const attached = (id: string) =>
    frame("run.attached", { command_id: id, run_id: "run_1", epoch: "e_1", head_seq: 0, status: "running", can: [] });
  core.opening(0);
  get(new FakeServer().ready("client_1"));
  core.attach("run_1", {});
  taken();
  get(attached("own_1"));
  return { core, taken, get, attached };
}

const beat = (runs: object) => frame("heartbeat", { now: "", runs });
const text = (seq: number, more: object = {}) => JSON.stringify({ ...event(seq), ...more });
const sent = (actions: Action[]) => actions.flatMap((action) => (action.do === "send" ? [JSON.parse(action.text)] : []));
const events = (action: Action) =>
  action.do === "deliver" && action.arrival.kind === "event" ? [action.arrival.event.seq] : [];
const seqs = (actions: Action[]) => actions.flatMap(events);
const kinds = (actions: Action[]) => actions.map(({ do: kind }) => kind);

describe("an event", () => {
  it("that came before is dropped, and nothing is asked for", () => {
    const { get } = playbook();
    expect(kinds(get(text(1), text(1), text(2), text(1), text(3)))).toEqual(["deliver", "deliver", "deliver"]);
  });

  it("between an attach and its attached belongs to the attachment before", () => {
    const { get, attached } = playbook();
    get(text(1), text(2));
    const [again] = sent(get(text(5)));
    expect(again).toMatchObject({ type: "run.attach", payload: { since_seq: 2, epoch: "e_1" } });
    expect(get(text(3), text(4))).toEqual([]);
    expect(get(attached("own_1"), text(3)), "the old attachment's").toEqual([]);
    expect(seqs(get(attached(again.command_id), text(3), text(4), text(5)))).toEqual([3, 4, 5]);
  });

  it("that stands for several moves the cursor over all of them", () => {
    const { get } = playbook();
    expect(seqs(get(text(4, { from: 1 }), text(5)))).toEqual([4, 5]);
  });

  it("after a hole, again and again, ends the connection", () => {
    const { get, attached } = playbook();
    for (let each = 0; each < 3; each += 1) {
      const [again] = sent(get(text(9)));
      get(attached(again.command_id));
    }
    expect(kinds(get(text(9)))).toEqual(["drop", "connect"]);
  });

  it.each([0, -1, 1.5, "1", null, 2 ** 53])("with the place %j is none", (seq) => {
    const { get } = playbook();
    expect(get(text(1, { seq }))[0]).toMatchObject({ do: "drop", code: 1002 });
  });
});

describe("what is beyond the cursor", () => {
  it("by a heartbeat is asked for; what is behind it is not", () => {
    const { get } = playbook();
    get(frame("run.caught_up", { run_id: "run_1", seq: 0 }), text(1), text(2));
    expect(get(beat({ run_1: 2, other: 9 }), beat({ run_1: 1 }))).toEqual([]);
    expect(sent(get(beat({ run_1: 3 })))).toMatchObject([{ type: "run.attach", payload: { since_seq: 2 } }]);
  });

  it("by caught_up is asked for", () => {
    const { get } = playbook();
    expect(sent(get(frame("run.caught_up", { run_id: "run_1", seq: 1 })))).toMatchObject([{ type: "run.attach" }]);
  });
});

describe("a heartbeat on a connection that loses frames", () => {
  it("that leaves out a run which is followed asks for it again", () => {
    const { get, attached } = playbook();
    get(text(1));
    const [again] = sent(get(beat({})));
    expect(again).toMatchObject({ type: "run.attach", run_id: "run_1", payload: { since_seq: 1 } });
    get(attached(again.command_id));
    const end = { seq: 2, type: "run.completed", payload: {} };
    expect(kinds(get(text(2, end)))).toEqual(["deliver", "detached"]);
    expect(get(beat({}))).toEqual([]);
  });

  it("asks again for an attach that nothing came of, not at the first beat after it", () => {
    const { core, get, taken, attached } = playbook();
    core.attach("run_2", {});
    taken();
    expect(sent(get(beat({ run_1: 0 })))).toEqual([]);
    const [again] = sent(get(beat({ run_1: 0, run_2: 4 })));
    expect(again).toMatchObject({ type: "run.attach", run_id: "run_2" });
    expect(sent(get(beat({ run_1: 0 })))).toEqual([]);
    get(attached(again.command_id).replaceAll("run_1", "run_2"));
    expect(sent(get(beat({ run_1: 0, run_2: 0 })))).toEqual([]);
  });

  it("asks again for a receipt, under the same id, until it comes", () => {
    const { core, get, taken } = playbook();
    core.command("c1", "run.cancel", "run_1", {});
    const [first] = sent(taken());
    const beats = () => sent(get(beat({ run_1: 0 })));
    expect([beats(), beats(), beats(), beats()]).toEqual([[], [first], [], [first]]);
    expect(get(frame("receipt", { command_id: "c1", status: "accepted" }))).toMatchObject([{ do: "answer" }]);
    expect([beats(), beats()]).toEqual([[], []]);
  });

  it("offers the newest tools again, and forgets what needs no answer", () => {
    const { core, get, taken } = playbook();
    core.offer("run_1", [{ name: "old" }]);
    core.offer("run_1", [{ name: "new" }]);
    core.detach("run_9");
    core.attach("run_2", {});
    core.detach("run_2");
    taken();
    get(beat({ run_1: 0 }));
    const again = sent(get(beat({ run_1: 0 })));
    expect(again.map(({ payload }) => payload.client_tools)).toEqual([[{ name: "new" }]]);
    // All others made room: as many commands as ever may be on their way.
    for (let each = 0; each < 64; each += 1) core.command(`c${each}`, "run.cancel", "run_1", {});
    expect(sent(taken())).toHaveLength(63);
  });

  it("says that a reader has caught up when nobody said so", () => {
    const { get } = playbook();
    get(text(1));
    expect(get(beat({ run_1: 1 }))).toMatchObject([{ do: "deliver", arrival: { kind: "caughtUp" } }]);
    expect(get(beat({ run_1: 1 }))).toEqual([]);
  });

  it("does not take another history for its own when the reset is lost", () => {
    for (const next of [text(4), frame("run.caught_up", { run_id: "run_1", seq: 3 }), beat({ run_1: 3 })]) {
      const { get, attached } = playbook();
      get(text(1), text(2), text(3));
      const [again] = sent(get(beat({})));
      get(attached(again.command_id).replace("e_1", "e_2"));
      expect(sent(get(next))).toMatchObject([{ type: "run.attach", payload: { since_seq: 3, epoch: "e_1" } }]);
    }
  });
});

describe("a connection's own commands", () => {
  it("are not sent again on the next one", () => {
    const { core, taken, get } = playbook();
    core.offer("run_1", [{ name: "a" }]);
    core.refresh("token");
    core.command("c1", "run.cancel", "run_1", {});
    taken();
    core.closed(1006, "", 0);
    taken();
    expect(sent(get(new FakeServer().ready("client_1"))).map(({ type }) => type)).toEqual(["run.attach", "run.cancel"]);
  });

  it("ready said twice attaches once", () => {
    const { get } = playbook();
    expect(get(new FakeServer().ready("client_1"))).toEqual([]);
  });
});

describe("a snapshot", () => {
  const reset = (seq: number, more: object = {}) =>
    frame("run.reset", { run_id: "run_1", reason: "requested", epoch: "e_1", snapshot_seq: seq, snapshot: {}, ...more });

  it("is asked for once: the next connection goes on from it", () => {
    const { core, taken, get, attached } = playbook();
    core.detach("run_1");
    core.attach("run_1", { replay: "snapshot" });
    const [, attach] = sent(taken());
    expect(attach.payload).toEqual({ since_seq: 0, replay: "snapshot" });
    get(attached(attach.command_id), reset(7));
    core.closed(1006, "", 0);
    taken();
    const [again] = sent(get(new FakeServer().ready("client_1")));
    expect(again.payload).toEqual({ since_seq: 7, epoch: "e_1" });
  });

  it("of what is known already moves nothing, of another history or a shorter one it does", () => {
    const { get } = playbook();
    get(text(1), text(2), text(3));
    expect(get(reset(2, { reason: "too_far" }))).toEqual([]);
    expect(seqs(get(text(3), text(4)))).toEqual([4]);
    expect(seqs(get(reset(2, { reason: "ahead" }), text(3)))).toEqual([3]);
    expect(seqs(get(reset(1, { reason: "epoch", epoch: "e_2" }), text(2)))).toEqual([2]);
  });
});

it("a reset without a snapshot is no frame: the connection is left, and the cursor stays", () => {
  const { get } = playbook();
  get(text(1), text(2));
  const actions = get(frame("run.reset", { run_id: "run_1" }));
  expect(kinds(actions)).toEqual(["drop", "connect"]);
  const [again] = sent(get(new FakeServer().ready("client_1")));
  expect(again.payload).toEqual({ since_seq: 2, epoch: "e_1" });
});

it("a detach while the attach is unanswered leaves nothing behind", () => {
  const { core, taken, get, attached } = playbook();
  core.detach("run_1");
  core.attach("run_1", {});
  const [, again] = sent(taken());
  expect(get(attached("own_1"), text(1))).toEqual([]);
  expect(seqs(get(attached(again.command_id), text(1)))).toEqual([1]);
});
