import { describe, expect, it, vi } from "vitest";
import { type ConnectionState, Disconnected } from "../src/index.js";
import { frame } from "./fake/server.js";
import { following, settle, world } from "./fake/world.js";

describe("before ready", () => {
  it("sends nothing, then attaches before it commands", async () => {
    const { client, server } = world();
    server.log();
    const attach = client.attach("run_1");
    const start = client.start({ input: "hi", runId: "run_2" });
    expect(server.received).toEqual([]);
    await Promise.all([attach, start]);
    expect(server.received.map(({ command }) => command["type"])).toEqual(["run.attach", "run.start"]);
  });

  it("resolves ready once, and says what the server said of itself", async () => {
    const { client } = world();
    expect(client.connection).toMatchObject({ status: "connecting", transport: "websocket" });
    await client.ready;
    expect(client.connection).toMatchObject({ status: "ready", server: { heartbeat_s: 10 } });
  });

  it("gives up a link that never gets ready, and comes back", async () => {
    const { client, server, clock } = world();
    server.door = "silent";
    await clock.advance(9999);
    expect(client.connection.status).toBe("connecting");
    await clock.advance(1);
    expect(client.connection.status).toBe("reconnecting");
    server.door = "open";
    await clock.advance(250);
    expect(client.connection.status).toBe("ready");
  });
});

