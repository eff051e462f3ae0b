/** The HTTP link against a real server: what it makes up is what a WebSocket says. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { Environment } from "../../src/environment.js";
import { connect } from "../../src/index.js";
import { openHttp } from "../../src/http.js";
import { Server } from "./world.js";

let server: Server;
beforeAll(
  async () => void (server = await Server.up({ MIDSTREAM_STORE: "memory:", MIDSTREAM_HEARTBEAT_S: "0.2" })),
  30_000,
);
afterAll(() => server.remove());

interface Speaker {
  said: any[];
  send(frame: object): void;
  until(enough: (frame: any) => boolean): Promise<void>;
  close(): void;
}

function speaker(
  open: (frame: (text: string) => void, closed: (why: string) => void) => [(text: string) => void, () => void],
): Speaker {
  const said: any[] = [];
  let look: () => void = () => undefined;
  let failed: string | undefined;
  const [send, close] = open(
    (text) => {
      said.push(JSON.parse(text));
      look();
    },
    (why) => {
      failed = why;
      look();
    },
  );
  return {
    said,
    send: (frame) => send(JSON.stringify({ v: 1, ...frame })),
    close,
    until: (enough) =>
      new Promise((resolve, reject) => {
        look = () => {
          if (said.some(enough)) resolve();
          else if (failed !== undefined) reject(new Error(failed));
        };
        look();
      }),
  };
}

const byHttp = (): Speaker =>
  speaker((frame, closed) => {
    const environment = {
      fetch: globalThis.fetch,
      now: () => Date.now(),
      after: (ms: number, callback: () => void) => {
        const timer = setTimeout(callback, ms);
        return () => clearTimeout(timer);
      },
      newId: (kind: string) => `${kind}_1`,
    } as unknown as Environment;
    const url = new URL(`http://127.0.0.1:${server.port}/`);
    const link = openHttp(
      { opened: () => undefined, frame, closed: (code, reason) => closed(`${code} ${reason}`) },
      { url, clientId: "cl_1", token: undefined, environment },
    );
    return [(text) => link.send(text), () => link.close(1000)];
  });

const bySocket = (): Speaker =>
  speaker((frame, closed) => {
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/v1/ws?client_id=cl_1`);
    socket.on("message", (data) => frame(String(data)));
    socket.on("close", (code, reason) => closed(`${code} ${reason}`));
    return [(text) => socket.send(text), () => socket.close()];
  });

const is = (type: string) => (frame: any) => frame.type === type;

/** The frames without what differs between two connections, and without signs of life. */
function shown(said: any[]): unknown[] {
  return said
    .filter((frame) => frame.type !== "heartbeat" && frame.type !== "connection.ready")
    .map((frame) => {
      const { expires_in_s: _, ...rest } = frame.payload ?? {};
      const pending = (rest.pending as any[] | undefined)?.map(({ expires_in_s: _, ...item }) => item);
      return { ...frame, payload: pending ? { ...rest, pending } : rest };
    });
}

const speakers = [
  ["http", byHttp],
  ["websocket", bySocket],
] as const;

test.each(speakers)(
  "a run from its start to its end, by %s",
  async (name, open) => {
    const it = open();
    await it.until(is("connection.ready"));
    it.send({ type: "run.start", command_id: `start_${name}`, payload: { input: "tell", run_id: `told_${name}` } });
    await it.until(is("run.completed"));
    const receipt = it.said.find(is("receipt"));
    expect(receipt.payload).toMatchObject({ status: "accepted", run_id: `told_${name}` });
    expect(it.said.find(is("run.attached")).payload.command_id).toBe(`start_${name}`);
    expect(it.said.filter((frame) => "seq" in frame)).toEqual((await server.truth(`told_${name}`)).events);
    it.close();
  },
  30_000,
);

test("attaching to what waits, to what has ended and to what is not there is the same on both", async () => {
  const starter = byHttp();
  await starter.until(is("connection.ready"));
  starter.send({ type: "run.start", command_id: "s_1", payload: { input: "remove", run_id: "waits" } });
  starter.send({ type: "run.start", command_id: "s_2", payload: { input: "tell", run_id: "ended" } });
  await starter.until(is("approval.required"));
  await starter.until(is("run.completed"));
  const [http, socket] = await Promise.all(
    speakers.map(async ([, open]) => {
      const said: unknown[] = [];
      for (const [runId, payload] of [
        ["waits", {}],
        ["waits", { since_seq: 3 }],
        ["waits", { since_seq: 3, epoch: "e_other" }],
        ["waits", { since_seq: 99_999 }],
        ["waits", { replay: "snapshot" }],
        ["ended", { since_seq: 3 }],
        ["ended", { replay: "snapshot" }],
        ["ended", { since_seq: 99_999 }],
        ["not_there", {}],
      ] as const) {
        const it = open();
        await it.until(is("connection.ready"));
        it.send({ type: "run.attach", command_id: "a_1", run_id: runId, payload });
        await it.until((frame) => frame.type === "run.caught_up" || frame.payload?.status === "rejected");
        said.push([runId, payload, shown(it.said)]);
        it.close();
      }
      return said;
    }),
  );
  expect(http).toEqual(socket);
  starter.close();
}, 30_000);

test("signs of life come while nothing happens", async () => {
  const it = byHttp();
  await it.until(is("connection.ready"));
  it.send({ type: "run.start", command_id: "s_3", payload: { input: "remove", run_id: "quiet" } });
  await it.until(is("approval.required"));
  await it.until(is("heartbeat"));
  const { seq } = it.said.findLast((frame) => "seq" in frame);
  expect(it.said.find(is("heartbeat")).payload.runs).toEqual({ quiet: seq });
  it.close();
}, 30_000);

test("a run that has ended can be followed again at once, and again", async () => {
  const client = connect({ url: `http://127.0.0.1:${server.port}`, transport: "http" });
  let run = await client.start({ input: "tell" });
  const counts: number[] = [];
  for (let each = 0; each < 5; each += 1) {
    let count = 0;
    for await (const _ of run) count += 1;
    counts.push(count);
    run = await client.attach(run.id);
  }
  expect(new Set(counts).size).toBe(1);
  client.close();
}, 30_000);
