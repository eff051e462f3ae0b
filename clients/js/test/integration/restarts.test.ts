/** A server that dies or goes down in the middle of a run, and comes back with the same store. */

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Client } from "../../src/index.js";
import { impatient, read, same, until } from "./reading.js";
import { Server } from "./world.js";

let server: Server;
let client: Client;

beforeEach(async () => void (server = await Server.up({ MIDSTREAM_HEARTBEAT_S: "0.5" })), 60_000);

afterEach(async () => {
  client.close();
  await server.remove();
});

describe.each(["websocket", "http"] as const)("by %s", (transport) => {
  test("killed while it waits, gone down while it streams: one run, one effect of each command", async () => {
    client = impatient({ url: `http://127.0.0.1:${server.port}`, transport });
    const run = await client.start({ input: "remove" });
    const reading = read(run);
    await until(run, () => run.approvals.length > 0);

    await server.kill("SIGKILL");
    // Made while there is no server: it is sent when there is one.
    const approving = run.approvals[0]!.edit({ what: "one thing" });
    await server.up();
    expect(await approving).toMatchObject({ status: "accepted" });

    await until(run, () => run.view.messages.some(({ state, text }) => state === "open" && text.length > 100));
    const before = run.view.cursor.seq;
    await server.kill("SIGTERM");
    expect(run.view.cursor.seq).toBeGreaterThanOrEqual(before);
    await server.up();
    const corrected = await run.correct("be brief", { mode: "now" });
    await until(run, () => run.view.corrections.some(({ state }) => state === "applied"));
    await until(run, () => run.view.messages.some(({ state, text }) => state === "open" && text.length > 20));
    const cancelling = run.cancel();
    expect(await cancelling).toMatchObject({ status: "accepted" });

    const events = await reading;
    await same(server, run, events);
    expect(run.view.status).toBe("cancelled");
    const accepted = events.filter(({ type }) => type === "correction.accepted");
    expect(accepted.map(({ origin }) => origin?.command_id)).toEqual([corrected.command_id]);
    expect(server.did().map((line) => line.replace(/ \S+$/, ""))).toEqual(["delete one thing"]);
    expect(client.connection.status).toBe("ready");
  }, 60_000);
});

test("a page that is reloaded while the server is down goes on where it was", async () => {
  const kept = new Map<string, string>();
  const storage = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  };
  const url = `http://127.0.0.1:${server.port}`;
  client = impatient({ url, storage });
  const first = await client.start({ input: "tell" });
  const seen = [];
  for await (const event of first) {
    seen.push(event);
    if (seen.length === 8) break;
  }
  client.close();
  await server.kill();
  await server.up();
  client = impatient({ url, storage });
  const second = await client.attach(first.id);
  const rest = await read(second);
  // The last one before the reload may be there twice: nobody said that it had been dealt with.
  expect(rest[0]!.seq).toBeGreaterThan(1);
  const all = [...seen.filter(({ seq }) => seq < rest[0]!.seq), ...rest];
  await same(server, second, all);
}, 60_000);
