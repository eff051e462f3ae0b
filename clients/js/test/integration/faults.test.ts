/** A client and a real server, and between them a network that breaks: nothing is lost, nothing happens twice. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Client, ConnectOptions, Run, RunEvent } from "../../src/index.js";
import { impatient, read, same, until } from "./reading.js";
import { type Counts, type Line, Proxy, Server } from "./world.js";

let server: Server;
let proxy: Proxy;

beforeAll(async () => {
  server = await Server.up({ MIDSTREAM_STORE: "memory:", MIDSTREAM_HEARTBEAT_S: "0.5" });
  proxy = await Proxy.up(server.port);
}, 30_000);

afterAll(async () => {
  await proxy.down();
  await server.remove();
});

afterEach(async () => {
  await proxy.blockWebSockets(false);
  await proxy.accept();
});

const TRANSPORTS = ["websocket", "http"] as const;

function client(transport: NonNullable<ConnectOptions["transport"]>, more: Partial<ConnectOptions> = {}): Client {
  return impatient({ url: proxy.url, transport, ...more });
}

const sameAsTheServers = (run: Run, events: RunEvent[]): Promise<void> => same(server, run, events);

/** Connections that are kept for further requests would not have what is planned. */
async function fresh(lines: Line[], rest: Line = {}): Promise<Counts> {
  const before = await proxy.plan(lines, rest);
  await proxy.cut();
  return before;
}

/** Until its connection is gone. */
const away = (it: Client): Promise<void> =>
  new Promise((resolve) => {
    const stop = it.subscribe(() => {
      if (it.connection.status !== "reconnecting") return;
      stop();
      resolve();
    });
  });

/** Each connection with chances of its own, as long as a run may need them. */
const dice = (chances: Line): Line[] => Array.from({ length: 40 }, (_, seed) => ({ ...chances, seed }));

/** What is to happen, and the counts that say it did, by each transport. */
const FAULTS: [string, Line[], Line, (keyof Counts)[], (keyof Counts)[]][] = [
  ["nothing", [], {}, ["connections"], ["connections"]],
  ["refused connections", [{ refuse: true }, { refuse: true }, { refuse: true }], {}, ["refused"], ["refused"]],
  ["cut within the head of the answer", [{ cut_at: 20 }, { cut_at: 100, how: "reset" }], {}, ["cuts"], ["cuts"]],
  ["cut in the middle", [1500, 3000, 2200].map((cut_at) => ({ cut_at })), {}, ["cuts"], ["cuts"]],
  ["reset", [1500, 3000, 2200].map((cut_at) => ({ cut_at, how: "reset" as const })), {}, ["cuts"], ["cuts"]],
  ["cut on the way to the server", [100, 300, 700].map((up_cut_at) => ({ up_cut_at })), {}, ["cuts"], ["cuts"]],
  ["one byte at a time", [], { piece: 1 }, ["connections"], ["connections"]],
  ["stalls", [{ stall_at: 2000, stall_s: 0.3 }], { stall_at: 1000, stall_s: 0.2 }, ["stalls"], ["stalls"]],
  ["frames twice", dice({ duplicate: 0.5 }), {}, ["duplicated"], []],
  ["frames out of order", dice({ swap: 0.3 }), {}, ["swapped"], []],
  [
    "all of it",
    [
      { cut_at: 2500, piece: 7 },
      { stall_at: 1500, stall_s: 0.2, cut_at: 4000 },
      ...dice({ duplicate: 0.2, swap: 0.2 }),
    ],
    {},
    ["cuts"],
    ["cuts"],
  ],
];

