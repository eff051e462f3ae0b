/** A client as the tests use it, and what must be true of what it read. */

import { expect } from "vitest";
import { WebSocket } from "ws";
import { type Client, type ConnectOptions, connect, type Run, type RunEvent } from "../../src/index.js";
import type { Server } from "./world.js";

/** Its backoff is soon over: waiting is not what is tried here. */
export function impatient(options: ConnectOptions): Client {
  return connect({ WebSocket: WebSocket as never, random: () => 0.05, ...options });
}

/** All events up to the end. */
export async function read(run: Run): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of run) events.push(event);
  return events;
}

/** Every event once, in order and as it was written, and the view that the server has too. */
export async function same(server: Server, run: Run, events: RunEvent[], token?: string): Promise<void> {
  const truth = await server.truth(run.id, token);
  expect(events).toEqual(truth.events);
  expect(await run.finished).toEqual(truth.view);
}

export async function until(run: Run, enough: () => boolean): Promise<void> {
  if (enough()) return;
  await new Promise<void>((resolve) => {
    const stop = run.onUpdate(() => {
      if (!enough()) return;
      stop();
      resolve();
    });
  });
}
