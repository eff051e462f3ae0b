/**
 * One connection to many runs, without I/O: what arrives goes in with the time, what is to be done comes out.
 *
 * Rules a reviewer can reject on:
 *
 * 1. Nothing is sent before `connection.ready`, and never more unanswered commands than the server allows.
 * 2. An event is delivered once per attachment, in order: the one after the cursor. A hole means attach again.
 * 3. Between an attach and its `run.attached` nothing of that run counts: it belongs to the attachment before.
 * 4. A remembered command is sent on every connection, and again on this one, until its receipt has come, always under
 *    the same id.
 * 5. A connection's own commands (attach, detach, offer) are made anew for the next connection, never sent again.
 * 6. Silence for 2.5 heartbeats is a dead connection.
 * 7. A heartbeat tells what was lost on a living one: what it counts beyond the cursor, a run that it leaves out, and
 *    any answer that has not come from one beat to the next.
 */

import type { Action, Arrival } from "./actions.js";
import { backoff, FAILURES_AFTER_NEWS, seconds, STABLE_AFTER_MS, toldIn } from "./backoff.js";
import { type Cursor, place, type Replay } from "./cursor.js";
import { Disconnected, type ErrorCode, MidstreamError, Refused } from "./errors.js";
import { readFrame } from "./frame.js";
import {
  type ClientTool,
  CLOSE,
  type Command,
  type ConnectionReady,
  type Frame,
  isEnded,
  isTerminal,
  mayRetry,
  PROTOCOL_VERSION,
  type Receipt,
  type RunEvent,
  type RunStatus,
} from "./protocol.js";

export const DEAD_AFTER_HEARTBEATS = 2.5;
/** Each step from the first attempt over the open link to `connection.ready`. */
export const READY_TIMEOUT_MS = 10_000;
/** A connection that is asked for a sign of life gives one within this time, or is dead. */
export const PROBE_TIMEOUT_MS = 5000;
/** Attaches in a row that bring a hole instead of the next event, before the connection itself is given up. */
export const MAX_GAPS = 3;
/** Unanswered commands on one connection; the server may allow fewer. */
export const COMMANDS_IN_FLIGHT = 64;
/** Where a server names no heartbeat that a timer can hold, seconds. */
const DEFAULT_HEARTBEAT_S = 15;

/** Final close codes that have a name of their own. */
const NAMES = new Map<number, ErrorCode>([[CLOSE.badCredentials, "unauthorized"], [CLOSE.forbidden, "forbidden"]]);

const LOST = 1006;
const BROKEN = 1002;

type Type = Command["type"];

interface Outgoing {
  readonly id: string;
  readonly type: Type;
  readonly runId: string | undefined;
  readonly text: string;
  /** A connection's own command, not resent; with what its refusal undoes. */
  readonly own: boolean;
  readonly undo?: () => void;
  readonly tools?: readonly ClientTool[] | undefined;
  /** Heartbeats since it was sent. */
  beats: number;
}

export interface CoreOptions {
  readonly newId: (kind: string) => string;
  readonly random: () => number;
  /** Whether another token can be had: then bad credentials are not at once the end. */
  readonly renewable: boolean;
}

export interface AttachRequest {
  readonly sinceSeq?: number | undefined;
  readonly epoch?: string | undefined;
  readonly replay?: Replay | undefined;
  readonly tools?: readonly ClientTool[];
}

export type Core = ReturnType<typeof createCore>;

