import type { ToolHandler } from "@midstream/client";
import { type FormEvent, useSyncExternalStore } from "react";

interface Question {
  readonly text: string;
  readonly answer: (color: string) => void;
}

const FIRST = "#0b7285";

/** By run. The handler lives outside of React: a call may come before a component is there to ask. */
const questions = new Map<string, Question>();
const colors = new Map<string, string>();
const listeners = new Set<() => void>();

function put<Value>(map: Map<string, Value>, runId: string, value: Value | undefined) {
  if (value === undefined) map.delete(runId);
  else map.set(runId, value);
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

function useEntry<Value>(map: Map<string, Value>, runId: string): Value | undefined {
  return useSyncExternalStore(subscribe, () => map.get(runId));
}

/** The tool `pick_color`, which runs here: it asks whoever sits before this page. */
export const pickColor: ToolHandler = ({ question }: { question: string }, { runId, signal }) =>
  new Promise((resolve, reject) => {
    const answer = (color: string) => {
      put(questions, runId, undefined);
      put(colors, runId, color);
      resolve({ color });
    };
    // Nobody waits any more: the run was stopped, or it took too long.
    signal.addEventListener("abort", () => {
      put(questions, runId, undefined);
      reject(signal.reason);
    });
    put(questions, runId, { text: question, answer });
  });

/** The color that was chosen for this run's poster. */
export function useColor(runId: string | undefined): string {
  return useEntry(colors, runId ?? "") ?? FIRST;
}

export function ColorForm({ runId }: { runId: string }) {
  const question = useEntry(questions, runId);
  if (!question) return null;

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    question?.answer(String(new FormData(event.currentTarget).get("color")));
  }

  return (
    <form className="ask" onSubmit={submit}>
      <label>
        {question.text} <input name="color" type="color" defaultValue={FIRST} />
      </label>
      <button>Use this colour</button>
    </form>
  );
}
