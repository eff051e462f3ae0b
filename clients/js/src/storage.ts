/** What outlives a page: how far its iterators came, and the id of the tab. Storage that throws keeps nothing. */

import type { Environment, StorageLike } from "./environment.js";

/** Runs whose place is kept; the ones used longest ago are forgotten. */
export const MAX_KEPT = 64;
/** A page that is reloaded frees its id within this time; a tab that is a copy never does. */
const CLAIM_TIMEOUT_MS = 300;
const CLIENT_ID_KEY = "midstream:client_id";

type Place = readonly [seq: number, epoch: string];

export interface Places {
  get(runId: string): { readonly sinceSeq: number; readonly epoch: string } | undefined;
  put(places: ReadonlyMap<string, Place>): void;
}

/** The cursors of the runs of one server, under one key: so their number is bounded. */
export function placesIn(storage: StorageLike | null | undefined, server: URL): Places {
  const key = `midstream:cursors:${server.href}`;
  const load = (): Map<string, Place> => {
    try {
      const entries: unknown = JSON.parse(storage?.getItem(key) ?? "[]");
      return new Map(Array.isArray(entries) ? entries.filter(isEntry) : []);
    } catch {
      return new Map();
    }
  };
  return {
    get(runId) {
      const [sinceSeq, epoch] = load().get(runId) ?? [0, ""];
      return sinceSeq > 0 ? { sinceSeq, epoch } : undefined;
    },
    put(places) {
      if (!storage || places.size === 0) return;
      // Read again each time: another tab may share the storage.
      const all = load();
      for (const [runId, place] of places) {
        all.delete(runId);
        all.set(runId, place);
      }
      try {
        storage.setItem(key, JSON.stringify([...all].slice(-MAX_KEPT)));
      } catch {
        // Full, or not allowed: a reloaded page begins anew.
      }
    },
  };
}

function isEntry(entry: unknown): entry is [string, Place] {
  if (!Array.isArray(entry) || typeof entry[0] !== "string" || !Array.isArray(entry[1])) return false;
  const [seq, epoch] = entry[1] as unknown[];
  return Number.isSafeInteger(seq) && typeof epoch === "string";
}

export interface ClaimedId {
  readonly id: string;
  /** The id that is nobody else's. */
  readonly settled?: Promise<string>;
  /** Lets another client have it. */
  readonly release: () => void;
}

/** The id of this tab: kept over reloads, and another one in a copied tab, which begins with a copy of the storage. */
export function claimClientId(newId: Environment["newId"]): ClaimedId {
  const released = new AbortController();
  const release = () => released.abort();
  try {
    const { sessionStorage: storage, navigator } = globalThis as Partial<typeof globalThis>;
    if (!storage) return { id: newId("client"), release };
    const kept = storage.getItem(CLIENT_ID_KEY);
    const id = kept && /^[A-Za-z0-9_-]{1,64}$/.test(kept) ? kept : newId("client");
    storage.setItem(CLIENT_ID_KEY, id);
    const locks = navigator?.locks;
    if (!locks) return { id, release };
    const settled = hold(locks, id, released.signal).catch(() => {
      const own = newId("client");
      storage.setItem(CLIENT_ID_KEY, own);
      return hold(locks, own, released.signal);
    });
    return { id, settled: settled.catch(() => newId("client")), release };
  } catch {
    // No storage for this page.
    return { id: newId("client"), release };
  }
}

/** Holds the name until it is released, or as long as the page lives. */
function hold(locks: LockManager, id: string, released: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const held = () => {
      resolve(id);
      return new Promise<void>((free) => {
        if (released.aborted) free();
        else released.addEventListener("abort", () => free());
      });
    };
    const signal = AbortSignal.timeout(CLAIM_TIMEOUT_MS);
    locks.request(`midstream:${id}`, { signal }, held).catch(reject);
  });
}
