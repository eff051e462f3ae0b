/** Which of the listed runs a person means. */

import type { RunSummary } from "@midstream/client";

/** From so many characters on a word may be a part of an id: fewer stand in most of them by chance. */
const ID_PART = 6;

const idsOf = (run: RunSummary): string => `${run.run_id}\n${run.thread_id}`.toLowerCase();

const wordsOf = (run: RunSummary): string =>
  [run.title, run.input, run.agent, run.status, run.status_text, run.failure?.text, textOf(run.result)]
    .filter((part) => part !== undefined)
    .join("\n")
    .toLowerCase();

const textOf = (value: unknown): string | undefined =>
  value === undefined ? undefined : (typeof value === "string" ? value : JSON.stringify(value)).slice(0, 4000);

/** The runs in which every word of `query` stands somewhere: title, input, agent, id, status, result. */
export const matching = (runs: readonly RunSummary[], query: string): readonly RunSummary[] => {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return runs;
  return runs.filter((run) => {
    const text = wordsOf(run);
    const ids = idsOf(run);
    return words.every((word) => text.includes(word) || (word.length >= ID_PART && ids.includes(word)));
  });
};

/** `fresh` as a page of the newest runs put before what was loaded of older ones; no run twice, order kept. */
export const merged = (fresh: readonly RunSummary[], loaded: readonly RunSummary[]): readonly RunSummary[] => {
  const ids = new Set(fresh.map((run) => run.run_id));
  return [...fresh, ...loaded.filter((run) => !ids.has(run.run_id))];
};
