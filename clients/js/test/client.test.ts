import { afterEach, describe, expect, it, vi } from "vitest";
import { addressOf } from "../src/address.js";
import { MAX_KEPT, placesIn } from "../src/storage.js";
import { collect, following, settle, world } from "./fake/world.js";

afterEach(() => vi.unstubAllGlobals());

class Shelf {
  readonly items = new Map<string, string>();
  getItem = (key: string) => this.items.get(key) ?? null;
  setItem = (key: string, value: string) => void this.items.set(key, value);
  removeItem = (key: string) => void this.items.delete(key);
}

describe("an address", () => {
  it.each([
    ["ws://localhost:1/agents/v1/ws", "http://localhost:1/agents/"],
    ["http://localhost:1/v1/", "http://localhost:1/"],
    ["http://localhost:1/v12", "http://localhost:1/v12/"],
    ["http://a.example", "http://a.example/"],
    ["https://a.example/agents", "https://a.example/agents/"],
    ["ws://a.example:81/x/?q=1#h", "http://a.example:81/x/"],
    [new URL("wss://a.example"), "https://a.example/"],
  ])("%s is %s", (given, meant) => {
    expect(addressOf(given).href).toBe(meant);
  });

  it.each(["", "/", "nonsense", "ftp://a.example", "https://u:p@a.example"])("%j is none outside a page", (given) => {
    expect(() => addressOf(given)).toThrow(expect.objectContaining({ code: "bad_address" }));
  });

  it.each([
    ["", "https://page.example/x/"],
    ["/", "https://page.example/"],
    ["../agents", "https://page.example/agents/"],
  ])("%j is relative to the page", (given, meant) => {
    vi.stubGlobal("document", { baseURI: "https://page.example/x/index.html" });
    expect(addressOf(given).href).toBe(meant);
  });
});

