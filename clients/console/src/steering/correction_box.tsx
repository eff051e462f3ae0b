/** Telling the agent something while it works: the box, what waits to be read, and what came back unread. */

import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Client, Run, View } from "@midstream/client";

import { safeInline } from "../text/safe.js";
import { keep, kept } from "./drafts.js";
import { useChanges } from "./subscribed.js";
import { MODES, refused, whereCorrection, whyReturned } from "./words.js";
import type { CorrectionMode } from "./words.js";

type Correction = View["corrections"][number];

/** Corrections that wait or came back, shown at once; the timeline has them all. */
const MAX_LISTED = 5;

export function CorrectionBox({ run, client }: { run: Run; client: Client | undefined }) {
  useChanges(run);
  useChanges(client);
  const id = useId();
  const [text, setText] = useDraft(`draft.${run.id}`);
  const [mode, setMode] = useState<CorrectionMode>("next_step");
  const [sending, setSending] = useState<{ text: string; mode: CorrectionMode } | undefined>();
  const [refusal, setRefusal] = useState("");
  const returned = useReturned(run, text, setText);
  const { ended } = run;
  const can = ended || run.can.length === 0 || run.can.includes("correct");
  const pending = run.view.corrections.filter(({ state }) => state === "accepted" || state === "held");
  const offline = client !== undefined && client.connection.status !== "ready";

  const send = async (): Promise<void> => {
    const words = text.trim();
    if (words === "" || sending !== undefined) return;
    setRefusal("");
    setSending({ text: words, mode });
    try {
      const receipt = await run.correct(words, ended ? { ifEnded: "start" } : { mode, ifEnded: "reject" });
      // Only what was sent is cleared: somebody may have typed on meanwhile.
      setText((now) => (now.trim() === words ? "" : now));
      for (const each of returned.offers) if (each.text.trim() === words) returned.dismiss(each);
      if (receipt.run_id !== undefined && receipt.run_id !== run.id)
        location.hash = `#/runs/${encodeURIComponent(receipt.run_id)}`;
    } catch (error) {
      setRefusal(refused(error));
    }
    setSending(undefined);
  };

  const label = ended ? "Start a new run in this conversation" : "Tell the agent something";
  // On a small screen the box is one line until somebody wants it.
  const wanted = text !== "" || sending !== undefined || refusal !== "";

  if (!can) return <p class="muted steer-note">This run takes no corrections.</p>;
  return (
    <section class={`correction ${wanted ? "wanted" : ""}`} aria-label={ended ? "Go on" : "Correct the agent"}>
      {pending.length > 0 && <Pending run={run} pending={pending} />}
      {returned.offers.map((each) => (
        <div class="returned" key={each.correction_id} role="status">
          <p>
            Came back, because {whyReturned(each.reason)}: <q>{safeInline(each.text, 160)}</q>
          </p>
          {text.trim() !== each.text.trim() && (
            <button type="button" class="small" onClick={() => returned.use(each)}>
              {text === "" ? "Put it into the box" : "Add it to the box"}
            </button>
          )}
          <button type="button" class="small" onClick={() => returned.dismiss(each)}>
            Dismiss
          </button>
        </div>
      ))}
      <div class="say">
        <label for={`${id}-text`}>{label}</label>
        <textarea
          id={`${id}-text`}
          rows={2}
          placeholder={label}
          value={text}
          aria-describedby={`${id}-help`}
          aria-keyshortcuts="Control+Enter"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.repeat || event.isComposing) return;
            event.preventDefault();
            void send();
          }}
        />
        <button
          type="button"
          class="primary"
          disabled={text.trim() === "" || sending !== undefined}
          onClick={() => void send()}
        >
          {sending !== undefined ? "Sending" : ended ? "Start a new run with this" : "Send correction"}
        </button>
      </div>
      <div class="correction-foot">
        {!ended && <Modes id={id} mode={mode} choose={setMode} />}
        <p class="hint" id={`${id}-help`}>
          {ended ? "The new run goes on with this conversation." : MODES.find((each) => each.mode === mode)?.says}{" "}
          <span class="correction-keys">
            <kbd>Ctrl</kbd>+<kbd>Enter</kbd> sends.
          </span>
        </p>
        <div aria-live="polite">
          {refusal !== "" && <p class="problem">{refusal}</p>}
          {sending !== undefined && offline && (
            <p class="muted">Not connected. It will be sent when the connection is back.</p>
          )}
        </div>
      </div>
    </section>
  );
}

