/** The runs there are, kept fresh while somebody looks: told by the server's feed, and asked again now and then. */

import { Refused, type AgentInfo, type Client, type RunSummary } from "@midstream/client";
import { batch, signal } from "@preact/signals";

import { authorization, base } from "../connection/state.js";
import { merged } from "./search.js";

/** Runs asked for at a time. */
const PAGE = 50;

/** Older pages that a search may read by itself. */
const SEARCH_PAGES = 10;

/** The feed may leave events out: ask again after so many ms at the latest. */
const ASK_MS = 15_000;

/** Events of the feed within so many ms are answered by one request. */
const GATHER_MS = 250;

/** After a feed that could not be had, in ms. */
const FEED_AGAIN_MS = 10_000;

const FEED_TYPES = "run.started,run.status,run.cancelling,run.completed,run.failed,run.cancelled,approval.,input.,thread.";

export class LiveList {
  readonly runs = signal<readonly RunSummary[]>([]);
  readonly agents = signal<readonly AgentInfo[]>([]);
  readonly loaded = signal(false);
  /** There are older runs than those loaded. */
  readonly more = signal(false);
  readonly problem = signal("");
  readonly #client: Client;
  #status = "";
  #cursor: string | undefined;
  #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking = false;
  #again = false;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Keeps the list fresh until what it returns is called. */
  watch(): () => void {
    const looked = (): void => {
      this.#stopFeed();
      if (document.visibilityState !== "visible") return clearTimeout(this.#timer);
      void this.#ask();
      void this.#feed();
    };
    document.addEventListener("visibilitychange", looked);
    addEventListener("online", looked);
    looked();
    void this.#askAgents();
    return () => {
      document.removeEventListener("visibilitychange", looked);
      removeEventListener("online", looked);
      clearTimeout(this.#timer);
      this.#stopFeed();
    };
  }

  /** Only runs of this status; empty for all. */
  filter(status: string): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#cursor = undefined;
    batch(() => {
      this.loaded.value = false;
      this.runs.value = [];
      this.more.value = false;
    });
    void this.#ask();
  }

  async older(pages = 1): Promise<void> {
    for (let page = 0; page < pages && this.#cursor !== undefined; page++) {
      const status = this.#status;
      const cursor = this.#cursor;
      try {
        const answer = await this.#client.rest.runs({ limit: PAGE, cursor, ...(status === "" ? {} : { status }) });
        if (status !== this.#status || cursor !== this.#cursor) return;
        this.#cursor = answer.next_cursor;
        batch(() => {
          this.runs.value = merged(this.runs.value, answer.items);
          this.more.value = answer.next_cursor !== undefined;
        });
      } catch (error) {
        this.problem.value = saying(error);
        return;
      }
    }
  }

  /** Reads older pages for a search, up to a bound. */
  async olderForSearch(): Promise<void> {
    const left = SEARCH_PAGES - Math.ceil(this.runs.value.length / PAGE);
    if (left > 0) await this.older(left);
  }

  #soon(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(), ms);
  }

  async #ask(): Promise<void> {
    if (this.#asking) {
      this.#again = true;
      return;
    }
    this.#asking = true;
    const status = this.#status;
    try {
      const answer = await this.#client.rest.runs({ limit: PAGE, ...(status === "" ? {} : { status }) });
      if (status !== this.#status) this.#again = true;
      else
        batch(() => {
          // With a status, what no longer has it leaves the list; that is known of the first page only.
          const older = this.runs.value.length > PAGE ? this.runs.value : [];
          this.runs.value = status === "" ? merged(answer.items, older) : answer.items;
          if (older.length === 0 || status !== "") this.#cursor = answer.next_cursor;
          this.more.value = this.#cursor !== undefined;
          this.loaded.value = true;
          this.problem.value = "";
        });
    } catch (error) {
      this.problem.value = saying(error);
    }
    this.#asking = false;
    const again = this.#again;
    this.#again = false;
    if (document.visibilityState === "visible") this.#soon(again ? GATHER_MS : ASK_MS);
  }

  async #askAgents(): Promise<void> {
    try {
      this.agents.value = await this.#client.rest.agents();
    } catch {
      setTimeout(() => void (this.agents.value.length === 0 && this.#askAgents()), ASK_MS);
    }
  }

  #stopFeed(): void {
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  /** Each line of the feed means that something changed; what it is, the list is asked. */
  async #feed(): Promise<void> {
    const { signal: aborted } = this.#abort;
    try {
      const url = new URL(`v1/feed?types=${FEED_TYPES}`, base());
      const headers = { accept: "application/x-ndjson", ...authorization() };
      const answer = await fetch(url, { headers, signal: aborted, cache: "no-store" });
      const reader = answer.ok ? answer.body?.getReader() : undefined;
      const newline = 10;
      while (reader !== undefined) {
        const { done, value } = await reader.read();
        if (done) break;
        // A heartbeat is a line too; one more question for each of them is cheap.
        if (value.includes(newline)) this.#soon(GATHER_MS);
      }
    } catch {
      // Asking now and then goes on.
    }
    if (!aborted.aborted) setTimeout(() => void (!aborted.aborted && this.#feed()), FEED_AGAIN_MS);
  }
}

const saying = (error: unknown): string =>
  error instanceof Refused ? error.message : "The list of runs cannot be had now. It is tried again.";
