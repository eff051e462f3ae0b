import { Refused, type AgentInfo, type RunSummary } from "@midstream/client";
import { useEffect, useRef, useState } from "preact/hooks";

import { client, connection } from "../connection/state.js";
import { runHref } from "../routes.js";
import { safeInline } from "../text/safe.js";
import { adopt, RunModel } from "./run_model.js";

/** What is typed survives a reload. */
const DRAFT = "midstream.start";

const draft = {
  read: (): string => {
    try {
      return sessionStorage.getItem(DRAFT) ?? "";
    } catch {
      return "";
    }
  },
  write: (text: string): void => {
    try {
      if (text === "") sessionStorage.removeItem(DRAFT);
      else sessionStorage.setItem(DRAFT, text);
    } catch {
      // Without storage, or too long for it: the text is in the field.
    }
  },
};

/** An id that is made here, so that the run can be shown from its first event on. */
const newRunId = (): string =>
  `run_${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

const BUSY = [
  ["queue", "Wait for it, then start"],
  ["correct", "Give it to the running one as a correction"],
  ["parallel", "Run beside it"],
  ["reject", "Refuse"],
] as const;

type IfBusy = (typeof BUSY)[number][0];

export interface StartFormProps {
  agents: readonly AgentInfo[];
  /** Recent runs, for the choice of a conversation to go on with. */
  recent: readonly RunSummary[];
  threadId: string | undefined;
}

export function StartForm({ agents, recent, threadId }: StartFormProps) {
  const [input, setInput] = useState(draft.read);
  const [agent, setAgent] = useState("");
  const [thread, setThread] = useState(threadId ?? "");
  const [ifBusy, setIfBusy] = useState<IfBusy>("queue");
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => setThread(threadId ?? ""), [threadId]);

  const change = (text: string): void => {
    setInput(text);
    draft.write(text);
  };
  const start = async (): Promise<void> => {
    if (sending || input.trim() === "") return field.current?.focus();
    setSending(true);
    setProblem("");
    const model = new RunModel(newRunId());
    try {
      const run = await client.value.start({
        input,
        runId: model.id,
        onUpdate: model.onUpdate,
        ...(agent === "" ? {} : { agent }),
        ...(thread === "" ? {} : { threadId: thread, ifBusy }),
      });
      if (run.id === model.id) adopt(client.value, model, run);
      change("");
      location.hash = runHref(run.id);
    } catch (error) {
      setProblem(error instanceof Refused ? error.message : `It could not be started: ${String(error)}`);
    } finally {
      setSending(false);
    }
  };
  const threads = new Map<string, string>();
  for (const run of recent) {
    if (!threads.has(run.thread_id)) threads.set(run.thread_id, safeInline(run.title ?? run.thread_id, 60));
  }
  if (thread !== "" && !threads.has(thread)) threads.set(thread, thread);
  const waiting = connection.value.status !== "ready";

  return (
    <form
      class="card start-form"
      aria-label="Start a run"
      onSubmit={(event) => {
        event.preventDefault();
        void start();
      }}
    >
      <label class="visually-hidden" for="start-input">
        What should the agent do?
      </label>
      <textarea
        id="start-input"
        ref={field}
        rows={3}
        placeholder="What should the agent do?"
        value={input}
        onInput={(event) => change(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            void start();
          }
        }}
      />
      <div class="row">
        {agents.length > 1 && (
          <div class="field">
            <label for="start-agent">Agent</label>
            <select id="start-agent" value={agent} onChange={(event) => setAgent(event.currentTarget.value)}>
              {agents.map((info, index) => (
                <option key={info.name} value={index === 0 ? "" : info.name}>
                  {safeInline(info.name, 60)}
                </option>
              ))}
            </select>
          </div>
        )}
        <div class="field">
          <label for="start-thread">Conversation</label>
          <select id="start-thread" value={thread} onChange={(event) => setThread(event.currentTarget.value)}>
            <option value="">New conversation</option>
            {[...threads].map(([id, title]) => (
              <option key={id} value={id}>
                {title}
              </option>
            ))}
          </select>
        </div>
        {thread !== "" && (
          <div class="field">
            <label for="start-busy">If it is busy</label>
            <select id="start-busy" value={ifBusy} onChange={(event) => setIfBusy(event.currentTarget.value as IfBusy)}>
              {BUSY.map(([value, words]) => (
                <option key={value} value={value}>
                  {words}
                </option>
              ))}
            </select>
          </div>
        )}
        <span class="grow" />
        <span class="small muted start-keys">
          <kbd>Ctrl</kbd>+<kbd>Enter</kbd>
        </span>
        <button type="submit" class="primary" disabled={sending}>
          {sending ? (waiting ? "Starts when connected" : "Starting") : "Start"}
        </button>
      </div>
      <p class="small muted agent-text">{agentText(agents, agent)}</p>
      <p class="problem" role="alert">
        {safeInline(problem, 600)}
      </p>
    </form>
  );
}

const agentText = (agents: readonly AgentInfo[], name: string): string =>
  safeInline((name === "" ? agents[0] : agents.find((info) => info.name === name))?.description ?? "", 300);
