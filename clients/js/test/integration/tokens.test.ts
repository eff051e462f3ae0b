/** A server that wants a token: a wrong one is asked for again once, and then it is the end. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { impatient, read, same } from "./reading.js";
import { Server } from "./world.js";

let server: Server;
beforeAll(
  async () => void (server = await Server.up({ MIDSTREAM_STORE: "memory:", MIDSTREAM_TOKEN: "right-1" })),
  30_000,
);
afterAll(() => server.remove());

describe.each(["websocket", "http"] as const)("by %s", (transport) => {
  const connected = (getToken: () => string) =>
    impatient({ url: `http://127.0.0.1:${server.port}`, transport, getToken });

  test("another token is asked for", async () => {
    const tokens = ["wrong", "right-1"];
    const client = connected(() => tokens.shift() ?? "right-1");
    const run = await client.start({ input: "tell" });
    await same(server, run, await read(run), "right-1");
    client.close();
  }, 30_000);

  test("with no good one it is over, and says why", async () => {
    const client = connected(() => "wrong");
    await expect(client.start({ input: "tell" })).rejects.toMatchObject({ code: "unauthorized" });
    await expect(client.ready).rejects.toMatchObject({ code: "unauthorized" });
    expect(client.connection).toMatchObject({ status: "closed" });
  }, 30_000);
});
