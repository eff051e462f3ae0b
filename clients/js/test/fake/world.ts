/** A client with a fake server, clock and page. */

import { connect, type Client, type ConnectOptions } from "../../src/index.js";
import { FakeClock, settle } from "./clock.js";
import { FakeServer, type FakeServerOptions, FakeSocket } from "./server.js";

/** `window` and `document` as far as the client looks at them. */
export class FakePage {
  visibilityState = "visible";
  readonly #listeners = new Map<string, Set<() => void>>();

  addEventListener(type: string, listener: () => void): void {
    const known = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, known.add(listener));
  }

  removeEventListener(type: string, listener: () => void): void {
    this.#listeners.get(type)?.delete(listener);
  }

  fire(type: string): void {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) listener();
  }

  get listening(): number {
    return [...this.#listeners.values()].reduce((sum, each) => sum + each.size, 0);
  }
}

export interface World {
  readonly client: Client;
  readonly clock: FakeClock;
  readonly server: FakeServer;
  readonly page: FakePage;
  readonly reported: unknown[];
  /** What `fetch` was asked for. */
  readonly fetched: string[];
  /** A client like this one, of the same server and clock. */
  readonly again: (options?: Partial<ConnectOptions>) => Client;
}

export interface WorldOptions extends Partial<ConnectOptions> {
  server?: FakeServerOptions;
  /** Status that GET answers with; undefined: there is no answer. */
  http?: number;
}

/** `random` is 1, so that waits are as long as they can be. */
export function world({ server: serverOptions, http, ...options }: WorldOptions = {}): World {
  const clock = new FakeClock();
  const server = new FakeServer({ now: clock.now, ...serverOptions });
  const page = new FakePage();
  const reported: unknown[] = [];
  const fetched: string[] = [];
  let ids = 0;
  class WebSocket extends FakeSocket {
    constructor(url: string, protocols: string[] = []) {
      super(server, url, protocols);
    }
  }
  const again = (more: Partial<ConnectOptions> = {}) =>
    connect({
      url: "http://test.example",
      clientId: "client_1",
      WebSocket,
      fetch: (async (input: string) => {
        fetched.push(input);
        if (http === undefined) throw new TypeError("no network");
        return new Response("{}", { status: http });
      }) as unknown as typeof globalThis.fetch,
      now: clock.now,
      after: clock.after,
      frame: (callback) => void clock.after(16, callback),
      random: () => 1,
      newId: (kind) => `${kind}_${(ids += 1)}`,
      report: (error) => reported.push(error),
      window: page,
      document: page,
      ...options,
      ...more,
    });
  return { client: again(), clock, server, page, reported, fetched, again };
}

/** A world that is connected and follows run_1. */
export async function following(options: WorldOptions = {}) {
  const made = world(options);
  made.server.log();
  const run = await made.client.attach("run_1");
  await settle();
  return { ...made, run };
}

/** All that an iterator gives. */
export async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

export { settle };
