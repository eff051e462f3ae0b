/** The time as hooks: a count-down, and a short wait before an action that must not be taken by accident. */

import { useEffect, useState } from "preact/hooks";

/** Milliseconds since the epoch, told anew every `everyMs`. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

/**
 * False for the first `ms` after `what` changed. A click that was meant for what stood there before, or a key that was
 * on its way, then finds nothing to press.
 */
export function useSettled(what: string, ms: number): boolean {
  const [settled, setSettled] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setSettled(what), ms);
    return () => clearTimeout(timer);
  }, [what, ms]);
  return settled === what;
}
