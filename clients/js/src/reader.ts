/**
 * One iterator's place in a run's log. It is fed as events arrive, up to a bound; one that falls behind is fed no more,
 * and reads on from its place in the server's log when it has emptied what it holds. So nothing is unbounded and
 * nothing is lost.
 */

import { place, type Replay } from "./cursor.js";
import { MidstreamError } from "./errors.js";
import type { RunEvent } from "./protocol.js";

/** Events kept for a slow iterator. */
export const MAX_UNREAD = 4096;

export interface ReaderOptions {
  /** It begins after this event. */
  readonly sinceSeq: number;
  /** What was given before is here no more: it has to be read again. */
  readonly behind: boolean;
  readonly replay: Replay;
  /** Have the log delivered again after this event. Throws what makes that impossible. */
  readonly read: (sinceSeq: number, replay: Replay) => void;
  readonly left: () => void;
}

export type Reader = ReturnType<typeof createReader>;

export function createReader(options: ReaderOptions) {
  const { sinceSeq, read, left } = options;
  let { behind, replay } = options;
  /** The newest event in the queue or handed out. */
  let at = sinceSeq;
  /** The newest event that the application is done with: it asked for the next one. */
  let done = sinceSeq;
  /** The log was asked for, and nothing of it has come yet. */
  let asked = false;
  let fed = false;
  let queue: RunEvent[] = [];
  let claimed = false;
  let isLost = false;
  let end: { readonly error?: Error } | undefined;
  let wake = () => {};

  function stop(error?: Error): void {
    end ??= error ? { error } : {};
    wake();
  }

  function fallBehind(): void {
    behind = true;
    if (!claimed) {
      // Nobody may ever iterate: then it costs nothing.
      queue = [];
      at = sinceSeq;
    }
    wake();
  }

  function lost(why: string): void {
    isLost = true;
    const text = `the events after ${at} cannot be had (${why}): the view has what they add up to`;
    stop(new MidstreamError("reset", text));
  }

  async function* events(): AsyncGenerator<RunEvent, void, void> {
    try {
      for (;;) {
        for (let event = queue.shift(); event; event = queue.shift()) {
          yield event;
          done = event.seq;
        }
        if (end?.error) throw end.error;
        if (end) return;
        // Before the log is asked for: what it brings may be here before the asking returns.
        const woken = new Promise<void>((resolve) => (wake = resolve));
        if (behind) {
          behind = false;
          asked = true;
          fed = false;
          read(at, replay);
        }
        await woken;
      }
    } finally {
      left();
    }
  }

  return {
    get claimed() {
      return claimed;
    },
    get done() {
      return done;
    },
    /** Its place is none any more: what follows it cannot be had. */
    get isLost() {
      return isLost;
    },

    offer(event: RunEvent): void {
      if (behind || end) return;
      const where = place(at, event);
      if (where === "old") return;
      if (where === "gap" || queue.length >= MAX_UNREAD) return fallBehind();
      at = event.seq;
      asked = false;
      fed = true;
      queue.push(event);
      wake();
    },

    /** The log goes on after `seq`, in the same history or in another one. */
    reset(seq: number, reason: string, sameHistory: boolean): void {
      if (end || (at === 0 && seq === 0)) return;
      if (at > 0 && (!sameHistory || at > seq)) return lost(reason);
      if (at === seq) return;
      if (reason === "trimmed") return lost(reason);
      if (reason === "too_far" && !fed) {
        if (replay === "merged") return lost(reason);
        replay = "merged";
      }
      fallBehind();
    },

    /** Nothing more comes by itself; the log has `seq` events. */
    ended(seq: number): void {
      if (at >= seq) stop();
      else if (asked && !behind) lost("nothing came");
      else fallBehind();
    },

    stop,

    /** The iterator; once. */
    claim(): AsyncIterableIterator<RunEvent> {
      claimed = true;
      const generator = events();
      return {
        next: () => generator.next(),
        // A generator that waits would only return with the next event.
        return: () => {
          stop();
          return generator.return();
        },
        [Symbol.asyncIterator]() {
          return this;
        },
      };
    },
  };
}
