import type { MessageView, Run, Todo } from "@midstream/client";
import { type RunState, useObjects, useRun } from "@midstream/client/react";
import { type FormEvent, memo, useState } from "react";
import { ColorForm } from "./color";
import { RENDERERS, Unknown } from "./objects";

export function RunPage({ runId }: { runId: string }) {
  const state = useRun(runId);
  const { run, view, error } = state;
  if (!view) return <p role={error && "alert"}>{error ? error.message : "Loading"}</p>;
  return (
    <>
      <h2>{view.title ?? "A new poster"}</h2>
      <ol className="plan" aria-label="Plan">
        {view.plan.map((todo) => <PlanLine key={todo.id} todo={todo} />)}
      </ol>
      {view.messages.map((message) => <Message key={message.message_id} runId={runId} message={message} />)}
      <ColorForm runId={runId} />
      <p role="status">{view.failure?.text ?? error?.message ?? view.status_text ?? view.status}</p>
      {run && !state.ended && <Steering run={run} state={state} />}
    </>
  );
}

// What did not change keeps its identity in the view, so `memo` draws only the message that grows.
const Message = memo(({ runId, message }: { runId: string; message: MessageView }) => (
  <>
    {message.text && <p className={message.role}>{message.text}</p>}
    <Calls runId={runId} messageId={message.message_id} />
  </>
));
const PlanLine = memo(({ todo }: { todo: Todo }) => <li className={todo.status}>{todo.title}</li>);

/** The calls that a message made. It selects, so it is drawn again when one of these changes, not for each word. */
const Calls = memo(({ runId, messageId }: { runId: string; messageId: string }) => {
  const calls = useRun(runId, ({ view }) => view?.calls.filter((call) => call.message_id === messageId) ?? []);
  return calls.map(({ tool_call_id, label, state }) => (
    <div key={tool_call_id}>
      <p className="call">{`${label}: ${state.replace("_", " ")}`}</p>
      <Objects runId={runId} toolCallId={tool_call_id} />
    </div>
  ));
});

function Objects({ runId, toolCallId }: { runId: string; toolCallId: string }) {
  return useObjects(runId, RENDERERS, { toolCallId, fallback: Unknown });
}

function Steering({ run, state: { view, can } }: { run: Run; state: RunState }) {
  const [problem, setProblem] = useState<string>();

  /** Every command is answered by a receipt or a refusal, also after a drop in between. */
  async function sent(receipt: Promise<unknown>): Promise<boolean> {
    setProblem(undefined);
    try {
      await receipt;
      return true;
    } catch (error) {
      setProblem((error as Error).message);
      return false;
    }
  }

  async function correct(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = event.currentTarget;
    if (await sent(run.correct(String(new FormData(form).get("text"))))) form.reset();
  }

  return (
    <section aria-label="Steering">
      <ul>
        {view?.corrections.map(({ correction_id, text, state }) => (
          <li key={correction_id}>{`${text} (${state})`}</li>
        ))}
      </ul>
      <form onSubmit={correct}>
        <input name="text" aria-label="Correction" placeholder="Tell it something while it works" required />
        <button disabled={!can.includes("correct")}>Correct</button>
        <button type="button" disabled={!can.includes("cancel")} onClick={() => sent(run.cancel())}>Stop</button>
      </form>
      {problem && <p role="alert">{problem}</p>}
    </section>
  );
}
