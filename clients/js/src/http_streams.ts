/** The runs that an HTTP link follows: one event stream each, and the frames around its events. */

import type { Environment } from "./environment.js";
import {
  type Answered,
  answers,
  Closing,
  closingOf,
  comeBack,
  refusalOf,
  type Refusal,
  type Requests,
  serverTime,
} from "./http_requests.js";
import type { Frame, FrameOf, Pending, Receipt, RunAttached } from "./protocol.js";
import { sseReader } from "./sse.js";

/** A stream that was silent for longer may be dead. By the server's defaults it shows life every 20 s. */
export const SILENT_MS = 22_000;
/** A browser opens six HTTP/1.1 connections to a server, for all its tabs: some must be left for commands. */
export const MAX_STREAMS = 2;
/** With more runs than streams, how often the quietest one that has caught up gives its stream to another. */
export const TURN_MS = 1_000;
/** Runs whose standing is kept, so that asking again costs nothing when nothing changed. */
const MAX_STANDINGS = 64;

/** The longest wait before a stream that broke is opened again. */
export const AGAIN_MS = 250;

const LOST = 1006;
const TERMINAL = /^(run\.)?(completed|failed|cancelled)$/;

/** What an attach says of a run, from its view. */
interface Standing {
  readonly etag: string | null;
  readonly attached: Omit<RunAttached, "command_id" | "run_id">;
}

/** The attach that asked for a run. `receipt`: it has none yet; a start has its own. */
export interface Attach {
  readonly commandId: string;
  readonly receipt: boolean;
}

interface Following {
  readonly runId: string;
  /** Until it is answered. */
  attach: Attach | undefined;
  /** All up to here was said. */
  seq: number;
  epoch: string | undefined;
  replay: string | undefined;
  head: number;
  caughtUp: boolean;
  /** The run has ended or is gone, and all of it was said. */
  done: boolean;
  heardAt: number;
  visit: AbortController;
  /** The stream is to be opened again from where it is. */
  again: boolean;
}

export interface StreamsOptions {
  readonly environment: Environment;
  readonly requests: Requests;
  /** The text of a frame or an event as it came. */
  readonly pass: (text: string) => void;
  readonly say: <Type extends Frame["type"]>(type: Type, payload: FrameOf<Type>["payload"]) => void;
  readonly receipt: (commandId: string, more: Partial<Receipt>) => void;
  readonly refuse: (commandId: string, refusal: Refusal, runId?: string) => void;
  /** Whatever it throws ends the link. */
  readonly attempt: (act: () => Promise<void>) => void;
}