describe.each(TRANSPORTS)("by %s", (transport) => {
  test.each(FAULTS)(
    "%s: every event once and in order",
    async (_, lines, rest, bySocket, byHttp) => {
      const before = await fresh(lines, rest);
      const it = client(transport);
      const run = await it.start({ input: "tell" });
      await sameAsTheServers(run, await read(run));
      it.close();
      const after = await proxy.seen();
      for (const count of transport === "websocket" ? bySocket : byHttp) {
        expect(after[count] - before[count], count).toBeGreaterThan(count === "cuts" ? 1 : 0);
      }
    },
    30_000,
  );

  test("approve with other arguments, correct and cancel, each across a cut: each happens once", async () => {
    await fresh([]);
    const it = client(transport);
    const run = await it.start({ input: "remove" });
    const reading = read(run);
    const did = server.did().length;
    const across = async <Result>(command: () => Promise<Result>): Promise<Result> => {
      // The first connection that it goes by takes it to the server and brings nothing back.
      const answer = command();
      await proxy.cut("reset");
      return answer;
    };
    await until(run, () => run.approvals.length > 0);
    await proxy.plan([{ cut_at: 900 }, { up_cut_at: 600 }, { cut_at: 700 }]);
    const [approval] = run.approvals;
    const approved = await across(() => approval!.edit({ what: "one thing" }));
    expect(approved).toMatchObject({ status: "accepted", run_id: run.id });
    await until(run, () => run.view.messages.some((message) => message.state === "open" && message.text.length > 100));
    const corrected = await across(() => run.correct("be brief", { mode: "now" }));
    await until(run, () => run.view.corrections[0]?.state === "applied");
    await until(run, () => run.view.messages.some((message) => message.state === "open" && message.text.length > 20));
    const cancelled = await across(() => run.cancel({ reason: "enough" }));
    const events = await reading;
    await sameAsTheServers(run, events);
    expect(run.view.status).toBe("cancelled");
    for (const [type, receipt] of [
      ["approval.resolved", approved],
      ["correction.accepted", corrected],
      ["run.cancelling", cancelled],
    ] as const) {
      const effects = events.filter((event) => event.type === type);
      expect(effects.map((event) => event.origin?.command_id)).toEqual([receipt.command_id]);
      expect(effects[0]!.seq).toBeLessThanOrEqual(receipt.at_seq!);
    }
    expect(
      server
        .did()
        .slice(did)
        .map((line) => line.split(" ").slice(0, 3)),
    ).toEqual([["delete", "one", "thing"]]);
    it.close();
  }, 30_000);

  test("a start whose answer is lost again and again begins one run", async () => {
    await fresh([{ cut_at: 600 }, { cut_at: 650 }, { cut_at: 700 }, { up_cut_at: 500 }, { cut_at: 800 }]);
    const it = client(transport);
    const input = `tell ${transport} once`;
    const run = await it.start({ input, threadId: `thread_once_${transport}` });
    await sameAsTheServers(run, await read(run));
    // Past the proxy: what is asked is how many runs there are.
    const answer = await fetch(`http://127.0.0.1:${server.port}/v1/runs?thread_id=thread_once_${transport}`);
    const { items } = (await answer.json()) as { items: { run_id: string }[] };
    expect(items.map((item) => item.run_id)).toEqual([run.id]);
    it.close();
  }, 30_000);

  test("a tool that this client runs is run once, whatever breaks meanwhile", async () => {
    await fresh([]);
    const opened: unknown[] = [];
    const it = client(transport, {
      tools: {
        open_file: async (args: unknown) => {
          opened.push(args);
          await proxy.cut("reset");
          return "opened";
        },
      } as never,
    });
    const run = await it.start({ input: "open" });
    const reading = read(run);
    await until(run, () => run.view.calls[0]?.state === "completed");
    await run.cancel();
    await sameAsTheServers(run, await reading);
    expect(opened).toEqual([{ path: "notes.txt" }]);
    it.close();
  }, 30_000);

  test("a line that says nothing more is given up, and what was missed comes", async () => {
    const stall = { stall_at: 2500, stall_s: 30 };
    const before = await fresh([stall, stall]);
    // Over HTTP patience is half a minute, whatever the server's heartbeat is: a clock that runs faster.
    const speed = transport === "http" ? 20 : 1;
    const it = client(transport, {
      now: () => Date.now() * speed,
      after(ms, callback) {
        const timer = setTimeout(callback, ms / speed);
        return () => clearTimeout(timer);
      },
    });
    const run = await it.start({ input: "tell" });
    await sameAsTheServers(run, await read(run));
    expect((await proxy.seen()).stalls).toBeGreaterThan(before.stalls);
    it.close();
  }, 30_000);

  test("nobody listens for a while: it waits, says so, and comes back", async () => {
    await fresh([]);
    const it = client(transport);
    const run = await it.start({ input: "remove" });
    const reading = read(run);
    await until(run, () => run.approvals.length > 0);
    await proxy.refuse();
    await proxy.cut();
    await away(it);
    expect(it.connection.reason).toBeTruthy();
    // Made while nobody listens.
    const denied = run.approvals[0]!.deny("not now");
    await new Promise((resolve) => setTimeout(resolve, 200));
    await proxy.accept();
    expect(await denied).toMatchObject({ status: "accepted" });
    await run.cancel();
    await sameAsTheServers(run, await reading);
    expect(it.connection.status).toBe("ready");
    it.close();
  }, 30_000);
});

