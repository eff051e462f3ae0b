import type { RunSummary } from "@midstream/client";
import { useEffect, useMemo, useState } from "preact/hooks";

import { client } from "../connection/state.js";
import { runHref } from "../routes.js";
import { safeInline } from "../text/safe.js";
import { LiveList } from "./live_list.js";
import { matching } from "./search.js";
import { StartForm } from "./start_form.js";
import { RunStatusMark } from "./status.js";

const STATUSES = [
  ["", "All"],
  ["running", "Running"],
  ["waiting", "Waiting for you"],
  ["queued", "Queued"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
] as const;

/** Start a run; the runs there are. */
export function ListPage({ threadId }: { threadId: string | undefined }) {
  const list = useMemo(() => new LiveList(client.value), [client.value]);
  const [query, setQuery] = useState("");
  const [status, setStatus] = useState("");
  useEffect(() => list.watch(), [list]);
  useEffect(() => {
    if (query.trim() === "") return undefined;
    const timer = setTimeout(() => void list.olderForSearch(), 300);
    return () => clearTimeout(timer);
  }, [list, query]);

  const inThread = threadId === undefined ? list.runs.value : list.runs.value.filter((run) => run.thread_id === threadId);
  const shown = matching(inThread, query);
  return (
    <main class="page" id="main">
      <div class="column">
        <h1 class="visually-hidden">Runs</h1>
        <StartForm agents={list.agents.value} recent={list.runs.value} threadId={threadId} />
        <section aria-label="Runs" class="runs-section">
          <div class="row runs-head">
            <h2 class="grow">{threadId === undefined ? "Runs" : "Runs of this conversation"}</h2>
            {threadId !== undefined && <a href="#/">All runs</a>}
            <label>
              <span class="visually-hidden">Search runs</span>
              <input
                type="search"
                placeholder="Search runs"
                value={query}
                onInput={(event) => setQuery(event.currentTarget.value)}
              />
            </label>
            <label>
              <span class="visually-hidden">Status</span>
              <select
                value={status}
                onChange={(event) => {
                  setStatus(event.currentTarget.value);
                  list.filter(event.currentTarget.value);
                }}
              >
                {STATUSES.map(([value, words]) => (
                  <option key={value} value={value}>
                    {words}
                  </option>
                ))}
              </select>
            </label>
          </div>
          {list.problem.value !== "" && <p class="small problem">{list.problem.value}</p>}
          {shown.length > 0 && (
            <ul class="runs">
              {shown.map((run) => (
                <li key={run.run_id}>
                  <RunRow run={run} />
                </li>
              ))}
            </ul>
          )}
          {shown.length === 0 && (
            <p class="card empty">
              {!list.loaded.value
                ? "Loading"
                : query !== ""
                  ? `Nothing matches among the newest ${list.runs.value.length} runs.`
                  : "No runs yet. Say above what an agent should do."}
            </p>
          )}
          <div class="row runs-foot">
            <span class="small muted grow" role="status">
              {query !== "" && shown.length > 0 ? `${shown.length} of ${inThread.length} runs` : ""}
            </span>
            {list.more.value && (
              <button type="button" onClick={() => void list.older()}>
                Older runs
              </button>
            )}
          </div>
        </section>
      </div>
    </main>
  );
}

/** What a run is called: its title, else what was asked, else its id. */
const nameOf = (run: RunSummary): string => run.title ?? (run.input || run.run_id);

/** When it was started: the time of day today, else the day too. */
const startedAt = (time: string): string => {
  const at = new Date(time);
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
};

const detailOf = (run: RunSummary): string => {
  const done = run.plan.filter((todo) => todo.status === "completed").length;
  return [
    run.agent,
    run.plan.length > 0 ? `${done} of ${run.plan.length} steps` : undefined,
    run.failure?.text ?? run.cancelled?.reason ?? run.status_text,
    run.usage && run.usage.total_tokens > 0 ? `${run.usage.total_tokens.toLocaleString("en")} tokens` : undefined,
  ]
    .filter((part) => part !== undefined && part !== "")
    .join(" \u00b7 ");
};

function RunRow({ run }: { run: RunSummary }) {
  return (
    <a class="run-row" href={runHref(run.run_id)}>
      <span class="name">
        <bdi>{safeInline(nameOf(run), 160)}</bdi>
      </span>
      <span class="detail">
        <time dateTime={run.started_at}>{startedAt(run.started_at)}</time>
        {" \u00b7 "}
        <bdi>{safeInline(detailOf(run), 240)}</bdi>
      </span>
      <RunStatusMark status={run.status} phase={run.phase} />
    </a>
  );
}
