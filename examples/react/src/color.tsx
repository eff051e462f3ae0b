import type { ToolHandler, View } from "@midstream/client";
import { type FormEvent, useSyncExternalStore } from "react";

interface Question {
  readonly text: string;
  readonly answer: (color: string) => void;
}

const FIRST = "#0b7285";

/** By run. The handler lives outside of React: a call may come before a component is there to ask. */
const questions = new Map<string, Question>();
const listeners = new Set<() => void>();

function put(runId: string, question: Question | undefined) {
  if (question) questions.set(runId, question);
  else questions.delete(runId);
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** The tool `pick_color`, which runs here: it asks whoever sits before this page. */
export const pickColor: ToolHandler = ({ question }: { question: string }, { runId, signal }) =>
  new Promise((resolve, reject) => {
    const answer = (color: string) => {
      put(runId, undefined);
      resolve({ color });
    };
    // Nobody waits any more: the run was stopped, or it took too long.
    signal.addEventListener("abort", () => {
      put(runId, undefined);
      reject(signal.reason);
    });
    put(runId, { text: question, answer });
  });

/** The colour that was chosen last. The run's log has it, so every page that shows the run does. */
export function colorOf(view: View | undefined): string {
  const call = view?.calls.findLast(({ tool, state }) => tool === "pick_color" && state === "completed");
  return /#[0-9a-f]{6}/.exec(call?.preview ?? "")?.[0] ?? FIRST;
}

export function ColorForm({ runId }: { runId: string }) {
  const question = useSyncExternalStore(subscribe, () => questions.get(runId));
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