test.each([1, 2, 3, 4, 5, 6])("a line that loses frames for ever (%i): all of it comes, and every answer", async (seed) => {
  const before = await fresh([], { drop: 0.05, seed });
  const it = client("websocket");
  const run = await it.start({ input: "remove" });
  const reading = read(run);
  await until(run, () => run.approvals.length > 0);
  expect(await run.approvals[0]!.edit({ what: "one thing" })).toMatchObject({ status: "accepted" });
  await until(run, () => run.view.messages.some(({ state, text }) => state === "open" && text.length > 100));
  expect(await run.correct("be brief", { mode: "now" })).toMatchObject({ status: "accepted" });
  await until(run, () => run.view.corrections[0]?.state === "applied");
  expect(await run.cancel()).toMatchObject({ status: "accepted" });
  await sameAsTheServers(run, await reading);
  expect((await proxy.seen()).dropped).toBeGreaterThan(before.dropped);
  it.close();
}, 30_000);

test.each(TRANSPORTS)("a tool registered after the start is run here, also after a reconnect, by %s", async (transport) => {
  await fresh([]);
  const asked: unknown[] = [];
  const it = client(transport);
  const run = await it.start({ input: "remove" });
  const reading = read(run);
  await until(run, () => run.approvals.length > 0);
  run.registerTool("open_file", (args) => {
    asked.push(args);
    return "opened";
  });
  await run.correct("open it");
  await run.approvals[0]!.deny("not now");
  await until(run, () => run.view.calls.some(({ tool, state }) => tool === "open_file" && state === "completed"));
  expect(asked).toEqual([{ path: "notes.txt" }]);

  // Another client takes it over while this one is away; with its attach it takes it back.
  await proxy.refuse();
  const gone = away(it);
  await proxy.cut("reset");
  await gone;
  const other = await fetch(`http://127.0.0.1:${server.port}/v1/runs/${run.id}/commands?client_id=other`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "tools.offer", payload: { client_tools: ["open_file"] } }),
  });
  expect(await other.json()).toMatchObject({ status: "accepted" });
  await proxy.accept();
  await until(run, () => run.attached);
  await run.correct("please open it again", { mode: "now" });
  await until(run, () => asked.length === 2);
  await run.cancel();
  await sameAsTheServers(run, await reading);
  it.close();
}, 30_000);

test("where WebSockets are blocked it is HTTP by itself", async () => {
  await fresh([]);
  await proxy.blockWebSockets(true);
  const it = client("auto");
  const run = await it.start({ input: "tell" });
  await sameAsTheServers(run, await read(run));
  expect(it.connection).toMatchObject({ status: "ready", transport: "http" });
  it.close();
}, 30_000);