function Modes({ id, mode, choose }: { id: string; mode: CorrectionMode; choose: (mode: CorrectionMode) => void }) {
  return (
    <fieldset class="modes">
      <legend class="visually-hidden">When the agent reads it</legend>
      {MODES.map((each) => (
        <label key={each.mode} class={mode === each.mode ? "chosen" : ""} for={`${id}-${each.mode}`} title={each.says}>
          <input
            type="radio"
            id={`${id}-${each.mode}`}
            name={`${id}-mode`}
            value={each.mode}
            checked={mode === each.mode}
            onChange={() => choose(each.mode)}
          />
          {each.name}
        </label>
      ))}
    </fieldset>
  );
}

function Pending({ run, pending }: { run: Run; pending: readonly Correction[] }) {
  const [asked, setAsked] = useState<ReadonlySet<string>>(new Set());
  const [refusal, setRefusal] = useState("");
  const revoke = async (correction: Correction): Promise<void> => {
    setAsked((before) => new Set(before).add(correction.correction_id));
    try {
      await run.revoke(correction.correction_id);
      setRefusal("");
    } catch (error) {
      setRefusal(refused(error));
      setAsked((before) => new Set([...before].filter((each) => each !== correction.correction_id)));
    }
  };
  const more = pending.length - MAX_LISTED;
  return (
    <div class="pending">
      <h3>Not read yet</h3>
      <ul>
        {pending.slice(0, MAX_LISTED).map((each) => (
          <li key={each.correction_id}>
            <span class="pending-text">{safeInline(each.text, 120)}</span>
            <span class="muted">{whereCorrection(each.state, each.mode, each.reason)}</span>
            <button
              type="button"
              class="small"
              aria-label={`Take back: ${safeInline(each.text, 60)}`}
              disabled={asked.has(each.correction_id)}
              onClick={() => void revoke(each)}
            >
              Take back
            </button>
          </li>
        ))}
      </ul>
      {more > 0 && <p class="muted">And {more} more.</p>}
      {refusal !== "" && (
        <p class="problem" role="alert">
          {refusal}
        </p>
      )}
    </div>
  );
}

/** A text kept over reloads. */
function useDraft(key: string): [string, (next: string | ((now: string) => string)) => void] {
  const [text, setText] = useState(() => kept(key));
  return [
    text,
    (next) =>
      setText((now) => {
        const then = typeof next === "string" ? next : next(now);
        keep(key, then);
        return then;
      }),
  ];
}

interface Returned {
  readonly offers: readonly Correction[];
  readonly use: (correction: Correction) => void;
  readonly dismiss: (correction: Correction) => void;
}

/**
 * Corrections that came back. The first goes into an empty box by itself when it comes back before these eyes; it never
 * writes over what is being typed, and what was taken or dismissed does not come again after a reload.
 */
function useReturned(run: Run, text: string, setText: (next: string | ((now: string) => string)) => void): Returned {
  const key = `returned.${run.id}`;
  const [settled, setSettled] = useState<ReadonlySet<string>>(
    () =>
      new Set(
        kept(key)
          .split(" ")
          .filter((each) => each !== ""),
      ),
  );
  const settle = (id: string): void =>
    setSettled((before) => {
      const next = new Set(before).add(id);
      keep(key, [...next].join(" "));
      return next;
    });
  const waited = useRef(new Set<string>());
  const corrections = run.view.corrections;
  const open = corrections.filter((each) => each.state === "returned" && !settled.has(each.correction_id));
  useEffect(() => {
    for (const each of corrections) {
      if (each.state === "accepted" || each.state === "held") waited.current.add(each.correction_id);
    }
    const first = open.find((each) => waited.current.has(each.correction_id));
    if (first !== undefined && text === "") {
      setText(first.text);
      waited.current.delete(first.correction_id);
    }
  }, [corrections]);
  return {
    // What stands in the box is said to have come back, and not offered again.
    offers: open.slice(0, MAX_LISTED),
    use(correction) {
      setText((now) => (now.trim() === "" || now === correction.text ? correction.text : `${now}\n${correction.text}`));
      settle(correction.correction_id);
    },
    dismiss: (correction) => settle(correction.correction_id),
  };
}