export function createStreams({ environment, requests, pass, say, receipt, refuse, attempt }: StreamsOptions) {
  const runs = new Map<string, Following>();
  const standings = new Map<string, Standing>();
  const waiting: (() => void)[] = [];
  let open = 0;
  let turning = false;

  const gone = (it: Following): boolean => runs.get(it.runId) !== it;

  const heartbeat = (heads: Record<string, number>): void =>
    say("heartbeat", { now: new Date().toISOString(), runs: heads });

  function leave(runId: string): void {
    const it = runs.get(runId);
    runs.delete(runId);
    it?.visit.abort();
  }

  function reopen(it: Following): void {
    it.again = true;
    it.visit.abort();
  }

  // -- one run

  async function follow(it: Following): Promise<void> {
    while (!gone(it) && !it.done) {
      await enter();
      const before = it.seq;
      let broken: unknown;
      try {
        if (!gone(it)) await visit(it);
      } catch (error) {
        broken = error;
      } finally {
        exit();
      }
      // It was left, or is to be opened again: not what broke.
      if (!broken || gone(it) || it.again) continue;
      // Many a proxy ends a stream after a while. One that brought something is worth another, before all is given up.
      if (it.seq === before || (broken instanceof Closing && broken.code !== LOST)) throw broken;
      await new Promise<void>((resolve) => environment.after(environment.random() * AGAIN_MS, resolve));
    }
    if (!gone(it)) runs.delete(it.runId);
  }

  async function visit(it: Following): Promise<void> {
    it.again = false;
    it.visit = new AbortController();
    const query = new URLSearchParams({ since_seq: String(it.seq) });
    if (it.epoch !== undefined) query.set("epoch", it.epoch);
    if (it.replay !== undefined) query.set("replay", it.replay);
    const [response, standing] = await Promise.all([
      requests.open(`${pathOf(it.runId)}/events?${query}`, it.visit),
      it.attach && look(it.runId),
    ]);
    if (gone(it)) return;
    const over = response.status === 204;
    const streams = response.status === 200 && response.headers.get("content-type")?.startsWith("text/event-stream");
    if (!streams && !over) return refused(it, await requests.read(response));
    if (it.attach) await attached(it, it.attach, standing, over);
    if (gone(it)) return;
    if (over) {
      it.done = true;
      return moved(it, it.seq, it.epoch);
    }
    // That is asked for once: from here on it is an ordinary reader.
    if (it.replay === "snapshot") it.replay = undefined;
    await stream(it, response);
  }

  function refused(it: Following, answer: Answered): void {
    const { attach } = it;
    // Of a run that was followed already, an attach of the next connection is told why.
    if (!attach?.receipt || !answers(answer))
      throw answers(answer) ? new Closing(LOST, refusalOf(answer).text) : closingOf(answer);
    runs.delete(it.runId);
    it.visit.abort();
    refuse(attach.commandId, refusalOf(answer), it.runId);
  }

  async function attached(
    it: Following,
    attach: Attach,
    looked: Standing | Answered | undefined,
    over: boolean,
  ): Promise<void> {
    let standing = looked;
    // The run ended between the two answers.
    if (over && standing && "attached" in standing && !TERMINAL.test(standing.attached.status)) {
      standing = await look(it.runId);
      if (gone(it)) return;
    }
    if (!standing) return;
    if (!("attached" in standing)) return refused(it, standing);
    const told = standing.attached;
    it.attach = undefined;
    it.head = told.head_seq;
    it.epoch ??= told.epoch;
    if (attach.receipt) receipt(attach.commandId, { run_id: it.runId });
    say("run.attached", { command_id: attach.commandId, run_id: it.runId, ...told });
    // Unless something follows: a reset, or the end.
    const nothing = it.seq === it.head && it.epoch === told.epoch && it.replay !== "snapshot";
    if (nothing && !TERMINAL.test(told.status)) moved(it, it.seq, it.epoch);
  }

  async function stream(it: Following, response: Response): Promise<void> {
    let begun = false;
    let backInMs: number | undefined;
    const feed = sseReader({
      event(type, data, id) {
        if (gone(it)) return;
        begun = true;
        pass(data);
        if (type === "run.reset") return reset(it, data);
        if (type.startsWith("run.") && TERMINAL.test(type)) it.done = true;
        const [, epoch, seq] = /^(.+)\.(\d+)$/.exec(id) ?? [];
        if (seq !== undefined) moved(it, Number(seq), epoch);
      },
      comment() {
        // The first one only says that the stream is there.
        if (begun && !gone(it)) heartbeat({ [it.runId]: it.seq });
        begun = true;
      },
      // The first one is for everybody; one in the middle says that the server goes down.
      retry: (ms) => (backInMs = begun ? ms : undefined),
    });
    if (!response.body) throw new Closing(4501, "this fetch does not stream what it gets");
    const reader = response.body.getReader();
    const decoder = new TextDecoder("utf-8", { fatal: true });
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || gone(it)) break;
        it.heardAt = environment.now();
        feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
    if (it.done || gone(it)) return;
    if (backInMs === undefined) throw new Closing(LOST, "the event stream ended");
    throw new Closing(4001, comeBack(backInMs / 1000));
  }

  function reset(it: Following, data: string): void {
    if (gone(it)) return;
    const { payload } = JSON.parse(data) as FrameOf<"run.reset">;
    const { snapshot, snapshot_seq, epoch } = payload;
    // Of a run that is gone nothing follows, nor of one that has ended.
    it.done =
      snapshot_seq === undefined || TERMINAL.test(String((snapshot as { status?: unknown } | undefined)?.status));
    if (snapshot_seq !== undefined) moved(it, snapshot_seq, epoch);
  }

  function moved(it: Following, seq: number, epoch: string | undefined): void {
    it.seq = seq;
    it.epoch = epoch;
    if (it.caughtUp || gone(it) || (seq < it.head && !it.done)) return;
    it.caughtUp = true;
    say("run.caught_up", { run_id: it.runId, seq });
  }

  /** Where the run stands. Or the refusal. */
  async function look(runId: string): Promise<Standing | Answered> {
    const known = standings.get(runId);
    const answer = await requests.ask("GET", pathOf(runId), { etag: known?.etag });
    const { status, headers, body } = answer;
    if (status !== 200 && !(status === 304 && known)) return answer;
    const now = serverTime(headers);
    const told = status === 304 && known ? known.attached : standingOf(body);
    const pending = (told.pending as unknown as Pending[]).map((item) => ({
      ...item,
      expires_in_s: Math.max(0, (Date.parse(item.expires_at) - now) / 1000),
    }));
    const standing = { etag: headers.get("etag"), attached: { ...told, pending } };
    standings.delete(runId);
    standings.set(runId, standing);
    for (const oldest of standings.keys()) {
      if (standings.size <= MAX_STANDINGS) break;
      standings.delete(oldest);
    }
    return standing;
  }

  // -- turns

  async function enter(): Promise<void> {
    if (open < MAX_STREAMS) {
      open += 1;
      return;
    }
    takeTurns();
    await new Promise<void>((go) => waiting.push(go));
  }

  function exit(): void {
    const next = waiting.shift();
    if (next) next();
    else open -= 1;
  }

  function takeTurns(): void {
    if (turning) return;
    turning = true;
    environment.after(TURN_MS, () => {
      turning = false;
      if (waiting.length === 0 || runs.size === 0) return;
      const idle = [...runs.values()].filter((each) => each.caughtUp && !each.again);
      const quietest = idle.reduce<Following | undefined>((a, b) => (a && a.heardAt <= b.heardAt ? a : b), undefined);
      if (quietest) reopen(quietest);
      takeTurns();
    });
  }

  return {
    get count() {
      return runs.size;
    },
    heartbeat,
    leave,

    /** From `seq` on. What was followed of this run before is over. */
    follow(runId: string, attach: Attach, from: { since_seq?: number; epoch?: string; replay?: string } = {}): void {
      leave(runId);
      const { since_seq: seq = 0, epoch, replay } = from;
      const it: Following = {
        ...{ runId, attach, seq, epoch, replay, head: 0, caughtUp: false, done: false, again: false },
        ...{ heardAt: environment.now(), visit: new AbortController() },
      };
      runs.set(runId, it);
      attempt(() => follow(it));
    },

    /** Opens all streams again from where they are. */
    reopenAll(): void {
      for (const it of runs.values()) if (!it.attach) reopen(it);
    },

    /** Asks how far the runs are whose streams say nothing: heads beyond what was said make a reader attach again. */
    async lookAtSilent(): Promise<void> {
      const before = environment.now() - SILENT_MS;
      const heads: Record<string, number> = {};
      for (const it of [...runs.values()].filter((each) => !each.attach && each.heardAt < before)) {
        const standing = await look(it.runId);
        if ("attached" in standing) heads[it.runId] = standing.attached.head_seq;
      }
      if (Object.keys(heads).length > 0) heartbeat(heads);
    },

    close(): void {
      for (const it of runs.values()) it.visit.abort();
      runs.clear();
    },
  };
}

export const pathOf = (runId: string): string => `v1/runs/${encodeURIComponent(runId)}`;

function standingOf(view: any): Standing["attached"] {
  return {
    thread_id: view.thread_id,
    epoch: view.cursor.epoch ?? "",
    head_seq: view.cursor.seq,
    first_seq: 1,
    status: view.status,
    can: TERMINAL.test(view.status) ? [] : ["correct", "cancel", "approve", "input"],
    pending: view.pending,
  };
}
