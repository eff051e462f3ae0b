/** All that the client takes from the place it runs in. Each part can be given to `connect`; tests give all. */

/** The part of the WebSocket interface that is used: a browser's, `ws`'s, Deno's or Bun's. */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  /** `ws` has it: the end without a closing handshake. */
  terminate?(): void;
}

export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike;

/** `sessionStorage`, `localStorage`, or anything alike. It may throw: then nothing is kept. */
export interface StorageLike {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Where the events of a page's life come from. */
export interface Listenable {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
}

export interface Environment {
  /** Undefined where there is none (Node 20): then HTTP alone. */
  readonly WebSocket: WebSocketConstructor | undefined;
  readonly fetch: typeof globalThis.fetch | undefined;
  /** Milliseconds since 1970, of a clock that goes on while the machine sleeps. */
  readonly now: () => number;
  /** Calls back after so many milliseconds; what it returns takes that back. */
  readonly after: (ms: number, callback: () => void) => () => void;
  /** Calls back before the next picture is drawn, or soon where none is. */
  readonly frame: (callback: () => void) => void;
  /** In [0, 1). */
  readonly random: () => number;
  /** A new id, `<kind>_<random>`. */
  readonly newId: (kind: string) => string;
  /** Told of errors of the application's own listeners, and of what the server did not understand. */
  readonly report: (error: unknown) => void;
  /** Source of `online`, `offline`, `pageshow` and `pagehide`. */
  readonly window: Listenable | undefined;
  /** Source of `visibilitychange`. */
  readonly document: (Listenable & { readonly visibilityState?: string }) | undefined;
}

/** One picture at 60 Hz: where there are no animation frames. */
const FRAME_MS = 16;
/** A page that is hidden after it asked for an animation frame gets none: it is told after this time all the same. */
const LATE_FRAME_MS = 100;
const ID_BYTES = 12;

/** What is given, and for the rest what the place itself has. */
export function environmentOf(given: Partial<Environment>): Environment {
  const { document, window, requestAnimationFrame } = globalThis as Partial<typeof globalThis>;
  const after: Environment["after"] =
    given.after ??
    ((ms, callback) => {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    });
  const frame: Environment["frame"] = (callback) => {
    if (!requestAnimationFrame || document?.visibilityState === "hidden") return void after(FRAME_MS, callback);
    let cancel = () => {};
    const once = () => {
      cancel();
      cancel = () => {};
      callback();
    };
    const drawn = requestAnimationFrame(once);
    const late = after(LATE_FRAME_MS, once);
    cancel = () => {
      cancelAnimationFrame(drawn);
      late();
    };
  };
  return {
    WebSocket: "WebSocket" in given ? given.WebSocket : (globalThis.WebSocket as WebSocketConstructor | undefined),
    // A browser's fetch must be called as a function of the window.
    fetch: "fetch" in given ? given.fetch : globalThis.fetch && ((input, init) => globalThis.fetch(input, init)),
    now: given.now ?? Date.now,
    after,
    frame: given.frame ?? frame,
    random: given.random ?? Math.random,
    newId: given.newId ?? newId,
    report: given.report ?? ((error) => console.error(error)),
    window: "window" in given ? given.window : window,
    document: "document" in given ? given.document : document,
  };
}

/** Random by the platform, also on pages without a secure context. */
function newId(kind: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(ID_BYTES));
  return `${kind}_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
