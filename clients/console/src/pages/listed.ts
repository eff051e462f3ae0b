/** A list that comes page by page from the server, and things that can be taken off it. */

import { useEffect, useState } from "preact/hooks";
import type { Client } from "@midstream/client";

import { refused } from "../steering/words.js";

export interface Part<Item> {
  readonly items: readonly Item[];
  readonly next_cursor?: string | undefined;
}

export interface Listed<Item> {
  /** Undefined until the first answer. */
  readonly items: readonly Item[] | undefined;
  readonly problem: string;
  readonly more: (() => void) | undefined;
  readonly again: () => void;
  /** Does `act`, then takes the item off the list; what cannot be done is said and changes nothing. */
  readonly take: (item: Item, act: () => Promise<void>) => Promise<boolean>;
  readonly clear: (act: () => Promise<void>) => Promise<boolean>;
}

/** `load` asks for the part from `cursor` on. Loaded anew when the connection is back, or when `of` changes. */
export function useListed<Item>(
  client: Client,
  of: string,
  idOf: (item: Item) => string,
  load: (cursor: string | undefined, signal: AbortSignal) => Promise<Part<Item>>,
): Listed<Item> {
  const [items, setItems] = useState<readonly Item[] | undefined>();
  const [next, setNext] = useState<string | undefined>();
  const [problem, setProblem] = useState("");
  const [round, setRound] = useState(0);
  const ready = client.connection.status === "ready";
  const fetchPart = async (cursor: string | undefined, signal: AbortSignal): Promise<void> => {
    try {
      const part = await load(cursor, signal);
      if (signal.aborted) return;
      setProblem("");
      setNext(part.next_cursor);
      setItems((before) => {
        if (cursor === undefined || before === undefined) return part.items;
        const known = new Set(before.map(idOf));
        return [...before, ...part.items.filter((each) => !known.has(idOf(each)))];
      });
    } catch (error) {
      if (!signal.aborted) setProblem(refused(error));
    }
  };
  useEffect(() => {
    const ends = new AbortController();
    void fetchPart(undefined, ends.signal);
    return () => ends.abort();
  }, [client, of, ready, round]);
  const attempt = async (act: () => Promise<void>): Promise<boolean> => {
    try {
      await act();
      setProblem("");
      return true;
    } catch (error) {
      // What is gone already is what was wanted.
      if ((error as { code?: unknown }).code === "not_found") return true;
      setProblem(refused(error));
      return false;
    }
  };
  return {
    items,
    problem,
    more: next === undefined ? undefined : () => void fetchPart(next, new AbortController().signal),
    again: () => setRound((before) => before + 1),
    async take(item, act) {
      const done = await attempt(act);
      if (done) setItems((before) => before?.filter((each) => idOf(each) !== idOf(item)));
      return done;
    },
    async clear(act) {
      const done = await attempt(act);
      if (done) setRound((before) => before + 1);
      return done;
    },
  };
}
