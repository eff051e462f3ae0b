import type { Run, View } from "@midstream/client";

/** Who wants a call: the agent, and what it was doing. Empty where the view does not say. */
export interface AskedBy {
  readonly agent: string;
  readonly step: string;
}

export function askedBy(view: View, callId: string): AskedBy {
  const call = view.calls.find((each) => each.tool_call_id === callId);
  const message = view.messages.find((each) => each.message_id === call?.message_id);
  const step = view.steps.find((each) => each.step_id === message?.step_id);
  return { agent: message?.agent ?? step?.agent ?? view.agent, step: step?.kind === "turn" ? "" : (step?.title ?? "") };
}

/** What a run is called: its thread's title, else the beginning of what was asked, else its id. */
export function runName(run: Run | undefined, runId: string): string {
  const view = run?.view;
  return view?.title ?? view?.messages.find((each) => each.role === "user")?.text ?? runId;
}
