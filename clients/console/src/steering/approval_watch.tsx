/** Once in the page: the dialog over the approvals of all followed runs, and telling somebody who looks elsewhere. */

import { useEffect, useState } from "preact/hooks";
import type { Client } from "@midstream/client";

import { route } from "../routes.js";
import { safeInline } from "../text/safe.js";
import { ApprovalDialog } from "./approval_dialog.js";
import type { WaitingRun } from "./elsewhere.js";
import { NotifyButton } from "./notify_button.js";
import { keyOf, queue, SAID_MS } from "./queue.js";
import { useChanges } from "./subscribed.js";
import { useBadge, useEndedUnseen, useTold, useTyping, useWaitingElsewhere } from "./watching.js";
import "./steering.css";

export function ApprovalWatch({ client }: { client: Client }) {
  useChanges(client);
  const ended = useEndedUnseen();
  useTold(client, ended.add);
  const others = useWaitingElsewhere(client);
  const questions = client.runs.reduce((count, run) => count + run.questions.length, 0);
  const open = queue.open.value;
  const waiting = open.length + questions + others.reduce((count, each) => count + each.count, 0);
  useBadge({ waiting, failed: ended.failed, done: ended.done });
  const typing = useTyping();
  // Somebody who types is not interrupted: the bar says that a call waits, and the dialog opens when they are done.
  const [interrupts, setInterrupts] = useState(false);
  const count = open.length;
  useEffect(() => {
    if (count === 0) setInterrupts(false);
    else if (!typing) setInterrupts(true);
  }, [count, typing]);
  // The page of a run says itself that its calls wait.
  const aside = open.filter((each) => each.runId !== queue.here.value);
  // The list of runs says which of them wait.
  const tells = others.length > 0 && route.value.page !== "runs";
  const visible = count > 0 && !queue.minimised.value && interrupts;
  const review = (key?: string): void => {
    setInterrupts(true);
    queue.review(key);
  };
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.altKey && !event.ctrlKey && event.code === "KeyA" && queue.open.peek().length > 0) {
        event.preventDefault();
        review();
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  return (
    <>
      <ApprovalDialog client={client} queue={queue} visible={visible} />
      <div class="approval-bar-place">
        <News />
        {((aside.length > 0 && !visible) || tells) && (
          <div class="approval-bar" role="region" aria-label="Waiting for your answer">
            {aside.length > 0 && !visible && (
              <p>
                <span>
                  {aside.length === 1
                    ? "A call waits for your approval: "
                    : `${aside.length} calls wait for your approval: `}
                  <span class="strong">{safeInline(aside[0]!.label || aside[0]!.tool, 60)}</span>
                </span>
                <button
                  type="button"
                  class="primary"
                  aria-keyshortcuts="Alt+A"
                  onClick={() => review(keyOf(aside[0]!))}
                >
                  Review
                </button>
              </p>
            )}
            {tells && <Others others={others} />}
            {queue.here.value === undefined && <NotifyButton />}
          </div>
        )}
      </div>
    </>
  );
}

function Others({ others }: { others: readonly WaitingRun[] }) {
  const [only] = others;
  return (
    <p>
      {others.length === 1 && only !== undefined ? (
        <span>
          Another run waits for you:{" "}
          <a href={`#/runs/${encodeURIComponent(only.runId)}`}>{safeInline(only.name, 50)}</a>
        </span>
      ) : (
        <span>
          {others.length} <a href="#/">other runs</a> wait for you.
        </span>
      )}
    </p>
  );
}

function News() {
  const said = queue.said.value;
  return (
    <div class="news" role="status">
      {said.map(({ id, text }) => (
        <NewsLine key={id} text={text} forget={() => queue.forget(id)} />
      ))}
    </div>
  );
}

function NewsLine({ text, forget }: { text: string; forget: () => void }) {
  useEffect(() => {
    const timer = setTimeout(forget, SAID_MS);
    return () => clearTimeout(timer);
  }, []);
  return (
    <p class="news-line">
      <span>{text}</span>
      <button type="button" class="small" onClick={forget}>
        Dismiss
      </button>
    </p>
  );
}
