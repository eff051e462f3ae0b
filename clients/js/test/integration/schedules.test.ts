/** Whatever the schedule of cuts, stalls and pieces: the same events and the same view as without any. */

import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { impatient, read, same } from "./reading.js";
import { type Line, Proxy, Server } from "./world.js";

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

/** Up to all of what a run's connection brings (some 12 kB). */
const bytes = fc.integer({ min: 0, max: 12_000 });
const how = fc.constantFrom("close" as const, "reset" as const);
const frames = {
  duplicate: fc.double({ min: 0, max: 0.5, noNaN: true }),
  swap: fc.double({ min: 0, max: 0.3, noNaN: true }),
};
const line: fc.Arbitrary<Line> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ cut_at: bytes, how }) },
  { weight: 1, arbitrary: fc.record({ up_cut_at: fc.integer({ min: 0, max: 1_500 }), how }) },
  { weight: 1, arbitrary: fc.record({ cut_at: bytes, piece: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ cut_at: bytes, stall_at: bytes, stall_s: fc.constant(0.05) }) },
  { weight: 1, arbitrary: fc.record({ refuse: fc.constant(true) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      cut_at: bytes,
      ...frames,

      seed: fc.integer({ min: 0, max: 9999 }),
    }),
  },
);

test.each(["websocket", "http"] as const)(
  "by %s",
  async (transport) => {
    const schedules = fc.array(line, { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(schedules, async (lines) => {
        await proxy.plan(lines);
        await proxy.cut();
        const client = impatient({ url: proxy.url, transport });
        try {
          const run = await client.start({ input: "tell" });
          await same(server, run, await read(run));
          expect(run.caughtUp && run.ended).toBe(true);
        } finally {
          client.close();
        }
      }),
      { numRuns: 10, timeout: 20_000, endOnFailure: true },
    );
  },
  60_000,
);
