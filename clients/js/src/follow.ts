/** What a followed run is made of: the view at arrival, its listeners, iterators, approvals and tools. */

import type { Arrival } from "./actions.js";
import { type Approval, approvalOf, type Question, questionOf } from "./approvals.js";
import type { Replay } from "./cursor.js";
import type { Environment } from "./environment.js";
import { MidstreamError } from "./errors.js";
import type { ClientTool, Command, Receipt, RunAttached, RunEvent, RunReset, View } from "./protocol.js";
import { createReader, type Reader } from "./reader.js";
import type { Run, Update } from "./run.js";
import { createToolbox, type Tools } from "./tools.js";
import { emptyView, fold, readView } from "./view.js";

/** What a run needs of its client. */
export interface RunHost {
  readonly environment: Environment;
  readonly clientId: () => string;
  readonly localTime: (serverTime: string) => Date;
  readonly begun: Set<string>;
  readonly send: (type: Command["type"], runId: string, payload: object) => Promise<Receipt>;
  /** Have the log delivered again, after this event. Throws if the client is closed. */
  readonly read: (followed: Followed, sinceSeq: number, replay: Replay) => void;
  readonly offer: (runId: string, tools: readonly ClientTool[]) => void;
  readonly leave: (followed: Followed) => void;
  readonly broken: (reason: string) => void;
  /** Its place is another one, though nothing came. */
  readonly moved: (followed: Followed) => void;
  readonly changed: () => void;
}

export interface FollowOptions {
  /** Iterators begin after this event; undefined: with what follows the snapshot that was asked for. */
  readonly sinceSeq: number | undefined;
  readonly epoch: string | undefined;
  readonly replay: Replay;
  readonly tools: Tools;
  readonly clientTools?: readonly (ClientTool | string)[] | undefined;
}

/** A run and what its client does with it. */
export interface Followed {
  readonly run: Run;
  readonly tools: () => readonly ClientTool[];
  readonly attached: Promise<void>;
  put(arrival: Arrival): void;
  /** The connection is gone, for now. */
  disconnected(): void;
  end(error: Error | undefined): void;
  /** How far its iterators came, or else its view. */
  place(): readonly [seq: number, epoch: string];
}

