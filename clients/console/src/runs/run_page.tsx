import { MidstreamError, type View } from "@midstream/client";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { client, connection } from "../connection/state.js";
import { runHref, threadHref } from "../routes.js";
import { Steering } from "../steering/steering.js";
import { safeInline } from "../text/safe.js";
import { TimelineRun } from "../timeline/call.js";
import { isOver } from "../timeline/order.js";
import { landmarksOf } from "../timeline/outline.js";
import { Timeline, type TimelineHandle } from "../timeline/timeline.js";
import { Plan } from "./plan.js";
import { RawDrawer } from "./raw_drawer.js";
import { modelOf, type RunModel } from "./run_model.js";
import { RunStatusMark } from "./status.js";

/** One run: what it does and did, and what steers it. */
export function RunPage({ runId }: { runId: string }) {
  const model = useMemo(() => modelOf(client.value, runId), [client.value, runId]);
  useEffect(() => {
    const looked = (): void => {
      if (document.visibilityState === "visible") void model.check(client.value);
    };
    looked();
    document.addEventListener("visibilitychange", looked);
    addEventListener("focus", looked);
    addEventListener("online", looked);
    return () => {
      document.removeEventListener("visibilitychange", looked);
      removeEventListener("focus", looked);
      removeEventListener("online", looked);
    };
  }, [model]);
  switch (model.opening.value) {
    case "opening":
      return (
        <main class="page" id="main">
          <p class="empty" role="status">
            {connection.value.status === "ready" ? "Loading the run" : "Waiting for the connection"}
          </p>
        </main>
      );
    case "failed":
      return <Missing model={model} />;
    case "open":
      return <OpenRun model={model} key={runId} />;
  }
}

function Missing({ model }: { model: RunModel }) {
  const error = model.error.value;
  const unknown = error instanceof MidstreamError && error.code === "not_found";
  return (
    <main class="page" id="main">
      <div class="column">
        <div class="card start-form">
          <h1>{unknown ? "There is no such run" : "The run cannot be shown"}</h1>
          <p class="muted">
            {unknown ? "It was deleted, it is somebody else's, or the link is wrong." : safeInline(error?.message ?? "", 400)}
          </p>
          <p class="row">
            <a class="button" href="#/">
              All runs
            </a>
            {!unknown && (
              <button type="button" onClick={() => location.reload()}>
                Try again
              </button>
            )}
          </p>
        </div>
      </div>
    </main>
  );
}

const titleOf = (view: View): string =>
  view.title ?? view.messages.find((message) => message.role === "user")?.text ?? view.run_id;

function OpenRun({ model }: { model: RunModel }) {
  const [raw, setRaw] = useState(false);
  const [aside, setAside] = useState(false);
  const [problem, setProblem] = useState("");
  const timeline = useRef<TimelineHandle | undefined>(undefined);
  const view = model.view.value!;
  const run = model.run.value!;
  const landmarks = useMemo(() => landmarksOf(model.entries.value), [model.entries.value]);

  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (document.querySelector('dialog[open], [role="dialog"], [role="alertdialog"]') !== null) return;
      if (event.key === "j" || event.key === "k") {
        event.preventDefault();
        timeline.current?.step(event.key === "j" ? 1 : -1);
      } else if (event.key === "e") setRaw(true);
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);

  const resume = async (from: string): Promise<void> => {
    try {
      const next = await client.value.start({ resume: from });
      location.hash = runHref(next.id);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  const gone = model.error.value;
  return (
    <main class="run-page" id="main">
      <div class="run-head">
        <h1 title={safeInline(titleOf(view))}>
          <bdi>{safeInline(titleOf(view), 160)}</bdi>
        </h1>
        <div class="run-tools">
          <button type="button" class="toggle-aside" aria-expanded={aside} onClick={() => setAside(!aside)}>
            {view.plan.length > 0 ? `Plan ${view.plan.filter((todo) => todo.status === "completed").length}/${view.plan.length}` : "Jump to"}
          </button>
          <button type="button" aria-expanded={raw} onClick={() => setRaw(!raw)} title="Raw events (e)">
            Events
          </button>
        </div>
        <div class="run-state">
          <RunStatusMark status={view.status} phase={view.phase} />
          <span class="what" role="status">
            <bdi>{safeInline(problem || gone?.message || view.status_text || "", 160)}</bdi>
          </span>
          <span class="grow" />
          {view.usage !== undefined && view.usage.total_tokens > 0 && (
            <span class="usage" title={usageWords(view)}>
              {view.usage.total_tokens.toLocaleString("en")} tokens
            </span>
          )}
        </div>
      </div>
      <div class="run-body">
        <TimelineRun.Provider value={run}>
          <Timeline
            entries={model.entries}
            live={!isOver(view)}
            onResume={(from) => void resume(from)}
            handle={(handle) => (timeline.current = handle)}
          />
        </TimelineRun.Provider>
        <aside class={`run-aside ${aside ? "open" : ""}`} aria-label="Plan and places" tabIndex={-1}>
          {view.plan.length > 0 && <Plan todos={view.plan} />}
          <nav class="outline" aria-label="Jump to">
            <h2>Jump to</h2>
            <ul>
              {landmarks.map((landmark) => (
                <li key={landmark.key}>
                  <button
                    type="button"
                    onClick={() => {
                      setAside(false);
                      timeline.current?.show(landmark.key);
                    }}
                  >
                    <span>{landmark.text}</span>
                  </button>
                </li>
              ))}
            </ul>
            <p class="small muted">
              <kbd>j</kbd> next, <kbd>k</kbd> previous, <kbd>e</kbd> events
            </p>
          </nav>
          <section aria-label="About this run" class="small about">
            <h2>About this run</h2>
            <p>Agent {safeInline(view.agent, 80)}</p>
            <p>
              Run <code>{view.run_id}</code>
            </p>
            {view.thread_id !== "" && (
              <p>
                <a href={threadHref(view.thread_id)}>Runs of this conversation, and go on with it</a>
              </p>
            )}
            {view.usage !== undefined && view.usage.total_tokens > 0 && <p class="muted">{usageWords(view)}</p>}
          </section>
        </aside>
        {raw && <RawDrawer model={model} onClose={() => setRaw(false)} />}
      </div>
      <Steering run={run} client={client.value} />
    </main>
  );
}

const usageWords = (view: View): string => {
  const usage = view.usage;
  if (usage === undefined) return "";
  const count = (tokens: number): string => tokens.toLocaleString("en");
  const models = Object.keys(usage.by_model).map((name) => safeInline(name, 40)).join(", ");
  return `${count(usage.input_tokens)} tokens in (${count(usage.cached_input_tokens)} cached), ${count(usage.output_tokens)} out${models === "" ? "" : `, ${models}`}`;
};

const isTyping = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement &&
  (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));