describe("a start", () => {
  it("says on the wire what the protocol says, and is followed from its beginning", async () => {
    const { client, server } = world();
    const run = await client.start({
      input: "hi",
      agent: "a",
      runId: "run_7",
      threadId: "th_1",
      ifBusy: "queue",
      resume: "run_6",
      limits: { maxTurns: 1, maxToolCalls: 2, deadlineS: 3 },
      onAbandon: { cancelAfterS: 30 },
      onLag: "pause",
      webhook: { url: "https://hook.example" },
      metadata: { a: 1 },
    });
    expect(server.performed[0]?.payload).toEqual({
      input: "hi",
      agent: "a",
      run_id: "run_7",
      thread_id: "th_1",
      if_busy: "queue",
      resume: { run_id: "run_6" },
      limits: { max_turns: 1, max_tool_calls: 2, deadline_s: 3 },
      on_abandon: { cancel_after_s: 30 },
      on_lag: "pause",
      webhook: { url: "https://hook.example" },
      metadata: { a: 1 },
    });
    expect(client.run("run_7")).toBe(run);
    server.append(1, "run_7");
    server.end("run_7");
    expect((await collect(run)).map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
  });

  it("is made once over cuts", async () => {
    const { client, server, clock } = world();
    await client.ready;
    server.held = true;
    const start = client.start({ input: "x", runId: "run_2" });
    server.held = false;
    server.socket.cut();
    await clock.advance(250);
    expect((await start).id).toBe("run_2");
    await settle();
    expect(server.performed).toHaveLength(1);
    expect(client.run("run_2")?.view.cursor.seq).toBe(2);
  });

  it("that is over before anybody looks gives its run", async () => {
    const { client, server } = world();
    await client.ready;
    server.log("run_2");
    server.end("run_2");
    const run = await client.start({ input: "x", runId: "run_2" });
    expect((await run.finished).status).toBe("completed");
  });

  it("rejects with the refusal, and nothing is followed", async () => {
    const { client, server } = world();
    server.refusals.set("run.start", { code: "unknown_agent", text: "no such agent" });
    await expect(client.start({ input: "x" })).rejects.toThrow("no such agent");
    expect(client.runs).toEqual([]);
  });

  it("can be aborted: before it is sent nothing happens, after it nobody follows", async () => {
    const { client, server } = world();
    const early = new AbortController();
    const first = client.start({ input: "x", signal: early.signal });
    early.abort();
    await expect(first).rejects.toMatchObject({ name: "AbortError" });
    await client.ready;
    expect(server.received).toEqual([]);
    const late = new AbortController();
    const second = client.start({ input: "x", runId: "run_2", signal: late.signal });
    late.abort(new Error("gone"));
    await expect(second).rejects.toThrow("gone");
    await settle();
    expect(client.runs).toEqual([]);
    expect(server.commands("run.detach")).toMatchObject([{ run_id: "run_2" }]);
    await expect(client.start({ input: "x", signal: late.signal })).rejects.toThrow("gone");
  });

  it("that is aborted while it waits for the next connection is never made", async () => {
    const { client, server, clock } = world();
    await client.ready;
    server.refusals.set("run.start", { code: "draining", retryable: true });
    const abort = new AbortController();
    const start = client.start({ input: "x", signal: abort.signal });
    await settle();
    abort.abort();
    await expect(start).rejects.toMatchObject({ name: "AbortError" });
    server.refusals.clear();
    server.socket.cut(4001);
    await clock.advance(250);
    expect(client.connection.status).toBe("ready");
    expect(server.performed).toEqual([]);
  });

  it("whose receipt is overtaken by what follows it is followed all the same", async () => {
    const { client, server } = world();
    await client.ready;
    server.held = true;
    const start = client.start({ input: "x", runId: "run_2" });
    const [receipt = "", attached = "", ...rest] = server.socket.out.splice(0);
    server.held = false;
    for (const text of [attached, receipt, ...rest]) server.socket.say(text);
    const run = await start;
    await settle();
    expect(run.view.cursor.seq).toBe(2);
  });

  it("by a correction of a run that has ended is followed too", async () => {
    const { client, server, run } = await following();
    server.log("run_2");
    server.held = true;
    void run.correct("more", { ifEnded: "start" });
    const command = server.commands("run.correct")[0];
    server.held = false;
    server.socket.out.length = 0;
    const say = (type: string, payload: object) => server.socket.say(JSON.stringify({ v: 1, type, payload }));
    say("receipt", { command_id: command?.["command_id"], status: "accepted", run_id: "run_2", as: "started" });
    await settle();
    expect(client.run("run_2")).toBeDefined();
  });
});

describe("the client", () => {
  it("tells of connection, runs and approvals once per frame", async () => {
    const { client, clock, server } = world();
    server.log();
    const seen = vi.fn();
    const end = client.subscribe(seen);
    client.subscribe(() => {
      throw new Error("mine");
    });
    const run = await client.attach("run_1");
    await clock.advance(16);
    expect(seen).toHaveBeenCalledTimes(1);
    const { runs, connection } = client;
    expect(runs).toEqual([run]);
    server.append(10);
    await clock.advance(100);
    expect(seen).toHaveBeenCalledTimes(1);
    expect(client.runs).toBe(runs);
    expect(client.connection).toBe(connection);
    server.socket.cut();
    await clock.advance(16);
    expect(client.connection).not.toBe(connection);
    expect(seen).toHaveBeenCalledTimes(2);
    end();
    run.detach();
    await clock.advance(100);
    expect(seen).toHaveBeenCalledTimes(2);
  });

  it("keeps its id per tab, and a copied tab has its own", async () => {
    const held = new Set<string>();
    const locks = {
      request: async (name: string, options: { signal: AbortSignal }, callback: () => Promise<void>) => {
        const { signal } = options;
        if (held.has(name)) return new Promise((_, no) => signal.addEventListener("abort", () => no(signal.reason)));
        held.add(name);
        await callback();
        held.delete(name);
        return undefined;
      },
    };
    vi.stubGlobal("navigator", { locks });
    const tab = new Shelf();
    vi.stubGlobal("sessionStorage", tab);
    const { client, again } = world({ clientId: undefined });
    await client.ready;
    const { clientId } = client;
    expect(tab.items.get("midstream:client_id")).toBe(clientId);
    const copy = new Shelf();
    copy.setItem("midstream:client_id", clientId);
    vi.stubGlobal("sessionStorage", copy);
    const other = again();
    await other.ready;
    expect(other.clientId).not.toBe(clientId);
    expect(copy.items.get("midstream:client_id")).toBe(other.clientId);
    client.close();
    await settle();
    vi.stubGlobal("sessionStorage", tab);
    const reloaded = again();
    await reloaded.ready;
    expect(reloaded.clientId).toBe(clientId);
  });
});

describe("a reloaded page", () => {
  it("goes on where its iterator was", async () => {
    const storage = new Shelf();
    const { client, server, clock, run, again, page } = await following({ storage });
    server.append(8);
    const iterator = run[Symbol.asyncIterator]();
    for (let each = 0; each < 5; each += 1) await iterator.next();
    await clock.advance(500);
    page.visibilityState = "hidden";
    page.fire("pagehide");
    client.close();
    const other = again();
    const reloaded = await other.attach("run_1");
    expect(reloaded.view.messages[0]?.text).toBe("3 4 5 6 7 8 9 10 ");
    server.end();
    // The fifth event was given, and not known to be dealt with.
    expect((await collect(reloaded)).map(({ seq }) => seq)).toEqual([5, 6, 7, 8, 9, 10, 11]);
    await clock.advance(500);
    const third = await again().attach("run_1");
    expect(await collect(third)).toEqual([]);
  });

  it("goes on where its iterator was left", async () => {
    const storage = new Shelf();
    const { client, server, run, again } = await following({ storage });
    server.append(8);
    for await (const { seq } of run) if (seq === 4) break;
    server.append();
    await settle();
    client.close();
    const reloaded = await again().attach("run_1");
    server.end();
    expect((await collect(reloaded)).map(({ seq }) => seq)).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12]);
  });

  it("goes on where its view was, when nobody iterates", async () => {
    const storage = new Shelf();
    const { client, server, again } = await following({ storage });
    server.append(3);
    await settle();
    client.close();
    const run = await again().attach("run_1");
    server.end();
    expect((await collect(run)).map(({ seq }) => seq)).toEqual([6]);
  });

  it("goes on after the view when its place was in another history", async () => {
    const storage = new Shelf();
    const { client, server, clock, run, again } = await following({ storage });
    server.append(8);
    const iterator = run[Symbol.asyncIterator]();
    for (let each = 0; each < 8; each += 1) await iterator.next();
    server.epoch = "e_2";
    server.logs.set("run_1", server.log().slice(0, 4));
    server.socket.cut();
    await clock.advance(250);
    await iterator.next().catch(() => {});
    client.close();
    const reloaded = await again().attach("run_1");
    server.append();
    server.end();
    expect((await collect(reloaded)).map(({ seq }) => seq)).toEqual([5, 6]);
  });

  it("begins anew when the storage is full, forbidden or full of nonsense", async () => {
    const throwing = {
      getItem: () => {
        throw new Error("forbidden");
      },
      setItem: () => {
        throw new Error("full");
      },
      removeItem: () => {},
    };
    const nonsense = ["{", "1", "[1]", '[["run_1",["x",1]]]', '[["run_1",null]]'].map((text) => {
      const shelf = new Shelf();
      shelf.setItem("midstream:cursors:http://test.example/", text);
      return shelf;
    });
    for (const storage of [throwing, ...nonsense]) {
      const { server, clock, run } = await following({ storage });
      await clock.advance(1000);
      server.end();
      expect(await collect(run)).toHaveLength(3);
    }
  });

  it("knows of the runs it used last", () => {
    const storage = new Shelf();
    const places = placesIn(storage, new URL("http://a.example/"));
    for (let run = 0; run < 2 * MAX_KEPT; run += 1) places.put(new Map([[`run_${run}`, [run + 1, "e"] as const]]));
    places.put(new Map([["run_64", [99, "e"] as const]]));
    for (let run = 200; run < 199 + MAX_KEPT; run += 1) places.put(new Map([[`run_${run}`, [run, "e"] as const]]));
    expect(storage.items.size).toBe(1);
    expect(places.get("run_63")).toBeUndefined();
    expect(places.get("run_64")).toEqual({ sinceSeq: 99, epoch: "e" });
    expect(places.get("run_127")).toBeUndefined();
    expect(places.get("run_200")).toEqual({ sinceSeq: 200, epoch: "e" });
    expect(placesIn(storage, new URL("http://b.example/")).get("run_200")).toBeUndefined();
  });
});
