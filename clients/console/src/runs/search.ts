/** Which of the listed runs a person means. */

import type { RunSummary } from "@midstream/client";

const NO_INPUTS: ReadonlyMap<string, string> = new Map();

const wordsOf = (run: RunSummary, input: string | undefined): string =>
  [run.title, input, run.agent, run.run_id, run.thread_id, run.status, run.status_text, run.failure?.text, textOf(run.result)]
    .filter((part) => part !== undefined)
    .join("\n")
    .toLowerCase();

const textOf = (value: unknown): string | undefined =>
  value === undefined ? undefined : (typeof value === "string" ? value : JSON.stringify(value)).slice(0, 4000);

/** The runs in which every word of `query` stands somewhere: title, input where it is known, agent, id, status, result. */
export const matching = (runs: readonly RunSummary[], query: string, inputs = NO_INPUTS): readonly RunSummary[] => {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return runs;
  return runs.filter((run) => {
    const text = wordsOf(run, inputs.get(run.run_id));
    return words.every((word) => text.includes(word));
  });
};

/** `fresh` as a page of the newest runs put before what was loaded of older ones; no run twice, order kept. */
export const merged = (fresh: readonly RunSummary[], loaded: readonly RunSummary[]): readonly RunSummary[] => {
  const ids = new Set(fresh.map((run) => run.run_id));
  return [...fresh, ...loaded.filter((run) => !ids.has(run.run_id))];
};
