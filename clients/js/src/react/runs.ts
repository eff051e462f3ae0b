/** Runs as stores. Nothing here knows React. */

import type { Approval, Client, Question, Run, View } from "../index.js";
import { isShallowEqual, type Store } from "./store.js";

interface Followed {
  /** Open ones, oldest first. */
  readonly approvals: readonly Approval[];
  readonly questions: readonly Question[];
  /** What this principal may do now, of `correct`, `cancel`, `approve`, `input`. */
  readonly can: readonly string[];
  /** The server sends this run's events now. False while the connection is away. */
  readonly attached: boolean;
  /** What had happened before has come; from here it is live. */
  readonly caughtUp: boolean;
  readonly ended: boolean;
}

/**
 * A run as a component sees it. `idle`: no run was named. `loading`: nothing of it has come yet. `error`: nothing more
 * comes (`not_found`, `forbidden`, the client was closed, …); `view` is what had come before.
 */
export type RunState = Followed &
  (
    | { readonly status: "ready"; readonly run: Run; readonly view: View; readonly error: undefined }
    | {
        readonly status: "idle" | "loading";
        readonly run: Run | undefined;
        readonly view: View | undefined;
        readonly error: undefined;
      }
    | { readonly status: "error"; readonly run: Run | undefined; readonly view: View | undefined; readonly error: Error }
  );

export const NONE: readonly never[] = [];

const NOTHING = {
  run: undefined,
  view: undefined,
  error: undefined,
  approvals: NONE,
  questions: NONE,
  can: NONE,
  attached: false,
  caughtUp: false,
  ended: false,
} as const;
const IDLE: RunState = { status: "idle", ...NOTHING };
const LOADING: RunState = { status: "loading", ...NOTHING };

/** A run that components follow by its id: attached with the first of them, left a tick after the last. */
interface Hold {
  state(): RunState;
  join(listener: () => void): () => void;
}

const holds = new WeakMap<Client, Map<string, Hold>>();
const states = new WeakMap<Run, RunState>();

export const idleStore: Store<RunState> = { get: () => IDLE, initial: () => IDLE, subscribe: () => () => {} };

/** The store of a run that the application follows itself: it is neither attached nor left. */
export function storeOf(run: Run): Store<RunState> {
  const get = () => stateOf(run);
  return { get, initial: get, subscribe: (listener) => run.subscribe(listener) };
}

/** The store of the run `id`, which is followed as long as somebody listens. */
export function storeOfId(client: Client, id: string): Store<RunState> {
  return {
    get() {
      const run = client.run(id);
      return holds.get(client)?.get(id)?.state() ?? (run ? stateOf(run) : LOADING);
    },
    initial: () => LOADING,
    subscribe(listener) {
      const all = holds.get(client) ?? new Map<string, Hold>();
      holds.set(client, all);
      const found = all.get(id) ?? createHold(client, id, () => all.delete(id));
      all.set(id, found);
      return found.join(listener);
    },
  };
}

function createHold(client: Client, id: string, left: () => void): Hold {
  const abort = new AbortController();
  const listeners = new Set<() => void>();
  let run = client.run(id);
  // What somebody else follows is theirs to leave.
  const owned = !run;
  let failed: RunState | undefined;
  let unsubscribe = () => {};
  let leaving = false;

  function tell(): void {
    for (const listener of [...listeners]) listener();
  }

  function follow(its: Run): void {
    run = its;
    unsubscribe = run.subscribe(tell);
    tell();
  }

  function leave(): void {
    leaving = false;
    if (listeners.size > 0) return;
    left();
    unsubscribe();
    abort.abort();
    if (owned) run?.detach();
  }

  if (run) {
    follow(run);
  } else {
    const { signal } = abort;
    // Joined deltas make the same view of a long log sooner, and leave the events to whoever iterates.
    client.attach(id, { replay: "merged", signal }).then(
      (its) => (signal.aborted ? its.detach() : follow(its)),
      (error: unknown) => {
        failed = { ...LOADING, status: "error", error: error instanceof Error ? error : new Error(String(error)) };
        tell();
      },
    );
  }

  return {
    state: () => failed ?? (run ? stateOf(run) : LOADING),

    join(listener) {
      // Its own function: the same listener may join twice.
      const own = () => listener();
      listeners.add(own);
      return () => {
        listeners.delete(own);
        if (listeners.size > 0 || leaving) return;
        // Not at once: strict mode, and a page that shows the same run next, leave and come back within a tick.
        leaving = true;
        setTimeout(leave, 0);
      };
    },
  };
}

/** The same object until something in it changed, for whoever asks. */
function stateOf(run: Run): RunState {
  const { view, error, approvals, questions, can, attached, caughtUp, ended } = run;
  const now = { run, view, approvals, questions, can, attached, caughtUp, ended };
  const some = attached || ended || view.cursor.seq > 0;
  const state: RunState =
    error ? { ...now, status: "error", error }
    : some ? { ...now, status: "ready", error }
    : { ...now, status: "loading", error };
  const before = states.get(run);
  if (before && isShallowEqual(before, state)) return before;
  states.set(run, state);
  return state;
}
