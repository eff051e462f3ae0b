/** Everything by which a person steers the run they look at. The page shows it below the timeline. */

import { useEffect, useRef } from "preact/hooks";
import type { Client, Run } from "@midstream/client";

import { safeInline } from "../text/safe.js";
import { CorrectionBox } from "./correction_box.js";
import { Questions } from "./questions.js";
import { keyOf, queue } from "./queue.js";
import { StopControls } from "./stop.js";
import "./steering.css";

export { CancelCall } from "./stop.js";

export interface SteeringProps {
  readonly run: Run;
  /** Given, the parts say when something waits for the connection. */
  readonly client?: Client;
}

export function Steering({ run, client }: SteeringProps) {
  useEffect(() => {
    queue.here.value = run.id;
    return () => {
      if (queue.here.peek() === run.id) queue.here.value = undefined;
    };
  }, [run.id]);
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const root = document.documentElement.style;
    // News stands above this part, however high it is.
    const observer = new ResizeObserver(([entry]) =>
      root.setProperty("--steering", `${entry?.borderBoxSize[0]?.blockSize ?? 0}px`),
    );
    observer.observe(place.current!);
    return () => {
      observer.disconnect();
      root.removeProperty("--steering");
    };
  }, []);
  return (
    <div class="steering" ref={place}>
      <Waiting run={run} />
      <Questions run={run} client={client} />
      <CorrectionBox key={run.id} run={run} client={client} />
      <StopControls key={`stop ${run.id}`} run={run} />
    </div>
  );
}

/** Approvals put aside stay in sight on their run's page. */
function Waiting({ run }: { run: Run }) {
  const open = queue.open.value.filter((each) => each.runId === run.id);
  if (open.length === 0) return null;
  return (
    <ul class="waiting" aria-label="Calls that wait for your approval">
      {open.map((each) => (
        <li key={each.id}>
          <span class={`status ${each.risk === "high" ? "bad" : "warn"}`}>waits for you</span>
          <span class="grow">{safeInline(each.label === "" ? each.tool : each.label, 120)}</span>
          <button type="button" class="small" title="Review (Alt+A)" onClick={() => queue.review(keyOf(each))}>
            Review
          </button>
        </li>
      ))}
    </ul>
  );
}