/** Times are milliseconds of one clock. What is to be done goes into `actions`, for the caller to take. */
export function createCore({ newId, random, renewable }: CoreOptions) {
  const actions: Action[] = [];
  const runs = new Map<string, Cursor>();
  let status: "connecting" | "ready" | "closed" = "connecting";
  let server: ConnectionReady | undefined;
  let waiting: Outgoing[] = [];
  let unanswered = new Map<string, Outgoing>();
  let nextConnection: Outgoing[] = [];
  let failures = 0;
  /** This connection brought an event or an answer. */
  let news = false;
  let renewed = false;
  let toldMs: number | undefined;
  let readyAt: number | undefined;
  let heardAt: number | undefined;
  let probedAt: number | undefined;
  /** The command of a `run.attached` that nobody waited for: it may have overtaken the receipt. */
  let strayId: string | undefined;

  const act = (action: Action) => void actions.push(action);
  const deliver = (runId: string, arrival: Arrival) => act({ do: "deliver", runId, arrival });

  // -- sending

  function outgoing(type: Type, id: string, runId: string | undefined, payload: object, own: boolean): Outgoing {
    const command = { v: PROTOCOL_VERSION, type, command_id: id, run_id: runId, payload };
    return { id, type, runId, text: JSON.stringify(command), own, beats: 0 };
  }

  function awaiting(cursor: Cursor, attachId: string | undefined): void {
    cursor.attachId = attachId;
    cursor.attached = false;
    cursor.beats = 0;
  }

  function attachOf(cursor: Cursor): Outgoing {
    const { runId, seq, epoch, replay, tools } = cursor;
    const id = newId("cmd");
    awaiting(cursor, id);
    const payload = {
      since_seq: seq,
      epoch,
      replay: replay === "full" ? undefined : replay,
      client_tools: tools.length > 0 ? tools : undefined,
    };
    return outgoing("run.attach", id, runId, payload, true);
  }

  function sendOwn(command: Outgoing): void {
    if (status !== "ready") return;
    waiting.push(command);
    flush();
  }

  function flush(): void {
    if (status !== "ready") return;
    const allowed = server?.limits?.commands_in_flight ?? COMMANDS_IN_FLIGHT;
    // What is no number of commands, or none at all, would hold everything back for ever.
    const room = allowed >= 1 ? Math.min(COMMANDS_IN_FLIGHT, allowed) : COMMANDS_IN_FLIGHT;
    while (unanswered.size < room) {
      const next = waiting.shift();
      if (!next) return;
      const most = server?.limits?.max_frame_bytes;
      if (most && next.text.length > most) {
        // The server would refuse it, or close the connection for good if it is far too big.
        refuse(next, most);
        continue;
      }
      next.beats = 0;
      unanswered.set(next.id, next);
      act({ do: "send", text: next.text });
    }
  }

  function refuse(sent: Outgoing, most: number): void {
    const text = `this is more than the ${most} bytes that the server takes in one message`;
    const receipt: Receipt = { command_id: sent.id, status: "rejected", code: "too_large", text };
    if (sent.own) sent.undo?.();
    else act({ do: "answer", commandId: sent.id, receipt });
  }

  // -- ends

  function comeBack(reason: string, delayMs?: number): void {
    status = "connecting";
    readyAt = heardAt = probedAt = strayId = undefined;
    waiting = [...nextConnection, ...unanswered.values(), ...waiting].filter((command) => !command.own);
    unanswered = new Map();
    nextConnection = [];
    for (const cursor of runs.values()) awaiting(cursor, undefined);
    if (news) failures = Math.min(failures, FAILURES_AFTER_NEWS);
    news = false;
    const jittered = backoff(failures, random());
    failures += 1;
    act({ do: "connect", delayMs: delayMs ?? toldMs ?? jittered, reason });
    toldMs = undefined;
  }

  function rested(now: number): void {
    if (readyAt === undefined || now - readyAt < STABLE_AFTER_MS) return;
    failures = 0;
    renewed = false;
  }

  function drop(code: number, reason: string, now: number): void {
    if (status === "closed") return;
    rested(now);
    act({ do: "drop", code });
    comeBack(reason);
  }

  function fail(error: Error): void {
    status = "closed";
    heardAt = undefined;
    act({ do: "fail", error });
  }

  function lose(cursor: Cursor, error: Error | undefined): void {
    runs.delete(cursor.runId);
    act({ do: "detached", runId: cursor.runId, error });
  }

  // -- frames

  function onGap(cursor: Cursor, now: number): void {
    cursor.gaps += 1;
    if (cursor.gaps > MAX_GAPS) {
      cursor.gaps = 0;
      drop(LOST, `run ${cursor.runId} came with holes`, now);
    } else {
      sendOwn(attachOf(cursor));
    }
  }

  function onEvent(event: RunEvent, now: number): void {
    const cursor = runs.get(event.run_id);
    if (!cursor?.attached) return;
    const where = place(cursor.seq, event);
    if (where === "gap" || cursor.foreign) return onGap(cursor, now);
    if (where === "old") return;
    cursor.seq = event.seq;
    cursor.gaps = 0;
    news = true;
    deliver(event.run_id, { kind: "event", event });
    if (isTerminal(event)) lose(cursor, undefined);
  }

  function onReceipt(receipt: Receipt, now: number): void {
    const sent = unanswered.get(receipt.command_id);
    if (!sent) return;
    unanswered.delete(sent.id);
    if (sent.own) {
      onOwnReceipt(sent, receipt, now);
    } else if (receipt.code === "draining") {
      // Not remembered by the server, and true only for this connection: the next one takes it.
      nextConnection.push(sent);
    } else {
      news = true;
      adopt(sent, receipt);
      act({ do: "answer", commandId: sent.id, receipt });
    }
    flush();
  }

  function onOwnReceipt(sent: Outgoing, receipt: Receipt, now: number): void {
    // A draining server closes this connection: the next one is asked anew.
    if (receipt.status === "accepted" || receipt.code === "draining") return;
    const cursor = runs.get(sent.runId ?? "");
    const refused = new Refused(receipt);
    if (cursor && sent.id === cursor.attachId) {
      if (receipt.retryable && cursor.wasAttached) drop(LOST, `attach refused for now: ${refused.message}`, now);
      else lose(cursor, refused);
    } else if (sent.type !== "run.attach" && sent.type !== "run.detach") {
      sent.undo?.();
      act({ do: "warn", text: `${sent.type} was refused: ${refused.message}` });
    }
  }

  /** A command that made or found another run than the one it named attaches us: its `run.attached` comes next. */
  function adopt(sent: Outgoing, { status: answer, run_id: runId }: Receipt): void {
    if (answer !== "accepted" || !runId || runId === sent.runId) return;
    const cursor = runs.get(runId) ?? follow(runId, {});
    if (sent.tools) cursor.tools = sent.tools;
    awaiting(cursor, sent.id);
    act({ do: "adopt", runId, commandId: sent.id });
    if (strayId === sent.id) sendOwn(attachOf(cursor));
  }

  function follow(runId: string, { sinceSeq = 0, epoch, replay = "full", tools = [] }: AttachRequest): Cursor {
    const fresh = { attachId: undefined, attached: false, wasAttached: false, beats: 0, gaps: 0 };
    const cursor: Cursor = {
      ...{ runId, seq: sinceSeq, epoch, replay, tools, ...fresh },
      ...{ head: 0, caughtUp: false, foreign: false, status: "" },
    };
    runs.set(runId, cursor);
    return cursor;
  }

  function onFrame(frame: Frame, now: number): void {
    if (frame.type === "connection.ready") {
      if (status === "ready") return;
      status = "ready";
      server = frame.payload;
      readyAt = now;
      toldMs = undefined;
      act({ do: "ready" });
      // Before what waits: who made a command should be following when its effect comes.
      waiting.unshift(...Array.from(runs.values(), attachOf));
      flush();
    } else if (frame.type === "receipt") {
      onReceipt(frame.payload, now);
    } else if (frame.type === "heartbeat") {
      // Without the runs it says nothing of them.
      if (frame.payload.runs) onHeartbeat(new Map(Object.entries(frame.payload.runs)), now);
    } else if (frame.type === "connection.draining") {
      toldMs = seconds(frame.payload.reconnect_in_s);
    } else if (frame.type === "auth.expiring") {
      act({ do: "renew" });
    } else if (frame.type === "error") {
      act({ do: "warn", text: `${frame.payload.code}: ${frame.payload.text}` });
    } else if (frame.type === "run.attached" || frame.type === "run.reset" || frame.type === "run.caught_up") {
      onRunFrame(frame, now);
    }
  }

  function onHeartbeat(heads: Map<string, number>, now: number): void {
    // It is ordered with the frames of the runs, and written when what was asked before may have been answered.
    for (const cursor of [...runs.values()]) {
      const head = heads.get(cursor.runId);
      const { attached, seq } = cursor;
      const lost = attached
        ? head === undefined || head > seq || cursor.foreign
        : cursor.attachId !== undefined && (cursor.beats += 1) > 1;
      if (lost) onGap(cursor, now);
      else if (attached && !cursor.caughtUp && seq >= cursor.head) onCaughtUp(cursor);
      if (status !== "ready") return;
    }
    for (const sent of [...unanswered.values()]) {
      if ((sent.beats += 1) <= 1) continue;
      if (sent.type === "run.attach" || sent.type === "run.detach" || stale(sent)) {
        // What followed, or did not, has told.
        unanswered.delete(sent.id);
      } else {
        sent.beats = 0;
        act({ do: "send", text: sent.text });
      }
    }
    flush();
  }

  /** An offer that another one has replaced. */
  const stale = ({ type, runId, tools }: Outgoing): boolean =>
    type === "tools.offer" && runs.get(runId ?? "")?.tools !== tools;

  function onCaughtUp(cursor: Cursor): void {
    cursor.caughtUp = true;
    deliver(cursor.runId, { kind: "caughtUp" });
    // Over when the attach came, and nothing is left to send.
    if (isEnded(cursor.status as RunStatus)) lose(cursor, undefined);
  }

  type RunFrame = Extract<Frame, { type: "run.attached" | "run.reset" | "run.caught_up" }>;

  function onRunFrame(frame: RunFrame, now: number): void {
    const cursor = runs.get(frame.payload.run_id);
    if (frame.type === "run.attached") {
      const attached = frame.payload;
      if (!cursor || cursor.attachId !== attached.command_id) {
        strayId = attached.command_id;
        return;
      }
      if (!cursor.attached) cursor.foreign = (cursor.epoch ?? attached.epoch) !== attached.epoch;
      cursor.attached = cursor.wasAttached = true;
      cursor.status = attached.status;
      cursor.head = attached.head_seq;
      cursor.caughtUp = false;
      cursor.epoch ??= attached.epoch;
      deliver(cursor.runId, { kind: "attached", attached });
      return;
    }
    if (!cursor?.attached) return;
    if (frame.type === "run.reset") {
      const reset = frame.payload;
      if (reset.reason === "gone") {
        return lose(cursor, new MidstreamError("not_found", "the server keeps this run no longer"));
      }
      cursor.replay = "full";
      cursor.caughtUp = cursor.foreign = false;
      const seq = reset.snapshot_seq;
      if (seq === undefined || !Number.isSafeInteger(seq)) return drop(BROKEN, "a reset without a snapshot", now);
      cursor.head = seq;
      // Nothing new in it: said twice, or for a start of a run that is followed already. The events after it follow.
      if (reset.epoch === cursor.epoch && seq <= cursor.seq && reset.reason !== "ahead") return;
      cursor.epoch = reset.epoch;
      cursor.seq = seq;
      cursor.gaps = 0;
      cursor.status = reset.snapshot?.status ?? cursor.status;
      deliver(cursor.runId, { kind: "reset", reset });
    } else {
      if (cursor.foreign || frame.payload.seq > cursor.seq) return onGap(cursor, now);
      onCaughtUp(cursor);
    }
  }

  return {
    actions,
    get status() {
      return status;
    },
    get server() {
      return server;
    },

    // -- what the application wants

    /** Sends it now or as soon as possible; its receipt comes as `answer`. Throws TypeError if it cannot be JSON. */
    command(id: string, type: Type, runId: string | undefined, payload: object, tools?: readonly ClientTool[]): void {
      waiting.push({ ...outgoing(type, id, runId, payload, false), tools });
      flush();
    },

    /** Takes a command back that nobody waits for any more, unless it is on its way. */
    forget(id: string): void {
      const others = (commands: Outgoing[]) => commands.filter((command) => command.id !== id);
      waiting = others(waiting);
      nextConnection = others(nextConnection);
    },

    /** Follows a run, on this connection and every later one; one that is followed is read again from `sinceSeq`. */
    attach(runId: string, request: AttachRequest): void {
      let cursor = runs.get(runId);
      const { sinceSeq = 0 } = request;
      if (!cursor) {
        cursor = follow(runId, request);
      } else if (sinceSeq < cursor.seq) {
        cursor.seq = sinceSeq;
        cursor.replay = request.replay ?? "full";
      } else {
        // What is wanted comes anyhow.
        return;
      }
      if (status === "ready") sendOwn(attachOf(cursor));
    },

    detach(runId: string): void {
      if (runs.delete(runId)) sendOwn(outgoing("run.detach", newId("cmd"), runId, {}, true));
    },

    /** Hosts these tools of the run from here on, also after a reconnect. */
    offer(runId: string, tools: readonly ClientTool[]): void {
      const cursor = runs.get(runId);
      if (!cursor) return;
      const command = outgoing("tools.offer", newId("cmd"), runId, { client_tools: tools }, true);
      const before = cursor.tools;
      cursor.tools = tools;
      // A refused offer must not come again with the next attach, which would be refused for it.
      const undo = () => {
        if (cursor.tools === tools) cursor.tools = before;
      };
      sendOwn({ ...command, undo, tools });
    },

    refresh(token: string): void {
      sendOwn(outgoing("auth.refresh", newId("cmd"), undefined, { token }, true));
    },

    /** What was accepted happens; what was not sent does not. */
    close(): void {
      if (status === "closed") return;
      fail(new Disconnected(CLOSE.done, "closed by this client", "closed"));
      act({ do: "drop", code: CLOSE.done });
    },

    // -- what the link says

    /** A link is being opened, or is open. */
    opening(now: number): void {
      heardAt = now;
    },

    received(text: string, now: number): void {
      if (status === "closed") return;
      heardAt = now;
      probedAt = undefined;
      const frame = readFrame(text);
      if (!frame) drop(BROKEN, "the server sent a frame that cannot be read", now);
      else if ("seq" in frame) onEvent(frame, now);
      else onFrame(frame, now);
    },

    /** The link has ended by itself (1006: without a close frame). */
    closed(code: number, reason: string, now: number): void {
      if (status === "closed") return;
      rested(now);
      if (code === CLOSE.badCredentials && renewable && !renewed) {
        renewed = true;
        comeBack("the token was not accepted: asking for another", 0);
      } else if (!mayRetry(code)) {
        fail(new Disconnected(code, reason, NAMES.get(code)));
      } else if (code === CLOSE.tokenExpired) {
        // At once after a connection that was good; else a token that is always too old would be asked for in a loop.
        comeBack("the token expired", failures === 0 ? 0 : undefined);
      } else {
        const told = toldIn(reason);
        toldMs = told ?? toldMs;
        comeBack(told === undefined ? reason || `close code ${code}` : "the server is going down");
      }
    },

    /** It fails on our side: nothing can be opened, or something cannot be read. */
    drop,

    // -- time

    /** The machine woke or the network changed: ask for a sign of life instead of waiting for the heartbeat. */
    probe(now: number): void {
      if (status !== "ready" || probedAt !== undefined) return;
      probedAt = now;
      act({ do: "send", text: JSON.stringify({ v: PROTOCOL_VERSION, type: "ping", payload: { t: now } }) });
    },

    /** When `tick` wants to be called. */
    wakeAt(): number | undefined {
      if (heardAt === undefined) return undefined;
      if (status !== "ready") return heardAt + READY_TIMEOUT_MS;
      const heartbeat = server?.heartbeat_s;
      const known = typeof heartbeat === "number" && heartbeat > 0 && heartbeat < MAX_HEARTBEAT_S;
      const silent = heardAt + DEAD_AFTER_HEARTBEATS * 1000 * (known ? heartbeat : DEFAULT_HEARTBEAT_S);
      return probedAt === undefined ? silent : Math.min(silent, probedAt + PROBE_TIMEOUT_MS);
    },

    tick(now: number): void {
      const due = this.wakeAt();
      if (due !== undefined && now >= due) drop(LOST, "the server fell silent", now);
    },
  };
}

/** A timer of a browser holds 24 days; a heartbeat so far apart is none. */
const MAX_HEARTBEAT_S = 86_400;