describe("coming back", () => {
  it.each([1001, 1002, 1006, 1011, 1012, 4001, 4004, 4008, 4013, 4499])("comes back after %i", async (code) => {
    const { client, server, clock } = await following();
    server.socket.cut(code);
    expect(client.connection.status).toBe("reconnecting");
    await clock.advance(250);
    expect(client.connection.status).toBe("ready");
    expect(server.commands("run.attach")).toHaveLength(2);
  });

  it.each([
    [1000, "disconnected"],
    [1009, "disconnected"],
    [4500, "unauthorized"],
    [4501, "disconnected"],
    [4503, "forbidden"],
    [4504, "disconnected"],
    [4509, "disconnected"],
    [4999, "disconnected"],
  ])("gives up after %i as %s", async (code, name) => {
    const { client, server, clock, run } = await following();
    server.held = true;
    const waiting = run.cancel();
    const iterated = run[Symbol.asyncIterator]();
    await iterated.next();
    await iterated.next();
    const next = iterated.next();
    server.socket.cut(code, "because");
    await expect(waiting).rejects.toMatchObject({ code: name, closeCode: code, reason: "because" });
    await expect(next).rejects.toBeInstanceOf(Disconnected);
    await expect(run.finished).rejects.toMatchObject({ code: name });
    await expect(client.start({ input: "x" })).rejects.toMatchObject({ code: name });
    await expect(client.attach("run_1")).rejects.toMatchObject({ code: name });
    expect(client.connection).toMatchObject({ status: "closed", error: { code: name } });
    expect(client.runs).toEqual([]);
    await clock.advance(60_000);
    expect(server.sockets).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });

  it("rejects ready on a final refusal, and surprises nobody who does not look", async () => {
    const { client, server } = world();
    server.door = 4503;
    await expect(client.ready).rejects.toMatchObject({ code: "forbidden" });
  });

  it("waits longer with each failure, and begins anew after ten good seconds", async () => {
    const { client, server, clock } = await following();
    server.door = 1006;
    server.socket.cut();
    const waits: number[] = [];
    for (let each = 0; each < 9; each += 1) {
      const { retryAt = 0 } = client.connection;
      waits.push(retryAt - clock.time);
      await clock.advance(retryAt - clock.time);
    }
    expect(waits).toEqual([250, 500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
    server.door = "open";
    await clock.advance(20_000);
    await clock.advance(9999);
    server.socket.cut();
    expect(client.connection.retryAt).toBe(clock.time + 20_000);
    await clock.advance(20_000);
    for (let each = 0; each < 2; each += 1) {
      await clock.advance(5000);
      server.socket.say(frame("heartbeat", { now: "2026-01-01T00:00:00.000Z", runs: {} }));
    }
    server.socket.cut();
    expect(client.connection.retryAt).toBe(clock.time + 250);
  });

  it("waits two seconds at most on a line that brings something before each cut", async () => {
    const { client, server, clock, run } = await following();
    server.door = 1006;
    server.socket.cut();
    for (let each = 0; each < 8; each += 1) await clock.advance(20_000);
    server.door = "open";
    await clock.advance(20_000);
    for (let each = 0; each < 3; each += 1) {
      const { seq } = run.view.cursor;
      server.append();
      await settle();
      expect(run.view.cursor.seq).toBe(seq + 1);
      server.socket.cut();
      expect(client.connection.retryAt).toBe(clock.time + 2000);
      await clock.advance(2000);
    }
    server.socket.cut();
    expect(client.connection.retryAt).toBe(clock.time + 4000);
  });

  it("waits as long as the server told it", async () => {
    const { client, server, clock } = await following();
    server.socket.say(frame("connection.draining", { reconnect_in_s: 3.5 }));
    await settle();
    server.socket.cut(4001);
    expect(client.connection.retryAt).toBe(clock.time + 3500);
    await clock.advance(3500);
    server.socket.cut(4001, '{"reconnect_in_s":1.25}');
    expect(client.connection.retryAt).toBe(clock.time + 1250);
    await clock.advance(1250);
    server.socket.cut();
    expect(client.connection.retryAt).toBe(clock.time + 1000);
  });

  it.each(["", "{}", "null", '{"reconnect_in_s":-1}', '{"reconnect_in_s":"1"}', '{"reconnect_in_s":1e300}'])(
    "does not believe a delay like %j",
    async (reason) => {
      const { client, server, clock } = await following();
      server.socket.cut(4001, reason);
      expect(client.connection.retryAt).toBe(clock.time + 250);
    },
  );

  it("connects at once when told to", async () => {
    const { client, server, clock } = await following();
    server.door = 1006;
    server.socket.cut();
    for (let each = 0; each < 7; each += 1) await clock.advance(20_000);
    server.door = "open";
    client.reconnect();
    await settle();
    expect(client.connection.status).toBe("ready");
  });

  it("comes back from a frame that cannot be read", async () => {
    const unplaced = '{"v":1,"seq":"1","type":"x","run_id":"r","payload":{}}';
    for (const text of ["{", "null", '"x"', "[]", '{"type":"x"}', '{"type":"x","payload":1}', unplaced]) {
      const { client, server, clock } = await following();
      server.socket.say(text);
      await settle();
      expect(client.connection.reason).toBe("the server sent a frame that cannot be read");
      await clock.advance(250);
      expect(client.connection.status).toBe("ready");
    }
  });

  it("passes over unknown frames and fields, and reports what the server did not understand", async () => {
    const { client, server, reported } = await following();
    server.socket.say(frame("something.new", { a: 1 }));
    server.socket.say(frame("error", { code: "malformed", text: "bad" }));
    await settle();
    expect(client.connection.status).toBe("ready");
    expect(reported).toMatchObject([{ message: "malformed: bad" }]);
  });
});

describe("silence", () => {
  it("is a dead connection after 2.5 heartbeats", async () => {
    const { client, server, clock } = await following({ server: { heartbeatS: 10 } });
    await clock.advance(20_000);
    server.socket.say(frame("heartbeat", { now: "2026-01-01T00:00:00.000Z", runs: {} }));
    await clock.advance(24_999);
    expect(client.connection.status).toBe("ready");
    await clock.advance(1);
    expect(client.connection.status).toBe("reconnecting");
    expect(server.sockets[0]?.closedWith).toBeDefined();
  });

  it.each([0, -1, 1e12, null, "x"])("is noticed also when the server names the heartbeat %j", async (heartbeatS) => {
    const { client, clock } = await following({ server: { heartbeatS: heartbeatS as number } });
    await clock.advance(37_500);
    expect(client.connection.status).toBe("reconnecting");
  });

  it("is asked about when the page is seen again, and answered within five seconds", async () => {
    const { client, server, clock, page } = await following();
    await clock.advance(11_000);
    page.fire("pageshow");
    expect(server.commands("ping")).toHaveLength(1);
    await clock.advance(5000);
    expect(client.connection.status).toBe("ready");
    server.held = true;
    page.fire("visibilitychange");
    page.fire("pageshow");
    expect(server.commands("ping"), "one at a time").toHaveLength(2);
    await clock.advance(5000);
    expect(client.connection.status).toBe("reconnecting");
  });

  it("of a sleeping machine is judged by the clock", async () => {
    const { client, server, clock } = await following();
    await clock.sleep(3_600_000);
    expect(client.connection.status).toBe("reconnecting");
    await clock.advance(250);
    expect(client.connection.status).toBe("ready");
    server.append();
    await settle();
    expect(client.run("run_1")?.view.cursor.seq).toBe(3);
  });

  it("ends a wait when the network is back", async () => {
    const { client, server, clock, page } = await following();
    page.fire("offline");
    expect(client.connection.offline).toBe(true);
    expect(client.connection.status, "shown, not believed").toBe("ready");
    server.door = 1006;
    server.socket.cut();
    for (let each = 0; each < 7; each += 1) await clock.advance(20_000);
    server.door = "open";
    page.fire("online");
    await settle();
    expect(client.connection).toMatchObject({ status: "ready" });
    expect(client.connection.offline).toBeUndefined();
  });
});

describe("commands", () => {
  it("are sent again under their ids until they are answered, once each", async () => {
    const { server, clock, run } = await following();
    server.held = true;
    const first = run.correct("a");
    const second = run.cancel();
    server.socket.deliver(1);
    await first;
    server.held = false;
    server.socket.cut();
    const third = run.cancel({ mode: "now" });
    await clock.advance(250);
    await Promise.all([second, third]);
    const cancels = server.received.filter(({ command }) => command["type"] === "run.cancel");
    expect(cancels.map(({ connection }) => connection)).toEqual([0, 1, 1]);
    expect(cancels[0]?.command).toEqual(cancels[1]?.command);
    expect(server.performed.map((command) => command["type"])).toEqual(["run.correct", "run.cancel", "run.cancel"]);
    expect(server.commands("run.correct")).toHaveLength(1);
  });

  it("are never more than the server allows", async () => {
    const { server, run } = await following({ server: { commandsInFlight: 2 } });
    server.held = true;
    const all = [1, 2, 3, 4].map((each) => run.correct(String(each)));
    expect(server.commands("run.correct")).toHaveLength(2);
    server.socket.deliver(1);
    expect(server.commands("run.correct")).toHaveLength(3);
    server.held = false;
    server.socket.deliver();
    await Promise.all(all);
    expect(server.performed.map(({ payload }) => payload.text)).toEqual(["1", "2", "3", "4"]);
  });

  it.each([0, -1, "many"])("are sent though a server says that it takes %j", async (commandsInFlight) => {
    const { run } = await following({ server: { commandsInFlight: commandsInFlight as number } });
    await expect(run.cancel()).resolves.toMatchObject({ status: "accepted" });
  });

  it("wait for the next connection when the server drains", async () => {
    const { client, server, clock } = await following();
    server.refusals.set("run.start", { code: "draining", retryable: true });
    let run: unknown;
    void client.start({ input: "x", runId: "run_2" }).then((made) => (run = made));
    await settle();
    expect(run).toBeUndefined();
    server.refusals.clear();
    server.socket.cut(4001);
    await clock.advance(250);
    expect(run).toBeDefined();
    const starts = server.commands("run.start");
    expect(starts[0]).toEqual(starts[1]);
  });

  it("reject with all that a refusal says", async () => {
    const { server, run } = await following();
    const errors = [{ path: "/path", code: "missing", text: "path is needed" }];
    const resolution = { by: "u" };
    server.refusals.set("run.correct", { code: "busy", text: "later", errors, retryable: true, resolution });
    await expect(run.correct("x")).rejects.toMatchObject({
      name: "Refused",
      code: "busy",
      message: "later",
      retryable: true,
      errors,
      resolution,
      commandId: expect.any(String),
    });
  });

  it("that cannot be sent reject at once", async () => {
    const { run, client } = await following();
    await expect(run.answer("i", 1n)).rejects.toMatchObject({ code: "malformed" });
    await expect(run.correct("x".repeat(1 << 21))).rejects.toMatchObject({ code: "too_large" });
    expect(client.connection.status).toBe("ready");
  });

  it("reject when the client is closed, and nothing is left", async () => {
    const { client, server, clock, run, page } = await following();
    server.held = true;
    const waiting = run.cancel();
    client.close();
    client.close();
    await expect(waiting).rejects.toMatchObject({ code: "closed", closeCode: 1000 });
    expect(server.socket.closedWith).toBe(1000);
    await clock.advance(16);
    expect(clock.pending).toBe(0);
    expect(page.listening).toBe(0);
  });
});

describe("tokens", () => {
  it("go as a subprotocol, asked for each time", async () => {
    const getToken = vi.fn(() => "gehÿm");
    const { server, clock } = await following({ getToken });
    const encoded = Buffer.from("gehÿm").toString("base64url");
    expect(server.socket.protocols).toEqual(["midstream.v1.json", `bearer.${encoded}`]);
    expect(server.socket.url.href).toBe("ws://test.example/v1/ws?client_id=client_1");
    server.socket.cut();
    await clock.advance(250);
    expect(getToken).toHaveBeenCalledTimes(2);
  });

  it("are asked for once more when they are not accepted, then it is the end", async () => {
    const getToken = vi.fn(() => "t");
    const { client, server, clock } = world({ getToken });
    server.door = 4500;
    const ready = expect(client.ready).rejects.toMatchObject({ code: "unauthorized" });
    await clock.advance(1);
    await ready;
    expect(getToken).toHaveBeenCalledTimes(2);
  });

  it("that are not accepted by a connection that was ready are no reason for a loop", async () => {
    const getToken = vi.fn(() => "t");
    const { client, server, clock } = await following({ getToken });
    server.socket.cut(4500);
    await clock.advance(0);
    expect(client.connection.status).toBe("ready");
    await clock.advance(10_000);
    server.socket.cut(4500);
    await clock.advance(0);
    expect(client.connection.status).toBe("ready");
    server.socket.cut(4500);
    expect(client.connection).toMatchObject({ status: "closed", error: { code: "unauthorized" } });
    expect(getToken).toHaveBeenCalledTimes(3);
  });

  it("that do not change are not asked for again", async () => {
    const { client, server } = world({ token: "t" });
    server.door = 4500;
    await expect(client.ready).rejects.toMatchObject({ code: "unauthorized" });
    expect(server.sockets).toHaveLength(1);
  });

  it("that expired are replaced at once, but not in a loop", async () => {
    const { client, server, clock } = await following({ getToken: () => "t" });
    server.socket.cut(4005);
    await clock.advance(0);
    expect(client.connection.status).toBe("ready");
    server.socket.cut(4005);
    expect(client.connection.retryAt).toBeGreaterThan(clock.time);
  });

  it("that are about to expire are refreshed", async () => {
    let token = "one";
    const { server } = await following({ getToken: async () => token });
    token = "two";
    server.socket.say(frame("auth.expiring", { in_s: 60 }));
    await settle();
    expect(server.commands("auth.refresh")).toMatchObject([{ payload: { token: "two" } }]);
  });

  it("that cannot be had now are asked for again", async () => {
    const getToken = vi.fn<() => Promise<string>>();
    getToken.mockRejectedValueOnce(new Error("the login service is away"));
    getToken.mockImplementationOnce(() => new Promise(() => {}));
    getToken.mockResolvedValue("t");
    const { client, clock } = world({ getToken });
    await settle();
    expect(client.connection).toMatchObject({ status: "reconnecting", reason: "the login service is away" });
    await clock.advance(250);
    await clock.advance(29_999);
    expect(getToken).toHaveBeenCalledTimes(2);
    await clock.advance(1);
    expect(client.connection.reason).toMatch("no token in time");
    await clock.advance(500);
    expect(client.connection.status).toBe("ready");
  });
});

describe("where WebSockets are blocked", () => {
  const states = async (http: number | undefined) => {
    const made = world(http === undefined ? {} : { http });
    made.server.door = 1006;
    const seen: ConnectionState["transport"][] = [];
    made.client.subscribe(() => seen.push(made.client.connection.transport));
    await made.clock.advance(5000);
    await vi.dynamicImportSettled();
    return { ...made, seen };
  };

  it("it is HTTP after two attempts, while the server answers that", async () => {
    const { client, server } = await states(200);
    expect(client.connection.transport).toBe("http");
    expect(server.sockets).toHaveLength(2);
  });

  it.each([undefined, 503])("it stays with WebSockets while the server is away or not ready (%s)", async (http) => {
    const { client, server } = await states(http);
    expect(client.connection.transport).toBe("websocket");
    expect(server.sockets.length).toBeGreaterThan(2);
  });

  it("a WebSocket is tried again when the network changes", async () => {
    const { client, server, page, clock } = await states(200);
    server.door = "open";
    page.fire("online");
    await clock.advance(20_000);
    await vi.dynamicImportSettled();
    await clock.advance(20_000);
    expect(client.connection).toMatchObject({ transport: "websocket", status: "ready" });
  });

  it("and when some minutes have gone", async () => {
    const { client, server, clock } = await states(200);
    server.door = "open";
    for (let each = 0; each < 40; each += 1) {
      await clock.advance(10_000);
      await vi.dynamicImportSettled();
    }
    expect(client.connection).toMatchObject({ transport: "websocket", status: "ready" });
  });

  it("one that was ready before does not count", async () => {
    const { client, server, clock } = await following({ http: 200 });
    for (let each = 0; each < 5; each += 1) {
      server.door = 1006;
      server.socket.cut();
      await clock.advance(client.connection.retryAt! - clock.time);
      server.door = "open";
      await clock.advance(20_000);
    }
    expect(client.connection.status).toBe("ready");
    expect(client.connection.transport).toBe("websocket");
  });

  it("without a WebSocket at all it is HTTP at once, and without both an error", () => {
    expect(world({ WebSocket: undefined }).client.connection.transport).toBe("http");
    expect(() => world({ WebSocket: undefined, fetch: undefined })).toThrow(/no WebSocket here/);
    expect(() => world({ WebSocket: undefined, transport: "websocket" })).toThrow(/no WebSocket here/);
  });
});
