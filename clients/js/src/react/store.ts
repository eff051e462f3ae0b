/** Stores, and what a component selects of one. */

import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";

/** What a component reads. `get` returns the same object until something in it changed. */
export interface Store<State> {
  get(): State;
  /** While a server renders, and for the first drawing of what it sent. */
  initial(): State;
  subscribe(listener: () => void): () => void;
}

/** Pure: it may be called any number of times. */
export type Select<State, Value> = (state: State) => Value;
/** Whether two selected values count as the same; then the component is not drawn again. */
export type IsEqual<Value> = (before: Value, now: Value) => boolean;

/** `select` of the store's state, the very object of before as long as it `isEqual`. Without it: the state. */
export function useStore<State>(store: Store<State>): State;
export function useStore<State, Value>(
  store: Store<State>,
  select: Select<State, Value> | undefined,
  isEqual?: IsEqual<Value>,
): Value;
export function useStore<State, Value>(
  store: Store<State>,
  select?: Select<State, Value>,
  isEqual: IsEqual<Value> = isShallowEqual,
): Value {
  const drawn = useRef<{ readonly value: Value } | undefined>(undefined);
  const [get, initial] = useMemo(() => {
    // A selector that makes its value anew must not do so for a state that was asked about already: React would draw
    // forever. `drawn` carries the value over to the next selector, as most are made anew with each drawing.
    let known: { readonly state: State; readonly value: Value } | undefined;
    const selected = (state: State): Value => {
      if (known && Object.is(known.state, state)) return known.value;
      const now = select ? select(state) : (state as unknown as Value);
      const before = known ?? drawn.current;
      known = { state, value: before && isEqual(before.value, now) ? before.value : now };
      return known.value;
    };
    return [() => selected(store.get()), () => selected(store.initial())];
  }, [store, select, isEqual]);
  const value = useSyncExternalStore(store.subscribe, get, initial);
  useEffect(() => {
    drawn.current = { value };
  }, [value]);
  return value;
}

/** Items, or fields, that are the same by identity. Other things are equal if they are the same. */
export function isShallowEqual(before: unknown, now: unknown): boolean {
  if (Object.is(before, now)) return true;
  if (!isPlain(before) || !isPlain(now) || Array.isArray(before) !== Array.isArray(now)) return false;
  const entries = Object.entries(before);
  return (
    entries.length === Object.keys(now).length &&
    entries.every(([key, value]) => Object.hasOwn(now, key) && Object.is(value, now[key]))
  );
}

/** A Map or a Date has no fields to compare by. */
function isPlain(value: unknown): value is Record<string, unknown> {
  return Array.isArray(value) || (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype);
}
