/** The runs that an HTTP link follows: one event stream each, with the frames that a WebSocket has about a run. */

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
} from "./http_requests.js";
import type { Frame, FrameOf, Receipt } from "./protocol.js";
import { sseReader } from "./sse.js";

/** A browser opens six HTTP/1.1 connections to a server, for all its tabs: some must be left for commands. */
export const MAX_STREAMS = 2;
/** With more runs than streams, how often the quietest one that has caught up gives its stream to another. */
export const TURN_MS = 1_000;
/** The longest wait before a stream that broke is opened again. */
export const AGAIN_MS = 250;

const LOST = 1006;
const TERMINAL = /^(run\.)?(completed|failed|cancelled)$/;

/** The attach that asked for a run. `receipt`: it has none yet; a start has its own. */
export interface Attach {
  readonly commandId: string;
  readonly receipt: boolean;
}

export interface From {
  readonly since_seq?: number | undefined;
  readonly epoch?: string | undefined;
  readonly replay?: string | undefined;
}

interface Following {
  readonly runId: string;
  /** Until it is answered. */
  attach: Attach | undefined;
  /** All up to here was said. */
  seq: number;
  epoch: string | undefined;
  replay: string | undefined;
  caughtUp: boolean;
  /** The run has ended. */
  ended: boolean;
  /** And all of it was said; or it is gone. */
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
  const waiting: (() => void)[] = [];
  let open = 0;
  let turning = false;
  let heardAt = environment.now();

  const gone = (it: Following): boolean => runs.get(it.runId) !== it;

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

  async function follow(it: Following, before: () => Promise<Refusal | undefined>): Promise<void> {
    const refusal = await before();
    if (gone(it)) return;
    if (refusal) return refused(it, refusal);
    while (!gone(it) && !it.done) {
      await enter();
      const { seq } = it;
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
      if (it.seq === seq || (broken instanceof Closing && broken.code !== LOST)) throw broken;
      await new Promise<void>((resolve) => environment.after(environment.random() * AGAIN_MS, resolve));
    }
    if (!gone(it)) runs.delete(it.runId);
  }

  async function visit(it: Following): Promise<void> {
    it.again = false;
    it.heardAt = environment.now();
    it.visit = new AbortController();
    const query = new URLSearchParams({ frames: "1", since_seq: String(it.seq) });
    if (it.epoch !== undefined) query.set("epoch", it.epoch);
    if (it.replay !== undefined) query.set("replay", it.replay);
    const response = await requests.open(`${pathOf(it.runId)}/events?${query}`, it.visit);
    if (gone(it)) return;
    if (response.status === 200 && response.headers.get("content-type")?.startsWith("text/event-stream")) {
      return stream(it, response);
    }
    const answer: Answered = await requests.read(response);
    // Of a run that was followed already, an attach of the next connection is told why.
    if (!answers(answer)) throw closingOf(answer);
    if (!gone(it)) refused(it, refusalOf(answer));
  }

  function refused(it: Following, refusal: Refusal): void {
    if (!it.attach?.receipt) throw new Closing(LOST, refusal.text);
    leave(it.runId);
    refuse(it.attach.commandId, refusal, it.runId);
  }

  async function stream(it: Following, response: Response): Promise<void> {
    let backInS: number | undefined;
    const feed = sseReader({
      event(type, data, id) {
        if (gone(it)) return;
        if (type === "run.attached") attached(it, (JSON.parse(data) as FrameOf<"run.attached">).payload);
        else if (type === "run.caught_up") caughtUp(it, data);
        else if (type === "connection.draining") {
          backInS = (JSON.parse(data) as FrameOf<"connection.draining">).payload.reconnect_in_s;
        } else if (type !== "heartbeat") {
          pass(data);
          if (type === "run.reset") return reset(it, (JSON.parse(data) as FrameOf<"run.reset">).payload);
          const [, epoch, seq] = /^(.+)\.(\d+)$/.exec(id) ?? [];
          if (seq === undefined) return;
          it.seq = Number(seq);
          it.epoch = epoch;
          if (type.startsWith("run.") && TERMINAL.test(type)) it.done = true;
        }
      },
    });
    if (!response.body) throw new Closing(4501, "this fetch does not stream what it gets");
    const reader = response.body.getReader();
    const decoder = new TextDecoder("utf-8", { fatal: true });
    // Not every fetch ends the reading of what is at its end already: it would hold the place for ever.
    it.visit.signal.addEventListener("abort", () => void reader.cancel().catch(() => undefined));
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || gone(it)) break;
        heardAt = it.heardAt = environment.now();
        feed(decoder.decode(value, { stream: true }));
        if (gone(it)) break;
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
    if (it.done || gone(it)) return;
    if (backInS === undefined) throw new Closing(LOST, "the event stream ended");
    throw new Closing(4001, comeBack(backInS));
  }

  /** Said once for an attach; a stream that is opened again says it too. */
  function attached(it: Following, told: FrameOf<"run.attached">["payload"]): void {
    it.ended = TERMINAL.test(told.status);
    it.epoch ??= told.epoch;
    const { attach } = it;
    if (!attach) return;
    it.attach = undefined;
    if (attach.receipt) receipt(attach.commandId, { run_id: it.runId });
    say("run.attached", { ...told, command_id: attach.commandId });
  }

  function reset(it: Following, { snapshot, snapshot_seq: seq, epoch }: FrameOf<"run.reset">["payload"]): void {
    // Of a run that is gone nothing follows.
    it.done = seq === undefined;
    it.seq = seq ?? it.seq;
    it.epoch = epoch;
    it.caughtUp = false;
    it.ended ||= TERMINAL.test(String((snapshot as { status?: unknown } | undefined)?.status));
    // That is asked for once: from here on it is an ordinary reader.
    if (it.replay === "snapshot") it.replay = undefined;
  }

  function caughtUp(it: Following, data: string): void {
    it.done = it.ended;
    if (it.caughtUp) return;
    it.caughtUp = true;
    pass(data);
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
    /** When a stream last said anything. */
    get heardAt() {
      return heardAt;
    },

    leave,

    /** From there on, once `before` is done. What was followed of this run before is over. */
    follow(
      runId: string,
      attach: Attach,
      from: From = {},
      before: () => Promise<Refusal | undefined> = async () => undefined,
    ): void {
      leave(runId);
      const { since_seq: seq = 0, epoch, replay } = from;
      const it: Following = {
        ...{ runId, attach, seq, epoch, replay, caughtUp: false, ended: false, done: false, again: false },
        ...{ heardAt: environment.now(), visit: new AbortController() },
      };
      runs.set(runId, it);
      attempt(() => follow(it, before));
    },

    /** Opens streams again that have said nothing for so long, from where they are. */
    reopen(silentMs: number): void {
      const before = environment.now() - silentMs;
      for (const it of runs.values()) if (!it.attach && !it.again && it.heardAt <= before) reopen(it);
    },

    /** How far each run is, as one heartbeat; a mere sign of life while an attach waits for its turn. */
    beat(): void {
      const all = [...runs.values()];
      if (waiting.length > 0 && all.some((it) => it.attach)) return say("pong", { t: null });
      say("heartbeat", {
        now: new Date().toISOString(),
        runs: Object.fromEntries(all.map((it) => [it.runId, it.seq])),
      });
    },

    close(): void {
      for (const it of runs.values()) it.visit.abort();
      runs.clear();
    },
  };
}

export const pathOf = (runId: string): string => `v1/runs/${encodeURIComponent(runId)}`;
