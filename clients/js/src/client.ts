/** The client: one connection, any number of runs. */

import { addressOf } from "./address.js";
import type { Approval } from "./approvals.js";
import { createConnection } from "./connection.js";
import { type Environment, environmentOf } from "./environment.js";
import { MidstreamError } from "./errors.js";
import { type Followed, follow, type FollowOptions, type RunHost } from "./follow.js";
import { createRest } from "./rest.js";
import { type Client, type ConnectOptions, startOf } from "./options.js";
import type { Run } from "./run.js";
import { claimClientId, placesIn } from "./storage.js";
import { offeredOf } from "./tools.js";

interface Starting {
  readonly how: FollowOptions;
  entry: Followed | undefined;
}

const WHOLE = { sinceSeq: 0, epoch: undefined, replay: "full" } as const;

/** How often places are written to the storage, while there is something new. */
const KEEP_EVERY_MS = 500;

/** A client of the server at `url`. It connects, and stays so by itself until it is closed. Throws on a bad option. */
export function connect(options: ConnectOptions): Client {
  const environment = environmentOf(options);
  const url = addressOf(options.url);
  checkTransport(options, environment);
  const claimed = options.clientId === undefined ? claimClientId(environment.newId) : undefined;
  let clientId = options.clientId ?? claimed?.id ?? "";
  const places = placesIn(options.storage, url);
  const followed = new Map<string, Followed>();
  /** Ended runs that are read once more, while another `Run` of the same id is followed. */
  const guests = new Set<Followed>();
  const starting = new Map<string, Starting>();
  const listeners = new Set<() => void>();
  const begun = new Set<string>();
  let runs: readonly Run[] = [];
  let approvals: readonly Approval[] = [];
  let dirty = false;
  const moved = new Set<Followed>();
  let keeping = false;
  let onReady!: () => void;
  let onRefused!: (error: Error) => void;
  const ready = new Promise<void>((resolve, reject) => ((onReady = resolve), (onRefused = reject)));
  ready.catch(() => {});

  const connection = createConnection(
    {
      url,
      environment,
      transport: options.transport ?? "auto",
      clientId: () => clientId,
      settled: claimed?.settled?.then((id) => (clientId = id)),
      getToken: options.getToken ?? (options.token === undefined ? undefined : () => options.token),
      renewable: options.getToken !== undefined,
    },
    {
      deliver(runId, arrival) {
        followed.get(runId)?.put(arrival);
        for (const guest of guests) if (guest.run.id === runId) guest.put(arrival);
        keepSoon();
      },
      adopt(runId, commandId, wanted) {
        const start = starting.get(commandId);
        let entry = followed.get(runId);
        if (!entry && wanted) entry = add(runId, start?.how ?? { ...WHOLE, tools: options.tools ?? {} });
        if (start) start.entry = entry;
        // Who started it has gone.
        if (!entry) connection.with((core) => core.detach(runId));
      },
      detached(runId, error) {
        const entries = readersOf(runId);
        keep();
        for (const entry of entries) remove(entry);
        for (const entry of entries) entry.end(error);
      },
      changed(state) {
        if (state.status === "ready") onReady();
        else for (const entry of followed.values()) entry.disconnected();
        if (state.error) {
          onRefused(state.error);
          keep();
          const all = [...followed.values(), ...guests];
          followed.clear();
          guests.clear();
          listRuns();
          for (const entry of all) entry.end(state.error);
          claimed?.release();
        }
        changed();
      },
      hidden: keep,
    },
  );

  const host: RunHost = {
    environment,
    clientId: () => clientId,
    localTime: connection.localTime,
    begun,
    send: (type, runId, payload) => connection.send(type, runId, payload),
    read(entry, sinceSeq, replay) {
      if (connection.state.error) throw connection.state.error;
      const { id } = entry.run;
      if (!followed.has(id)) {
        followed.set(id, entry);
        listRuns();
      } else if (followed.get(id) !== entry) {
        guests.add(entry);
      }
      connection.with((core) => core.attach(id, { sinceSeq, epoch: entry.place()[1] || undefined, replay }));
    },
    offer: (runId, tools) => connection.with((core) => core.offer(runId, tools)),
    leave(entry) {
      const { id } = entry.run;
      const reads = readersOf(id).includes(entry);
      keep();
      remove(entry);
      const [other] = readersOf(id);
      if (other) followed.set(id, other);
      else if (reads) connection.with((core) => core.detach(id));
    },
    broken: (reason) => connection.broken(reason),
    moved(entry) {
      moved.add(entry);
      keepSoon();
    },
    changed,
  };

  // -- telling

  function changed(): void {
    const open = runs.flatMap((run) => run.approvals);
    if (open.length !== approvals.length || open.some((approval, at) => approval !== approvals[at])) approvals = open;
    if (dirty) return;
    dirty = true;
    environment.frame(() => {
      dirty = false;
      for (const listener of listeners) {
        try {
          listener();
        } catch (error) {
          environment.report(error);
        }
      }
    });
  }

  // -- runs

  function listRuns(): void {
    runs = Array.from(followed.values(), ({ run }) => run);
    changed();
  }

  function add(runId: string, how: FollowOptions): Followed {
    const entry = follow(host, runId, how);
    followed.set(runId, entry);
    listRuns();
    return entry;
  }

  function remove(entry: Followed): void {
    guests.delete(entry);
    if (followed.get(entry.run.id) === entry) followed.delete(entry.run.id);
    listRuns();
  }

  function readersOf(runId: string): readonly Followed[] {
    return [...followed.values(), ...guests].filter(({ run }) => run.id === runId);
  }

  // -- places

  function keep(): void {
    if (!options.storage) return;
    const entries = [...moved, ...followed.values()];
    moved.clear();
    places.put(new Map(entries.map((entry) => [entry.run.id, entry.place()])));
  }

  function keepSoon(): void {
    if (keeping || !options.storage) return;
    // Not at once: writing costs more than an event.
    keeping = true;
    environment.after(KEEP_EVERY_MS, () => {
      keeping = false;
      keep();
    });
  }

  connection.open();

  return {
    ready,
    rest: createRest({ url, environment, newToken: connection.newToken, renewable: options.getToken !== undefined }),
    get clientId() {
      return clientId;
    },
    get connection() {
      return connection.state;
    },
    get runs() {
      return runs;
    },
    get approvals() {
      return approvals;
    },

    subscribe(listener) {
      const own = () => listener();
      listeners.add(own);
      return () => void listeners.delete(own);
    },

    async start({ tools = {}, clientTools, onUpdate, signal, ...wanted }) {
      const all = { ...options.tools, ...tools };
      const offered = offeredOf(all, clientTools);
      const commandId = environment.newId("cmd");
      const how = { ...WHOLE, tools: all, clientTools };
      const mine: Starting = { how, entry: undefined };
      starting.set(commandId, mine);
      try {
        const payload = { ...startOf(wanted), client_tools: offered.length > 0 ? offered : undefined };
        await connection.send("run.start", undefined, payload, { commandId, signal, tools: offered });
      } finally {
        starting.delete(commandId);
      }
      if (!mine.entry) throw new MidstreamError("invalid", "the server accepted the start and named no run");
      if (onUpdate) mine.entry.run.onUpdate(onUpdate);
      return mine.entry.run;
    },

    async attach(runId, { sinceSeq, epoch, replay, onUpdate, signal } = {}) {
      signal?.throwIfAborted();
      if (connection.state.error) throw connection.state.error;
      let entry = followed.get(runId);
      const fresh = !entry;
      if (!entry) {
        const kept = sinceSeq === undefined && replay === undefined ? places.get(runId) : { sinceSeq, epoch };
        const since = kept?.sinceSeq ?? (replay === "snapshot" ? undefined : 0);
        // The view of the whole log does not come from a part of it.
        const first = since ? "snapshot" : (replay ?? "full");
        const history = since ? kept?.epoch : undefined;
        entry = add(runId, { sinceSeq: since, epoch: history, replay: first, tools: options.tools ?? {} });
        const tools = entry.tools();
        connection.with((core) => core.attach(runId, { replay: first, tools }));
      }
      if (onUpdate) entry.run.onUpdate(onUpdate);
      try {
        await waitFor(entry.attached, signal);
      } catch (error) {
        if (fresh && signal?.aborted && !entry.run.attached) entry.run.detach();
        throw error;
      }
      return entry.run;
    },

    run: (runId) => followed.get(runId)?.run,
    reconnect: connection.reconnect,
    close: connection.close,
  };
}

function checkTransport({ transport = "auto" }: ConnectOptions, { WebSocket, fetch }: Environment): void {
  const possible = (transport !== "http" && WebSocket) || (transport !== "websocket" && fetch);
  if (possible) return;
  const missing = transport === "http" ? "fetch" : "WebSocket";
  throw new MidstreamError("no_transport", `there is no ${missing} here: give one, like connect({ url, ${missing} })`);
}

async function waitFor<Value>(promise: Promise<Value>, signal: AbortSignal | undefined): Promise<Value> {
  if (!signal) return promise;
  signal.throwIfAborted();
  let aborted = () => {};
  const abort = new Promise<never>((_, reject) => (aborted = () => reject(signal.reason)));
  signal.addEventListener("abort", aborted);
  try {
    return await Promise.race([promise, abort]);
  } finally {
    signal.removeEventListener("abort", aborted);
  }
}