export function follow(host: RunHost, id: string, options: FollowOptions): Followed {
  const { environment, localTime } = host;
  const listeners = new Set<() => void>();
  const taps = new Set<(update: Update) => void>();
  const readers = new Set<Reader>();
  const approvals = new Map<string, Approval>();
  const questions = new Map<string, Question>();
  let openApprovals: readonly Approval[] = [];
  let openQuestions: readonly Question[] = [];
  let view = emptyView(id);
  let first: Reader | undefined;
  let begun: number | undefined;
  /** How far the iterators came that are no more. */
  let reached: number | undefined;
  let epoch = options.epoch;
  let state: "waiting" | "attached" | "ended" | "left" = "waiting";
  let caughtUp = false;
  let can: readonly string[] = [];
  let error: Error | undefined;
  let dirty = false;
  let finish!: (view: View) => void;
  let giveUp!: (error: Error) => void;
  let onAttached!: () => void;
  let onRefused!: (error: Error) => void;

  const finished = new Promise<View>((resolve, reject) => ((finish = resolve), (giveUp = reject)));
  const attached = new Promise<void>((resolve, reject) => ((onAttached = resolve), (onRefused = reject)));
  // Who wants to know asks; who does not is not to be surprised.
  finished.catch(() => {});
  attached.catch(() => {});

  const command = (type: Command["type"], payload: object) => host.send(type, id, payload);
  const toolbox = createToolbox(
    {
      runId: id,
      clientId: host.clientId,
      begun: host.begun,
      offer: (tools) => host.offer(id, tools),
      send: (result) => command("tool.result", result),
    },
    options.tools,
    options.clientTools,
  );

  // -- telling

  function guarded<Args extends unknown[]>(call: (...args: Args) => void, ...args: Args): void {
    try {
      call(...args);
    } catch (thrown) {
      // One listener's defect is not to stop the others, nor the run.
      environment.report(thrown);
    }
  }

  function changed(): void {
    if (dirty) return;
    dirty = true;
    environment.frame(() => {
      dirty = false;
      for (const listener of listeners) guarded(listener);
    });
  }

  function tap(update: Update): void {
    for (const listener of taps) guarded(listener, update);
    changed();
  }

  /** Objects for what is open in `pending`: known ones are kept. */
  function open<Item>(known: Map<string, Item>, items: readonly (readonly [string, () => Item])[]): readonly Item[] {
    const kept = items.map(([key, make]): [string, Item] => [key, known.get(key) ?? make()]);
    known.clear();
    for (const [key, item] of kept) known.set(key, item);
    return kept.map(([, item]) => item);
  }

  function show(next: View): void {
    const { pending } = view;
    view = next;
    if (next.pending !== pending) {
      const asked = open(
        approvals,
        next.pending.flatMap((item) =>
          item.kind === "approval" ? [[item.approval_id, () => approvalOf(run, localTime, item)] as const] : [],
        ),
      );
      const inputs = open(
        questions,
        next.pending.flatMap((item) =>
          item.kind === "input" ? [[item.input_id, () => questionOf(run, localTime, item)] as const] : [],
        ),
      );
      if (!same(asked, openApprovals)) openApprovals = asked;
      if (!same(inputs, openQuestions)) openQuestions = inputs;
      host.changed();
    }
    // While the past is told, a call that waited then may be over now.
    if (caughtUp || state === "ended") toolbox.update(next.pending);
  }

  // -- what arrives

  /** Where iterators begin is known; what comes before there is one is kept for the first. */
  function begin(seq: number): void {
    if (begun !== undefined) return;
    begun = seq;
    first = newReader(false);
  }

  function onEvent(event: RunEvent): void {
    for (const reader of readers) reader.offer(event);
    const { seq } = view.cursor;
    if (event.seq <= seq) return;
    if ((event.from ?? event.seq) !== seq + 1) {
      // Joined events that begin before what the view has, read for an iterator that is behind it.
      return host.read(followed, seq, "full");
    }
    show(fold(view, event, epoch));
    tap({ kind: "event", event });
  }

  function onReset({ snapshot, snapshot_seq: seq = 0, epoch: now, reason }: RunReset): void {
    // The epoch of the cursor that was given counts too: iterators continue from it.
    const sameHistory = epoch === undefined || now === undefined || epoch === now;
    epoch = now ?? epoch;
    begin(seq);
    if (begun !== undefined && (!sameHistory || seq < begun)) {
      // A place in another history, or beyond the end of this one, is none.
      if (begun > 0) begun = seq;
      reached = undefined;
    }
    if (!sameHistory || seq > view.cursor.seq || reason === "ahead") {
      const next = readView(snapshot, sameHistory ? view : undefined);
      if (next?.run_id !== id) return host.broken("a snapshot that cannot be read");
      show(next);
      for (const reader of readers) reader.reset(seq, reason, sameHistory);
      tap({ kind: "reset", reason, view });
    } else {
      for (const reader of readers) reader.reset(seq, reason, true);
    }
    onAttached();
  }

  function onAttach(frame: RunAttached): void {
    if (state !== "ended") state = "attached";
    can = frame.can ?? [];
    epoch ??= frame.epoch;
    caughtUp &&= view.cursor.seq >= frame.head_seq;
    // A snapshot that was asked for is part of the answer.
    if (options.replay !== "snapshot") onAttached();
    tap({ kind: "attached" });
  }

  // -- iterators

  function newReader(behind: boolean): Reader {
    const reader: Reader = createReader({
      sinceSeq: begun ?? view.cursor.seq,
      behind,
      replay: options.replay === "merged" ? "merged" : "full",
      read(sinceSeq, replay) {
        host.read(followed, sinceSeq, replay);
      },
      left() {
        readers.delete(reader);
        if (!reader.isLost) reached = Math.max(reached ?? 0, reader.done);
        host.moved(followed);
      },
    });
    readers.add(reader);
    return reader;
  }

  const run: Run = {
    id,
    finished,
    get view() {
      return view;
    },
    get attached() {
      return state === "attached";
    },
    get caughtUp() {
      return caughtUp;
    },
    get ended() {
      return state === "ended";
    },
    get can() {
      return can;
    },
    get error() {
      return error;
    },
    get approvals() {
      return openApprovals;
    },
    get questions() {
      return openQuestions;
    },

    subscribe(listener) {
      // Its own function: the same listener may subscribe twice.
      const own = () => listener();
      listeners.add(own);
      return () => void listeners.delete(own);
    },

    onUpdate(listener) {
      const own = (update: Update) => listener(update);
      taps.add(own);
      if (view.cursor.seq > 0) guarded(own, { kind: "reset", reason: "joined", view });
      return () => void taps.delete(own);
    },

    [Symbol.asyncIterator]() {
      if (first && !first.claimed) return first.claim();
      const reader = newReader(view.cursor.seq > (begun ?? view.cursor.seq));
      if (state === "left") reader.stop(error);
      else if (state === "ended") reader.ended(view.cursor.seq);
      return reader.claim();
    },

    cancel: ({ mode, toolCallId, reason } = {}) => command("run.cancel", { mode, tool_call_id: toolCallId, reason }),
    correct: (text, { mode, stepId, replan, ifEnded } = {}) =>
      command("run.correct", { text, mode, step_id: stepId, replan, if_ended: ifEnded }),
    revoke: (correctionId) => command("correction.revoke", { correction_id: correctionId }),
    approve(approvalId, { args, argsDigest, remember } = {}) {
      const scope = typeof remember === "string" ? { scope: remember } : remember;
      return command("approval.respond", {
        approval_id: approvalId,
        decision: "approve",
        args,
        args_digest: argsDigest,
        remember: scope && { scope: scope.scope, expires_in_s: "expiresInS" in scope ? scope.expiresInS : undefined },
      });
    },
    deny: (approvalId, { reason } = {}) =>
      command("approval.respond", { approval_id: approvalId, decision: "deny", reason }),
    answer: (inputId, value) => command("input.respond", { input_id: inputId, answer: value }),
    registerTool: (tool, handler) => toolbox.register(tool, handler),

    detach() {
      if (state === "left") return;
      host.leave(followed);
      if (state === "ended") return;
      state = "left";
      const left = new MidstreamError("detached", `run ${id} is followed no longer`);
      for (const reader of readers) reader.stop();
      giveUp(left);
      onRefused(left);
      changed();
    },
  };

  const followed: Followed = {
    run,
    attached,
    tools: () => toolbox.list(),

    put(arrival) {
      if (state === "left") return;
      if (arrival.kind === "event") onEvent(arrival.event);
      else if (arrival.kind === "reset") onReset(arrival.reset);
      else if (arrival.kind === "attached") onAttach(arrival.attached);
      else {
        caughtUp = true;
        begin(view.cursor.seq);
        onAttached();
        toolbox.update(view.pending);
        tap(arrival);
      }
    },

    disconnected() {
      if (state !== "attached") return;
      state = "waiting";
      changed();
    },

    end(reason) {
      if (state === "left") return;
      if (reason) {
        for (const reader of readers) reader.stop(reason);
        if (state === "ended") return;
        state = "left";
        error = reason;
        giveUp(reason);
        onRefused(reason);
        toolbox.stop();
      } else {
        state = "ended";
        caughtUp = true;
        toolbox.update(view.pending);
        finish(view);
        onAttached();
        for (const reader of readers) reader.ended(view.cursor.seq);
      }
      changed();
    },

    place() {
      const reading = [...readers].filter(({ claimed, isLost }) => claimed && !isLost).map(({ done }) => done);
      const seq = reading.length > 0 ? Math.min(...reading) : (reached ?? view.cursor.seq);
      return [seq, epoch ?? ""];
    },
  };

  if (options.sinceSeq !== undefined) begin(options.sinceSeq);
  return followed;
}

function same(some: readonly unknown[], others: readonly unknown[]): boolean {
  return some.length === others.length && some.every((item, at) => item === others[at]);
}
