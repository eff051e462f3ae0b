/** What a server says, as text, read into what the core can trust. */

import type { Frame, RunEvent } from "./protocol.js";

/** A frame whose envelope can be trusted: a type, an object as payload, and of an event its run and its place. */
export function readFrame(text: string): RunEvent | Frame | undefined {
  let frame: any;
  try {
    frame = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof frame?.type !== "string" || typeof frame.payload !== "object" || frame.payload === null) return undefined;
  if (!("seq" in frame)) return frame;
  const { seq, from, run_id } = frame;
  if (!Number.isSafeInteger(seq) || seq < 1 || typeof run_id !== "string") return undefined;
  return from === undefined || (Number.isSafeInteger(from) && from <= seq) ? frame : undefined;
}
