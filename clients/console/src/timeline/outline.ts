/** The places of a timeline that a reader wants to jump to. */

import { safeInline } from "../text/safe.js";
import type { Entry } from "./order.js";

export interface Landmark {
  readonly key: string;
  readonly text: string;
}

/** Landmarks shown at most: more than this is a second timeline. The first and the newest ones are kept. */
const MAX_LANDMARKS = 40;

const landmarkOf = (entry: Entry, first: boolean): string | undefined => {
  switch (entry.kind) {
    case "stage":
      return safeInline(entry.step.title, 80);
    case "approval":
      return `${entry.resolved === undefined ? "Waiting" : entry.resolved.decision === "approved" ? "Approved" : "Not approved"}: ${safeInline(entry.approval.label, 80)}`;
    case "question":
      return `Question: ${safeInline(entry.question.question, 80)}`;
    case "message":
      if (entry.correctionId !== undefined) return `Correction: ${safeInline(entry.message.text, 80)}`;
      return first && entry.message.role === "user" ? "Input" : undefined;
    case "call":
      return entry.call.state === "failed" ? `Failed: ${safeInline(entry.call.label || entry.call.tool, 80)}` : undefined;
    case "note":
      return entry.note.type === "plan.created" ? "Plan" : undefined;
    case "end":
      return "End";
    default:
      return undefined;
  }
};

/** What to jump to: input, plan, stages, approvals, questions, applied corrections, failed calls, the end. */
export const landmarksOf = (entries: readonly Entry[]): readonly Landmark[] => {
  const all: Landmark[] = [];
  for (const [index, entry] of entries.entries()) {
    const text = landmarkOf(entry, index < 3);
    if (text !== undefined) all.push({ key: entry.key, text });
  }
  if (all.length <= MAX_LANDMARKS) return all;
  return [...all.slice(0, 5), ...all.slice(5 - MAX_LANDMARKS)];
};
