/** What the page listens to all the time: the runs it follows, others that wait, and whether somebody types. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Approval, ApprovalResolved, Client, Run, RunEvent, Update } from "@midstream/client";

import { isField } from "./approval_dialog.js";
import { badge, keepTitle, markIcon, notify, urgent } from "./attention.js";
import { LOOK_EVERY_MS, waitingRuns } from "./elsewhere.js";
import type { WaitingRun } from "./elsewhere.js";
import { keyOf, queue } from "./queue.js";
import { howResolved } from "./words.js";

/** Listens to every followed run: keeps the queue, and says how what waited was settled. */
export function useTold(client: Client, onEnd: (event: RunEvent) => void): void {
  const heard = useRef(new Map<Run, () => void>());
  const [, recount] = useState(0);
  const known = useRef(new Map<string, string>());
  // The client's list may have one a moment longer than its event: it is not to come up again as a new one.
  const settled = useRef(new Set<string>());
  const told = (run: Run, update: Update): void => {
    if (update.kind !== "event") return;
    const { event } = update;
    if (event.type === "approval.resolved") {
      const key = keyOf({ runId: run.id, id: event.payload.approval_id });
      const label = known.current.get(key);
      // What was settled before it was ever shown here is history.
      if (label !== undefined) queue.say(said(client, label, event.payload, event.origin?.client_id));
      known.current.delete(key);
      settled.current.add(key);
    } else if (event.type === "input.required" || event.type === "input.resolved") {
      if (event.type === "input.required" && run.caughtUp) {
        const { question: about, input_id: id } = event.payload;
        notify({ cause: "blocked", about, tag: `${run.id}/${id}`, runId: run.id }, () => undefined);
      }
      // The client tells of approvals; questions are counted by what their run says.
      recount((count) => count + 1);
    } else if (run.caughtUp && (event.type === "run.completed" || event.type === "run.failed")) onEnd(event);
  };
  const runs = client.runs;
  useEffect(() => {
    const taps = heard.current;
    for (const [run, stop] of taps) {
      if (runs.includes(run)) continue;
      stop();
      taps.delete(run);
    }
    for (const run of runs) {
      if (!taps.has(run))
        taps.set(
          run,
          run.onUpdate((update) => told(run, update)),
        );
    }
  });
  useEffect(
    () => () => {
      for (const stop of heard.current.values()) stop();
      heard.current.clear();
    },
    [],
  );
  // An approval met in a replay may be answered some events later: it is shown when its run has caught up.
  const shown = (each: Approval): boolean =>
    !settled.current.has(keyOf(each)) && (known.current.has(keyOf(each)) || client.run(each.runId)?.caughtUp === true);
  const open = client.approvals.filter(shown);
  useEffect(() => {
    // Rendered a moment ago: some may be settled since.
    const still = open.filter((each) => !settled.current.has(keyOf(each)));
    for (const each of still) {
      const key = keyOf(each);
      if (known.current.has(key)) continue;
      const label = each.label === "" ? each.tool : each.label;
      known.current.set(key, label);
      notify({ cause: "blocked", about: label, tag: key, runId: each.runId }, () => queue.review(key));
    }
    queue.waiting(still);
  });
}

function said(client: Client, label: string, resolved: ApprovalResolved, clientId: string | undefined): string {
  const here = clientId === client.clientId;
  const me = clientId !== undefined && client.connection.server?.principal.id === resolved.by;
  return howResolved(label, resolved, { here, me });
}

/** Runs that failed or were done while nobody looked; forgotten when somebody does. */
export function useEndedUnseen(): { failed: number; done: number; add: (event: RunEvent) => void } {
  const [ended, setEnded] = useState({ failed: 0, done: 0 });
  useEffect(() => {
    const seen = (): void => {
      if (document.visibilityState === "visible") setEnded({ failed: 0, done: 0 });
    };
    document.addEventListener("visibilitychange", seen);
    window.addEventListener("focus", seen);
    return () => {
      document.removeEventListener("visibilitychange", seen);
      window.removeEventListener("focus", seen);
    };
  }, []);
  const add = (event: RunEvent): void => {
    const cause = event.type === "run.failed" ? "failed" : "done";
    const about = event.type === "run.failed" ? event.payload.text : event.run_id;
    notify({ cause, about, tag: event.run_id, runId: event.run_id }, () => undefined);
    if (document.visibilityState === "hidden") setEnded((before) => ({ ...before, [cause]: before[cause] + 1 }));
  };
  return { ...ended, add };
}

export function useWaitingElsewhere(client: Client): readonly WaitingRun[] {
  const [all, setAll] = useState<readonly WaitingRun[]>([]);
  const told = useRef(new Set<string>());
  // What was followed since the last look is known better than that look knew it, also when it is followed no longer.
  const followed = useRef(new Set<string>());
  const ready = client.connection.status === "ready";
  const now = client.runs.map(({ id }) => id);
  for (const id of now) followed.current.add(id);
  useEffect(() => {
    if (!ready) return undefined;
    const ends = new AbortController();
    const look = async (): Promise<void> => {
      const found = await waitingRuns(client, ends.signal);
      if (found === undefined || ends.signal.aborted) return;
      followed.current = new Set(client.runs.map(({ id }) => id));
      setAll(found);
      const waiting = new Set(found.map(({ runId }) => runId));
      told.current = new Set([...told.current].filter((each) => waiting.has(each)));
      for (const { runId, name } of found) {
        if (told.current.has(runId) || client.run(runId) !== undefined) continue;
        told.current.add(runId);
        notify({ cause: "blocked", about: name, tag: runId, runId }, () => undefined);
      }
    };
    void look();
    const timer = setInterval(() => void look(), LOOK_EVERY_MS);
    return () => {
      ends.abort();
      clearInterval(timer);
    };
  }, [client, ready, now.join(" ")]);
  return all.filter(({ runId }) => !followed.current.has(runId));
}

export function useBadge(attention: { waiting: number; failed: number; done: number }): void {
  const text = useRef("");
  const title = useRef<ReturnType<typeof keepTitle>>(undefined);
  text.current = badge(attention);
  useEffect(() => {
    title.current = keepTitle(() => text.current);
    return () => title.current?.stop();
  }, []);
  useEffect(() => {
    title.current?.update();
    markIcon(urgent(attention));
  }, [attention.waiting, attention.failed, attention.done]);
}

/** Whether somebody is in the middle of a text: the focus is in a field with something in it. */
export function useTyping(): boolean {
  const [, look] = useState(0);
  useEffect(() => {
    const again = (): void => look((count) => count + 1);
    // When the focus leaves a field, nothing has it for a moment.
    const left = (): void => void setTimeout(again);
    document.addEventListener("focusin", again);
    document.addEventListener("focusout", left);
    return () => {
      document.removeEventListener("focusin", again);
      document.removeEventListener("focusout", left);
    };
  }, []);
  return inTheMiddle();
}

function inTheMiddle(): boolean {
  const at = document.activeElement;
  if (!isField(at) || at?.closest("dialog") != null) return false;
  return at instanceof HTMLSelectElement ? false : ((at as { value?: string }).value ?? "") !== "";
}
