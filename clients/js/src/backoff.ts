/**
 * How long to wait before the next connection. Pure.
 *
 * Full jitter: a random moment within the whole interval, so that the clients of a restarted server do not come back
 * in waves (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 */

export const FIRST_INTERVAL_MS = 250;
export const MAX_INTERVAL_MS = 20_000;
/** A connection that was ready this long was a good one: the next failure is a first failure again. */
export const STABLE_AFTER_MS = 10_000;

/**
 * Failures that count at most when the connection before brought something new: a line that is cut often is not a server
 * that is down, and whoever watches waits 2 s at most.
 */
export const FAILURES_AFTER_NEWS = 3;

/** Milliseconds to wait after so many `failures` before this one. `fraction` is random in [0, 1). */
export function backoff(failures: number, fraction: number): number {
  return fraction * Math.min(MAX_INTERVAL_MS, FIRST_INTERVAL_MS * 2 ** failures);
}

/** `reconnect_in_s` in a close reason, in milliseconds, if the server put it there. */
export function toldIn(reason: string): number | undefined {
  try {
    return seconds(JSON.parse(reason).reconnect_in_s);
  } catch {
    return undefined;
  }
}

/** What the server says in seconds, in milliseconds; undefined if it is no time that can be waited. */
export function seconds(value: unknown): number | undefined {
  return typeof value === "number" && value >= 0 && value <= MAX_TOLD_S ? value * 1000 : undefined;
}

/** A longer wait than an hour would look like a client that has given up. */
const MAX_TOLD_S = 3600;
