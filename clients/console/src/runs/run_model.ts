/** One run as the page shows it: the client's view, the timeline's order and the raw events, as signals. */

import { MidstreamError, type Client, type Run, type RunEvent, type Update, type View } from "@midstream/client";
import { batch, signal } from "@preact/signals";

import { isOver, Order, type Entry } from "../timeline/order.js";

/** Raw events kept for the drawer. A run of this length is far beyond what anyone reads. */
export const MAX_RAW = 50_000;

/** Runs that stay followed after their page was left, so that coming back shows them at once. */
const MAX_OPEN = 12;

/** Runs of a conversation that are asked for at once, to see whether one is among them. */
const LISTED = 50;

/** How long the first picture waits for the history to be complete, in ms: it should not be built up before the eyes. */
const FIRST_PICTURE_MS = 1_500;

export type Opening = "opening" | "open" | "failed";

export class RunModel {
  readonly id: string;
  readonly run = signal<Run | undefined>(undefined);
  readonly view = signal<View | undefined>(undefined);
  readonly entries = signal<readonly Entry[]>([]);
  /** Grows with each event; `rawVersion` tells of it. */
  raw: RunEvent[] = [];
  readonly rawVersion = signal(0);
  readonly opening = signal<Opening>("opening");
  readonly error = signal<Error | undefined>(undefined);
  #order = new Order();
  #unsubscribe: () => void = () => undefined;
  #patience: ReturnType<typeof setTimeout> | undefined;
  #impatient = false;
  #checking = false;
  readonly #abort = new AbortController();

  constructor(id: string) {
    this.id = id;
  }

  async open(client: Client): Promise<void> {
    this.#patience = setTimeout(() => {
      this.#impatient = true;
      this.#publish();
    }, FIRST_PICTURE_MS);
    try {
      const run = await client.attach(this.id, {
        replay: "merged",
        onUpdate: this.onUpdate,
        signal: this.#abort.signal,
      });
      this.take(run);
    } catch (error) {
      clearTimeout(this.#patience);
      if (this.#abort.signal.aborted) return;
      this.error.value = error instanceof Error ? error : new Error(String(error));
      this.opening.value = "failed";
    }
  }

  /** Shows this run, whose updates come to `onUpdate`. */
  take(run: Run): void {
    this.run.value = run;
    this.#unsubscribe = run.subscribe(() => this.#publish());
    this.#publish();
  }

  readonly onUpdate = (update: Update): void => {
    if (update.kind === "event") {
      this.#order.add(update.event);
      this.raw.push(update.event);
      if (this.raw.length > MAX_RAW) this.raw.splice(0, MAX_RAW / 10);
    } else if (update.kind === "reset") {
      this.#order = Order.of(update.view).continueFrom(this.#order);
      if (update.reason === "joined") {
        if (update.view.cursor.seq > 0) void this.#recover(update.view.cursor.seq);
      } else if (update.reason === "epoch") this.raw = [];
    }
  };

  get idle(): boolean {
    return this.view.value === undefined || isOver(this.view.value);
  }

  /**
   * An ended run is followed no longer, so nobody tells that it was deleted: look whether it is there still. The list
   * is asked first, because that says so of most without an error; only an attach knows for certain.
   */
  async check(client: Client): Promise<void> {
    const { value: view } = this.view;
    if (view === undefined || !this.idle || this.opening.value !== "open" || this.#checking) return;
    this.#checking = true;
    try {
      const listed = await client.rest.runs({ threadId: view.thread_id, limit: LISTED });
      if (listed.next_cursor !== undefined || listed.items.some((run) => run.run_id === this.id)) return;
      const run = await client.attach(this.id, { replay: "snapshot", signal: this.#abort.signal });
      run.detach();
    } catch (error) {
      // Whatever else is wrong, the connection's mark tells.
      if (!(error instanceof MidstreamError) || error.code !== "not_found") return;
      this.#unsubscribe();
      batch(() => {
        this.error.value = error;
        this.opening.value = "failed";
      });
    } finally {
      this.#checking = false;
    }
  }

  close(): void {
    this.#abort.abort();
    clearTimeout(this.#patience);
    this.#unsubscribe();
    this.run.value?.detach();
  }

  /**
   * The run was followed already when this page came: the view is whole, the order in it is a guess. Read the log up
   * to there once more, and put what has come since behind it.
   */
  async #recover(upTo: number): Promise<void> {
    await Promise.resolve();
    const run = this.run.value ?? (await this.#taken());
    const order = new Order();
    const raw: RunEvent[] = [];
    try {
      for await (const event of run) {
        order.add(event);
        raw.push(event);
        if (event.seq >= upTo) break;
      }
    } catch {
      // The log cannot be had any more: the order stays the snapshot's.
      return;
    }
    if (this.#abort.signal.aborted) return;
    const since = this.raw.filter((event) => event.seq > upTo);
    for (const event of since) order.add(event);
    this.#order = order.continueFrom(this.#order);
    this.raw = [...raw, ...since];
    this.#publish();
  }

  #taken(): Promise<Run> {
    return new Promise((resolve) => {
      const stop = this.run.subscribe((run) => {
        if (run === undefined) return;
        queueMicrotask(() => stop());
        resolve(run);
      });
    });
  }

  #publish(): void {
    const run = this.run.value;
    if (run === undefined) return;
    const first = this.opening.value === "opening";
    if (first && !this.#impatient && !run.caughtUp && !run.ended && run.error === undefined) return;
    clearTimeout(this.#patience);
    batch(() => {
      this.opening.value = "open";
      this.error.value = run.error;
      this.view.value = run.view;
      this.entries.value = this.#order.entries(run.view);
      this.rawVersion.value += 1;
    });
  }
}

const open = new Map<string, RunModel>();
let owner: Client | undefined;

/** The model of this run, followed from now on. */
export const modelOf = (client: Client, runId: string): RunModel => {
  if (owner !== client) {
    // Another client (a new token): what the old one followed is gone.
    open.clear();
    owner = client;
  }
  const known = open.get(runId);
  if (known !== undefined && known.opening.value !== "failed") {
    open.delete(runId);
    open.set(runId, known);
    return known;
  }
  const model = new RunModel(runId);
  keep(model);
  void model.open(client);
  return model;
};

/** Shows a run that was started with `model.onUpdate`, from its first event on. */
export const adopt = (client: Client, model: RunModel, run: Run): void => {
  if (owner !== client) {
    open.clear();
    owner = client;
  }
  model.take(run);
  keep(model);
};

const keep = (model: RunModel): void => {
  open.set(model.id, model);
  for (const [other, old] of open) {
    if (open.size <= MAX_OPEN) return;
    if (other === model.id || !old.idle) continue;
    open.delete(other);
    old.close();
  }
};
