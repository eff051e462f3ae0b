/** Recorded logs of real runs, as events. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import type { RunEvent, View } from "@midstream/client";

import { emptyView, fold } from "../../js/src/view.js";

const folder = join(import.meta.dirname, "../../../tests/golden/transcripts");

export const eventOf = (seq: number, type: string, payload: object, step = ""): RunEvent =>
  ({
    v: 1,
    seq,
    run_id: "run_1",
    type,
    ts: "2026-06-12T12:00:00.000Z",
    payload,
    ...(step === "" ? {} : { step_id: step }),
  }) as RunEvent;

export const viewOf = (events: readonly RunEvent[], from: View = emptyView("run_1")): View =>
  events.reduce((view, event) => fold(view, event), from);

function logOf(text: string): RunEvent[] {
  // A recording of a resumption has two logs: the first is taken.
  const lines = text.split(/\n(?=\["run.started")/)[0]!.split("\n").filter(Boolean);
  return lines.map((line, index) => {
    const [type, step, payload] = JSON.parse(line) as [string, string, object];
    return eventOf(index + 1, type, payload, step);
  });
}

export const recordings: ReadonlyMap<string, readonly RunEvent[]> = new Map(
  readdirSync(folder)
    .filter((name) => name.endsWith(".jsonl"))
    .map((name) => [name.replace(".jsonl", ""), logOf(readFileSync(join(folder, name), "utf8"))]),
);
