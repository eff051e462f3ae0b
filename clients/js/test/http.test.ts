import { beforeEach, describe, expect, test } from "vitest";
import type { Environment } from "../src/environment.js";
import { openHttp, SILENT_HEARTBEATS } from "../src/http.js";
import { ANSWER_MS } from "../src/http_requests.js";
import { AGAIN_MS, MAX_STREAMS, TURN_MS } from "../src/http_streams.js";
import type { Link } from "../src/link.js";

/** One request, answered by the test. */
class Asked {
  readonly method: string;
  readonly url: URL;
  readonly headers: Record<string, string>;
  readonly body: any;
  readonly signal: AbortSignal;
  readonly answered: Promise<Response>;
  taken = false;
  #resolve!: (response: Response) => void;
  #reject!: (error: unknown) => void;
  #stream: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor(url: URL, init: RequestInit) {
    this.url = url;
    this.method = init.method ?? "GET";
    this.headers = init.headers as Record<string, string>;
    this.body = init.body === undefined ? undefined : JSON.parse(init.body as string);
    this.signal = init.signal!;
    this.answered = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.signal.addEventListener("abort", () => {
      this.#reject(this.signal.reason);
      try {
        this.#stream?.error(this.signal.reason);
      } catch {
        // It has ended.
      }
    });
  }

  async answer(status: number, body: unknown = undefined, headers: Record<string, string> = {}): Promise<void> {
    this.#resolve(
      new Response(body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body), {
        status,
        headers,
      }),
    );
    await settled();
  }

  async fail(): Promise<void> {
    this.#reject(new TypeError("fetch failed"));
    await settled();
  }

  async stream(...pieces: string[]): Promise<void> {
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.#stream = controller) });
    this.#resolve(new Response(body, { headers: { "content-type": "text/event-stream; charset=utf-8" } }));
    await this.more("retry: 1000\n: connected\n\n", ...pieces);
  }

  async more(...pieces: (string | Uint8Array)[]): Promise<void> {
    for (const piece of pieces) {
      this.#stream!.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
    }
    await settled();
  }

  async end(): Promise<void> {
    this.#stream!.close();
    await settled();
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

let asked: Asked[];
let said: any[];
let closed: [number, string] | undefined;
let now: number;
let timers: { at: number; callback: () => void }[];
let link: Link;
/** What is done as soon as a frame is said. */
let onFrame: (frame: any) => void;

const environment = (): Environment =>
  ({
    fetch: async (url: URL, init: RequestInit) => {
      const one = new Asked(url, init);
      asked.push(one);
      return one.answered;
    },
    now: () => now,
    after: (ms: number, callback: () => void) => {
      const timer = { at: now + ms, callback };
      timers.push(timer);
      return () => void (timers = timers.filter((each) => each !== timer));
    },
    random: () => 1,
    newId: (kind: string) => `${kind}_1`,
  }) as unknown as Environment;

async function pass(ms: number): Promise<void> {
  const until = now + ms;
  for (;;) {
    const next = timers.filter((each) => each.at <= until).sort((a, b) => a.at - b.at)[0];
    if (next === undefined) break;
    timers = timers.filter((each) => each !== next);
    now = next.at;
    next.callback();
    await settled();
  }
  now = until;
}

/** The oldest request of this kind that has no answer yet. */
function request(method: string, path: string | RegExp): Asked {
  const found = asked.find((each) => {
    const where = each.url.pathname + each.url.search;
    return !each.taken && each.method === method && (typeof path === "string" ? where === path : path.test(where));
  });
  if (found === undefined) {
    throw new Error(
      `no ${method} ${path} among ${asked.map((each) => each.method + each.url.pathname + each.url.search)}`,
    );
  }
  found.taken = true;
  return found;
}

const asking = (path: RegExp): number => asked.filter((each) => !each.taken && path.test(each.url.pathname)).length;

const HEARTBEAT_S = 20;
const CONNECTION = "/agents/v1/connection?client_id=cl_1";
const READY = { connection_id: "conn_1", client_id: "cl_1", heartbeat_s: HEARTBEAT_S, limits: { max_runs: 32 } };
const event = (seq: number, type = "message.delta", payload: object = {}): string =>
  `id: e_1.${seq}\nevent: ${type}\ndata: ${JSON.stringify({ v: 1, seq, run_id: "run_1", type, ts: "", payload })}\n\n`;
/** What a stream says between the events. */
const about = (type: string, payload: object): string =>
  `event: ${type}\ndata: ${JSON.stringify({ v: 1, type, payload })}\n\n`;
const attached = (head_seq: number, more: object = {}, runId = "run_1"): string =>
  about("run.attached", { command_id: "http", run_id: runId, epoch: "e_1", head_seq, status: "running", ...more });
const caughtUp = (seq: number, runId = "run_1"): string => about("run.caught_up", { run_id: runId, seq });
const reset = (seq: number, more: object = {}): string =>
  `id: e_1.${seq}\n` +
  about("run.reset", { run_id: "run_1", reason: "requested", epoch: "e_1", snapshot: {}, snapshot_seq: seq, ...more });
const DRAINING = about("connection.draining", { reconnect_in_s: 2.5 });
const NOT_FOUND = { error: { code: "not_found", text: "no such run" } };

function open(token?: string, url = "http://server/agents/"): void {
  link = openHttp(
    {
      opened: () => said.push("opened"),
      frame(text) {
        said.push(JSON.parse(text));
        onFrame(said.at(-1));
      },
      closed: (code, reason) => {
        expect(closed).toBeUndefined();
        closed = [code, reason];
      },
    },
    { url: new URL(url), clientId: "cl_1", token, environment: environment() },
  );
}

async function ready(token?: string): Promise<void> {
  open(token);
  await settled();
  await request("GET", CONNECTION).answer(200, READY);
  said.length = 0;
}

function send(type: string, payload: object = {}, more: object = {}): void {
  link.send(JSON.stringify({ v: 1, type, command_id: "c_1", payload, ...more }));
}

const attach = async (payload: object = {}): Promise<void> => {
  send("run.attach", payload, { run_id: "run_1" });
  await settled();
};

const types = (): string[] => said.map((each) => each.type);

beforeEach(() => {
  asked = [];
  said = [];
  closed = undefined;
  now = 1_000_000;
  timers = [];
  onFrame = () => undefined;
});

describe("opening", () => {
  test("one authenticated request, then the frame that a socket begins with", async () => {
    open("s3cret");
    expect(said).toEqual([]);
    await settled();
    const probe = request("GET", CONNECTION);
    expect(probe.headers["authorization"]).toBe("Bearer s3cret");
    await probe.answer(200, READY);
    expect(said[0]).toBe("opened");
    expect(said[1]).toMatchObject({
      v: 1,
      type: "connection.ready",
      payload: { client_id: "cl_1", heartbeat_s: HEARTBEAT_S },
    });
    expect(said[1].payload.limits).toEqual(READY.limits);
  });

  test.each([
    [
      "a token that is not valid",
      401,
      { error: { code: "unauthorized", text: "send a token" } },
      {},
      4500,
      "send a token",
    ],
    ["a page that may not", 403, { error: { code: "forbidden", text: "Origin" } }, {}, 4503, "Origin"],
    ["a server that goes down", 503, {}, { "retry-after": "3" }, 4001, '{"reconnect_in_s":3}'],
    ["too many", 429, {}, { "retry-after": "2" }, 4013, '{"reconnect_in_s":2}'],
    [
      "a gateway without a server behind it",
      502,
      "<html>",
      {},
      1006,
      "the server's answer is 502, and no Midstream answer",
    ],
    ["no such server", 404, "<html>", {}, 4501, "the server's answer is 404, and no Midstream answer"],
    ["the sign-in page of a network", 200, "<html>", {}, 1006, "what answers here is no Midstream server"],
  ])("%s", async (_, status, body, headers, code, reason) => {
    open();
    await settled();
    await request("GET", CONNECTION).answer(status, body, headers as Record<string, string>);
    expect(closed).toEqual([code, reason]);
    expect(said).toEqual([]);
  });

  test("no network, and no answer", async () => {
    open();
    await settled();
    await request("GET", CONNECTION).fail();
    expect(closed).toEqual([1006, "fetch failed"]);
    closed = undefined;
    open();
    await settled();
    await pass(ANSWER_MS);
    expect(closed).toEqual([1006, "no answer within 30 s"]);
  });

  test("nothing is said after close, and nothing is asked any more", async () => {
    await ready();
    send("run.cancel", {}, { run_id: "run_1" });
    send("run.correct", { text: "x" }, { run_id: "run_1" });
    await attach();
    const before = asked.length;
    link.close(1000);
    expect(asked.every((each) => each.taken || each.signal.aborted)).toBe(true);
    await settled();
    await pass(10 * ANSWER_MS);
    expect([said, closed, asked.length]).toEqual([[], undefined, before]);
  });
});

describe("following", () => {
  test("an attach is a stream and what it says; events are the very text that came", async () => {
    await ready();
    await attach({ since_seq: 3, epoch: "e_1", replay: "merged" });
    const stream = request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=3&epoch=e_1&replay=merged");
    expect(stream.headers["accept"]).toBe("text/event-stream");
    await stream.stream();
    expect(said).toEqual([]);
    await stream.more(attached(5, { can: ["cancel"], pending: [] }), event(4));
    expect(said[0]).toMatchObject({
      type: "receipt",
      payload: { command_id: "c_1", status: "accepted", run_id: "run_1" },
    });
    expect(said[1]).toMatchObject({
      type: "run.attached",
      payload: { command_id: "c_1", epoch: "e_1", head_seq: 5, can: ["cancel"], pending: [] },
    });
    expect(said[2].seq).toBe(4);
    await stream.more(event(5), caughtUp(5), event(6));
    expect(types().slice(3)).toEqual(["message.delta", "run.caught_up", "message.delta"]);
    expect(said[4].payload).toEqual({ run_id: "run_1", seq: 5 });
  });

  test("a reset is a frame, and the place from which a dead stream goes on", async () => {
    await ready();
    await attach({ since_seq: 9, epoch: "e_0" });
    const stream = request("GET", /events/);
    await stream.stream(attached(5), reset(5, { reason: "epoch", epoch: "e_2" }), caughtUp(5));
    expect(types()).toEqual(["receipt", "run.attached", "run.reset", "run.caught_up"]);
    send("ping", { t: 1 });
    await settled();
    const again = request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=5&epoch=e_2");
    await again.stream(attached(6, { epoch: "e_2" }), event(6), caughtUp(6), reset(9), caughtUp(9));
    // What a stream says that was opened again was said; after a reset it is news.
    expect(types().slice(4)).toEqual(["message.delta", "run.reset", "run.caught_up"]);
  });

  test("a snapshot is asked for once", async () => {
    await ready();
    await attach({ replay: "snapshot" });
    const stream = request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=0&replay=snapshot");
    await stream.stream(attached(5), reset(5), caughtUp(5));
    expect(types().slice(2)).toEqual(["run.reset", "run.caught_up"]);
    send("ping");
    await settled();
    request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=5&epoch=e_1");
  });

  test("who leaves in the middle of what came hears nothing of the rest", async () => {
    await ready();
    await attach();
    let during: number | undefined;
    onFrame = (frame) => {
      if (frame.seq !== 2) return;
      send("run.detach", {}, { run_id: "run_1", command_id: "c_9" });
      during = said.length;
    };
    await request("GET", /events/).stream(attached(9) + event(1) + event(2) + event(3) + caughtUp(3));
    expect(types()).toEqual(["receipt", "run.attached", "message.delta", "message.delta", "receipt"]);
    // No event before `send` has returned.
    expect(during).toBe(4);
    expect(closed).toBeUndefined();
  });

  test("who closes at the receipt hears nothing after it", async () => {
    await ready();
    await attach();
    onFrame = () => link.close(1000);
    await request("GET", /events/).stream(attached(9), event(1));
    expect(types()).toEqual(["receipt"]);
    expect(closed).toBeUndefined();
  });

  test.each([
    ["is gone", [attached(9), about("run.reset", { run_id: "run_1", reason: "gone" })], ["run.reset"]],
    [
      "ends",
      [attached(2), event(1), event(2, "run.completed"), caughtUp(2)],
      ["message.delta", "run.completed", "run.caught_up"],
    ],
    ["had ended", [attached(7, { status: "failed" }), caughtUp(7)], ["run.caught_up"]],
    [
      "had ended, as a snapshot",
      [attached(7, { status: "running" }), reset(7, { snapshot: { status: "failed" } }), caughtUp(7)],
      ["run.reset", "run.caught_up"],
    ],
  ])("of a run that %s nothing more is asked, and that is no end of the link", async (_, text, kinds) => {
    await ready();
    await attach({ since_seq: 0 });
    const stream = request("GET", /events/);
    await stream.stream(...text);
    expect(types()).toEqual(["receipt", "run.attached", ...kinds]);
    expect([asking(/./), closed]).toEqual([0, undefined]);
  });

  test("refusals are receipts", async () => {
    await ready();
    await attach();
    await request("GET", /events/).answer(404, NOT_FOUND);
    expect(said).toEqual([
      {
        v: 1,
        type: "receipt",
        payload: { run_id: "run_1", command_id: "c_1", status: "rejected", code: "not_found", text: "no such run" },
      },
    ]);
    expect(closed).toBeUndefined();
  });

  test.each([
    ["ends", async (stream: Asked) => stream.end(), 1006, "the event stream ended"],
    [
      "ends because the server does",
      async (stream: Asked) => stream.more(DRAINING).then(() => stream.end()),
      4001,
      '{"reconnect_in_s":2.5}',
    ],
    ["is no UTF-8", async (stream: Asked) => stream.more(new Uint8Array([0x64, 0xff, 0xff])), 1006, expect.any(String)],
  ])("a stream that %s ends the link", async (_, break_, code, reason) => {
    await ready();
    await attach();
    const stream = request("GET", /events/);
    await stream.stream(attached(0), caughtUp(0));
    await break_(stream);
    expect(closed).toEqual([code, reason]);
  });

  test("one that brought something is opened again first, from there", async () => {
    await ready();
    await attach();
    const stream = request("GET", /events/);
    await stream.stream(attached(0), caughtUp(0), event(1), event(2).slice(0, 20));
    await stream.end();
    expect([asking(/events/), closed]).toEqual([0, undefined]);
    await pass(AGAIN_MS);
    const next = request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=1&epoch=e_1");
    await next.stream(attached(2), event(2), caughtUp(2));
    expect(types()).toEqual(["receipt", "run.attached", "run.caught_up", "message.delta", "message.delta"]);
    await next.end();
    await pass(AGAIN_MS);
    await request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=2&epoch=e_1").fail();
    expect(closed).toEqual([1006, "fetch failed"]);
  });

  test("what the server ends because it goes down is the end, whatever it brought", async () => {
    await ready();
    await attach();
    const stream = request("GET", /events/);
    await stream.stream(attached(0), event(1), DRAINING);
    await stream.end();
    expect(closed).toEqual([4001, '{"reconnect_in_s":2.5}']);
  });

  test("characters and lines may be cut anywhere, and a byte order mark is none", async () => {
    await ready();
    await attach();
    const stream = request("GET", /events/);
    await stream.stream(attached(0), caughtUp(0));
    const bytes = new TextEncoder().encode(event(1, "message.delta", { text: "é😀" }).replaceAll("\n", "\r\n"));
    for (const byte of bytes) await stream.more(new Uint8Array([byte]));
    expect(said.at(-1)).toMatchObject({ seq: 1, payload: { text: "é😀" } });
  });

  test("attaching again begins again: of the stream before, nothing is said", async () => {
    await ready();
    await attach();
    const first = request("GET", /events/);
    await first.stream(attached(5), event(1));
    said.length = 0;
    send("run.attach", { since_seq: 1 }, { run_id: "run_1", command_id: "c_2" });
    expect(first.signal.aborted).toBe(true);
    await settled();
    await request("GET", /events/).stream(attached(5), event(2));
    expect(types()).toEqual(["receipt", "run.attached", "message.delta"]);
    expect(said[1].payload.command_id).toBe("c_2");
    send("run.detach", {}, { run_id: "run_1", command_id: "c_3" });
    await settled();
    expect(said.at(-1).payload).toEqual({ command_id: "c_3", run_id: "run_1", status: "accepted" });
    expect(closed).toBeUndefined();
  });

  test("the tools of an attach are offered first", async () => {
    await ready();
    await attach({ client_tools: [{ name: "edit" }] });
    expect(asking(/events/)).toBe(0);
    const offer = request("POST", "/agents/v1/runs/run_1/commands?client_id=cl_1");
    expect(offer.body).toMatchObject({ type: "tools.offer", payload: { client_tools: [{ name: "edit" }] } });
    await offer.answer(200, { command_id: offer.body.command_id, status: "accepted" });
    await request("GET", /events/).stream(attached(0), caughtUp(0));
    expect(types()).toEqual(["receipt", "run.attached", "run.caught_up"]);
  });

  test("an offer that is refused is the attach's refusal; of a run that has ended it means nothing", async () => {
    await ready();
    const refused = async (status: number, code: string): Promise<void> => {
      await attach({ client_tools: [{ name: "edit" }] });
      const offer = request("POST", /commands/);
      await offer.answer(status, { command_id: offer.body.command_id, status: "rejected", code, text: "t" });
    };
    await refused(409, "conflict");
    expect(said).toMatchObject([{ type: "receipt", payload: { command_id: "c_1", status: "rejected", code: "conflict" } }]);
    expect(asking(/events/)).toBe(0);
    await refused(409, "run_ended");
    request("GET", /events/);
    await refused(503, "draining");
    expect(closed).toEqual([4001, '{"reconnect_in_s":1}']);
  });
});

describe("commands", () => {
  const receipt = (commandId: string, more: object = {}): object => ({
    command_id: commandId,
    status: "accepted",
    at_seq: 5,
    run_id: "run_1",
    ...more,
  });

  test("one run's are posted one after the other, another's at once", async () => {
    await ready();
    send("run.correct", { text: "a" }, { run_id: "run_1", command_id: "c_1" });
    send("run.cancel", {}, { run_id: "run_1", command_id: "c_2" });
    send("run.cancel", {}, { run_id: "run_2", command_id: "c_3" });
    await settled();
    expect(asking(/commands/)).toBe(2);
    const first = request("POST", "/agents/v1/runs/run_1/commands?client_id=cl_1");
    expect(first.headers).toMatchObject({ "idempotency-key": "c_1", "content-type": "application/json" });
    expect(first.body).toMatchObject({ v: 1, type: "run.correct", command_id: "c_1", payload: { text: "a" } });
    await first.answer(200, receipt("c_1"));
    expect(said[0]).toMatchObject({ type: "receipt", payload: { command_id: "c_1", at_seq: 5 } });
    expect(request("POST", "/agents/v1/runs/run_1/commands?client_id=cl_1").body.command_id).toBe("c_2");
  });

  test("a refusal is a receipt and does not stop the next", async () => {
    await ready();
    send("run.correct", { text: "a" }, { run_id: "run_1", command_id: "c_1" });
    send("run.cancel", {}, { run_id: "run_1", command_id: "c_2" });
    await settled();
    const resolution = { decision: "denied", by: "u", at_seq: 3 };
    await request("POST", /run_1/).answer(409, {
      command_id: "c_1",
      status: "rejected",
      code: "already_resolved",
      text: "t",
      resolution,
    });
    expect(said[0].payload).toEqual({
      command_id: "c_1",
      run_id: "run_1",
      status: "rejected",
      code: "already_resolved",
      text: "t",
      resolution,
    });
    await request("POST", /run_1/).answer(404, NOT_FOUND);
    expect(said[1].payload).toMatchObject({
      command_id: "c_2",
      status: "rejected",
      code: "not_found",
      text: "no such run",
    });
    expect(closed).toBeUndefined();
  });

  test("a start is followed from its beginning", async () => {
    await ready();
    send("run.start", { input: "go", client_tools: ["edit"] });
    await settled();
    const start = request("POST", "/agents/v1/runs?client_id=cl_1");
    expect([start.body, start.headers["idempotency-key"]]).toEqual([{ input: "go", client_tools: ["edit"] }, "c_1"]);
    await start.answer(201, {
      run_id: "run_1",
      thread_id: "th_1",
      status: "running",
      as: "started",
      cursor: {},
      links: {},
    });
    await request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=0").stream(attached(1), event(1), caughtUp(1));
    expect(types()).toEqual(["receipt", "run.attached", "message.delta", "run.caught_up"]);
    expect(said[0].payload).toEqual({
      command_id: "c_1",
      status: "accepted",
      run_id: "run_1",
      thread_id: "th_1",
      as: "started",
    });
    expect(said[1].payload.command_id).toBe("c_1");
  });

  test.each([
    ["envelope", {}, { run_id: "run_1" }],
    ["payload", { run_id: "run_1" }, {}],
  ])("a start with the run's id in the %s says it, and a command to that run waits", async (_, payload, envelope) => {
    await ready();
    send("run.start", { input: "go", ...payload }, envelope);
    send("run.correct", { text: "a" }, { run_id: "run_1", command_id: "c_2" });
    await settled();
    expect(asking(/commands/)).toBe(0);
    const start = request("POST", /runs/);
    expect(start.body).toEqual({ input: "go", run_id: "run_1" });
    await start.answer(201, { run_id: "run_1", thread_id: "th_1", status: "running" });
    expect(asking(/commands/)).toBe(1);
  });

  test("a start that is refused, and a correction that becomes another run", async () => {
    await ready();
    send("run.start", { input: "go" });
    await settled();
    await request("POST", /runs/).answer(
      429,
      { error: { code: "busy", text: "t", retryable: true } },
      { "retry-after": "1" },
    );
    expect(said[0].payload).toEqual({
      command_id: "c_1",
      status: "rejected",
      code: "busy",
      text: "t",
      retryable: true,
    });
    send("run.correct", { text: "a", if_ended: "start" }, { run_id: "run_0", command_id: "c_2" });
    await settled();
    await request("POST", /run_0/).answer(200, receipt("c_2", { as: "started" }));
    request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=0");
  });

  test("what takes long is asked again, and holds nobody up", async () => {
    await ready();
    send("run.correct", { text: "a" }, { run_id: "run_1", command_id: "c_1" });
    send("run.cancel", {}, { run_id: "run_1", command_id: "c_2" });
    await settled();
    await request("POST", /run_1/).answer(202, { status: "pending", command_id: "c_1" }, { "retry-after": "1" });
    expect(request("POST", /run_1/).body.command_id).toBe("c_2");
    expect(said).toEqual([]);
    await pass(1_000);
    expect(asking(/commands/)).toBe(0);
    await asked.find((each) => each.body?.command_id === "c_2")!.answer(200, receipt("c_2"));
    await request("POST", /run_1/).answer(200, receipt("c_1"));
    expect(said.map((each) => each.payload.command_id)).toEqual(["c_2", "c_1"]);
  });

  test("what takes long is not asked for again after close", async () => {
    await ready();
    send("run.cancel", {}, { run_id: "run_1" });
    await settled();
    await request("POST", /run_1/).answer(202, { status: "pending", command_id: "c_1" }, { "retry-after": "1" });
    link.close(1000);
    await pass(5_000);
    expect([asking(/./), closed]).toEqual([0, undefined]);
  });

  test.each([
    ["no network", async (post: Asked) => post.fail(), 1006],
    ["a gateway's own page", async (post: Asked) => post.answer(502, "<html>"), 1006],
    ["another token", async (post: Asked) => post.answer(401, { error: { code: "unauthorized", text: "t" } }), 4500],
    ["another kind of answer", async (post: Asked) => post.answer(200, { hello: 1 }), 1006],
  ])("%s: no receipt, the link ends, the command is the next one's", async (_, break_, code) => {
    await ready();
    send("run.cancel", {}, { run_id: "run_1" });
    await settled();
    await break_(request("POST", /run_1/));
    expect(closed?.[0]).toBe(code);
    expect(said).toEqual([]);
  });

  test("a body that something on the way finds too large is refused once, not for ever", async () => {
    await ready();
    send("run.cancel", {}, { run_id: "run_1" });
    await settled();
    await request("POST", /run_1/).answer(413, "<html>");
    expect(said[0].payload).toMatchObject({ status: "rejected", code: "too_large" });
    expect(closed).toBeUndefined();
  });

  test("a server that goes down takes no command: the next connection does", async () => {
    await ready();
    send("run.cancel", {}, { run_id: "run_1" });
    await settled();
    const body = { command_id: "c_1", status: "rejected", code: "draining", text: "t", retryable: true };
    await request("POST", /run_1/).answer(503, body, { "retry-after": "1" });
    expect(said[0].payload.code).toBe("draining");
    expect(closed).toEqual([4001, '{"reconnect_in_s":1}']);
  });

  test("tools are offered with a post, each time anew", async () => {
    await ready();
    for (const name of ["a", "b"]) {
      send("tools.offer", { client_tools: [{ name }] }, { run_id: "run_1", command_id: `c_${name}` });
      await settled();
      const offer = request("POST", "/agents/v1/runs/run_1/commands?client_id=cl_1");
      expect(offer.body.payload).toEqual({ client_tools: [{ name }] });
      await offer.answer(200, { command_id: `c_${name}`, run_id: "run_1", status: "accepted" });
    }
    expect(said.map((each) => [each.type, each.payload.command_id])).toEqual([
      ["receipt", "c_a"],
      ["receipt", "c_b"],
    ]);
  });

  test("what is sent again while it is being answered is posted once", async () => {
    await ready();
    send("run.cancel", {}, { run_id: "run_1" });
    send("run.cancel", {}, { run_id: "run_1" });
    await settled();
    await request("POST", /run_1/).answer(200, receipt("c_1"));
    expect([asking(/./), said.length]).toEqual([0, 1]);
    send("run.cancel", {}, { run_id: "run_1" });
    await settled();
    expect(asking(/run_1/)).toBe(1);
  });

  test("a new token is tried at once", async () => {
    await ready("old");
    send("auth.refresh", { token: "new" });
    await settled();
    const probe = request("GET", CONNECTION);
    expect(probe.headers["authorization"]).toBe("Bearer new");
    await probe.answer(200, READY);
    expect(said[0].payload).toMatchObject({ command_id: "c_1", status: "accepted" });
    send("auth.refresh", { token: "bad" });
    await settled();
    await request("GET", CONNECTION).answer(401, { error: { code: "unauthorized", text: "t" } });
    expect(said[1].payload).toMatchObject({ status: "rejected", code: "unauthorized" });
    send("ping", { t: 3 });
    await settled();
    expect(request("GET", CONNECTION).headers["authorization"]).toBe("Bearer new");
  });
});

describe("signs of life", () => {
  test("without a run the server is asked whether it is there", async () => {
    await ready();
    await pass(HEARTBEAT_S * 1000);
    await request("GET", CONNECTION).answer(200, READY);
    expect(said).toMatchObject([{ type: "heartbeat", payload: { runs: {} } }]);
    await pass(HEARTBEAT_S * 1000);
    await request("GET", CONNECTION).fail();
    expect(closed?.[0]).toBe(1006);
  });

  const heartbeatMs = HEARTBEAT_S * 1000;

  test("a beat names every run, while their streams show life", async () => {
    await ready();
    const streams: Asked[] = [];
    for (const runId of ["run_1", "run_2"]) {
      send("run.attach", { since_seq: 5, epoch: "e_1" }, { run_id: runId });
      await settled();
      streams.push(request("GET", /events/));
      await streams.at(-1)!.stream(attached(5, {}, runId), caughtUp(5, runId));
    }
    await streams[0]!.more(event(6));
    said.length = 0;
    await pass(heartbeatMs - 1);
    await streams[1]!.more(about("heartbeat", { now: "", runs: { run_2: 5 } }));
    expect(said, "it would leave the other run out").toEqual([]);
    await pass(1);
    expect(said).toMatchObject([{ type: "heartbeat", payload: { runs: { run_1: 6, run_2: 5 } } }]);
    expect(asking(/./)).toBe(0);
  });

  test("streams that say nothing are no sign of life, and are opened again", async () => {
    await ready();
    await attach({ since_seq: 5, epoch: "e_1" });
    const stream = request("GET", /events/);
    await stream.stream(attached(5), caughtUp(5));
    said.length = 0;
    for (let beat = 1; beat <= SILENT_HEARTBEATS; beat += 1) {
      await pass(heartbeatMs);
      expect(said.length).toBe(beat - 1);
      await request("GET", CONNECTION).answer(200, READY);
    }
    expect(stream.signal.aborted).toBe(false);
    await pass(heartbeatMs);
    expect(stream.signal.aborted).toBe(true);
    request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=5&epoch=e_1");
    await request("GET", CONNECTION).fail();
    expect(closed?.[0]).toBe(1006);
  });

  test("a ping opens the streams again, from where they are", async () => {
    await ready();
    await attach({ since_seq: 5, epoch: "e_1" });
    const stream = request("GET", /events/);
    await stream.stream(attached(5), caughtUp(5), event(6));
    said.length = 0;
    send("ping", { t: 4 });
    await settled();
    expect(stream.signal.aborted).toBe(true);
    await request("GET", CONNECTION).answer(200, READY);
    await request("GET", "/agents/v1/runs/run_1/events?frames=1&since_seq=6&epoch=e_1").stream(attached(7), event(7), caughtUp(7));
    expect(said).toMatchObject([{ type: "pong", payload: { t: 4 } }, { seq: 7 }]);
    expect(closed).toBeUndefined();
  });
});

const runOf = (stream: Asked): string => stream.url.pathname.split("/").at(-2)!;

test("more runs than streams take turns, and none is lost", async () => {
  await ready();
  const runs = Array.from({ length: MAX_STREAMS + 2 }, (_, index) => `run_${index}`);
  for (const runId of runs)
    send("run.attach", { since_seq: 5, epoch: "e_1" }, { run_id: runId, command_id: `c_${runId}` });
  await settled();
  const told = (): string[] =>
    said.filter((each) => each.type === "run.attached").map((each) => each.payload.run_id);
  const serve = async (): Promise<number> => {
    let opened = 0;
    while (asking(/events/) > 0) {
      opened += 1;
      const stream = request("GET", /events/);
      const runId = runOf(stream);
      await stream.stream(attached(5, {}, runId), caughtUp(5, runId));
    }
    return opened;
  };
  expect(await serve()).toBe(MAX_STREAMS);
  const open = (): number => asked.filter((each) => /events/.test(each.url.pathname) && !each.signal.aborted).length;
  for (let turn = 0; turn < 6; turn += 1) {
    await pass(TURN_MS);
    expect(await serve()).toBe(1);
    expect(open()).toBe(MAX_STREAMS);
  }
  expect(told().sort()).toEqual(runs);
  const visits = runs.map((runId) => asked.filter((each) => each.url.pathname.includes(`${runId}/events`)).length);
  expect(Math.min(...visits)).toBeGreaterThan(0);
  expect(closed).toBeUndefined();
});

test("a run that waits for its turn is not told to be one that nothing came of", async () => {
  await ready();
  for (let each = 0; each <= MAX_STREAMS; each += 1) {
    send("run.attach", { since_seq: 5, epoch: "e_1" }, { run_id: `run_${each}`, command_id: `c_${each}` });
  }
  await settled();
  const streams = Array.from({ length: MAX_STREAMS }, () => request("GET", /events/));
  // They replay, so they keep their places.
  for (const stream of streams) await stream.stream(attached(9, {}, runOf(stream)));
  said.length = 0;
  await pass(HEARTBEAT_S * 1000);
  await request("GET", CONNECTION).answer(200, READY);
  expect(types()).toEqual(["pong"]);
  for (const stream of streams) await stream.more(caughtUp(9, runOf(stream)));
  await pass(TURN_MS);
  const last = request("GET", /events/);
  await last.stream(attached(5, {}, runOf(last)), caughtUp(5, runOf(last)));
  said.length = 0;
  await pass(HEARTBEAT_S * 1000);
  expect(said.filter((each) => each.type === "heartbeat").map((each) => Object.keys(each.payload.runs).length)).toEqual([
    MAX_STREAMS + 1,
  ]);
});

test("who is busy keeps its stream, the quiet ones take turns", async () => {
  await ready();
  const runs = Array.from({ length: MAX_STREAMS + 1 }, (_, index) => `run_${index}`);
  for (const runId of runs)
    send("run.attach", { since_seq: 5, epoch: "e_1" }, { run_id: runId, command_id: `c_${runId}` });
  await settled();
  const streams = new Map<string, Asked>();
  const serve = async (): Promise<void> => {
    while (asking(/events/) > 0) {
      const stream = request("GET", /events/);
      const runId = runOf(stream);
      streams.set(runId, stream);
      await stream.stream(attached(5, {}, runId), caughtUp(5, runId));
    }
  };
  await serve();
  const busy = streams.get("run_0")!;
  for (let seq = 6; seq < 12; seq += 1) {
    await pass(TURN_MS / 2);
    await busy.more(event(seq));
    await pass(TURN_MS / 2);
    await serve();
  }
  expect(busy.signal.aborted).toBe(false);
  expect(said.filter((each) => each.seq > 5)).toHaveLength(6);
  const visits = runs.map((runId) => asked.filter((each) => each.url.pathname.includes(`${runId}/events`)).length);
  expect(visits[0]).toBe(1);
  expect(Math.min(...visits.slice(1))).toBeGreaterThan(1);
});
