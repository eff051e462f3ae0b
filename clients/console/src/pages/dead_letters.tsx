/** What was tried and given up: failed tool calls and webhooks that nobody took, until somebody has seen to them. */

import { useState } from "preact/hooks";
import type { Client, DeadLetter } from "@midstream/client";

import { useChanges } from "../steering/subscribed.js";
import { PlainText } from "../text/plain.js";
import { safeInline } from "../text/safe.js";
import { useListed } from "./listed.js";
import { Cards, RunLink, When } from "./parts.js";
import "./pages.css";

const KINDS: readonly { readonly kind: string; readonly name: string }[] = [
  { kind: "", name: "All" },
  { kind: "tool", name: "Tool calls" },
  { kind: "webhook", name: "Webhooks" },
];

export function DeadLettersPage({ client }: { client: Client }) {
  useChanges(client);
  const [kind, setKind] = useState("");
  const [sure, setSure] = useState(false);
  const [said, setSaid] = useState("");
  const listed = useListed<DeadLetter>(
    client,
    kind,
    (letter) => letter.id,
    (cursor, signal) => client.rest.deadLetters({ signal, cursor, kind: kind === "" ? undefined : kind }),
  );
  const dismiss = async (letter: DeadLetter): Promise<void> => {
    if (await listed.take(letter, () => client.rest.dismissDeadLetter(letter.id))) setSaid("Dismissed.");
  };
  const dismissAll = async (): Promise<void> => {
    setSure(false);
    if (await listed.clear(() => client.rest.dismissDeadLetters({ kind: kind === "" ? undefined : kind })))
      setSaid("All dismissed.");
  };
  return (
    <main class="page" id="main">
      <div class="column listed">
        <div>
          <h1>Dead letters</h1>
          <p class="muted">
            What was tried, failed and given up. Dismiss what you have seen to; dismissing changes nothing else.
          </p>
        </div>
        <div class="row">
          <label class="form-entry inline" for="letter-kind">
            <span>Show</span>
            <select id="letter-kind" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
              {KINDS.map((each) => (
                <option key={each.kind} value={each.kind}>
                  {each.name}
                </option>
              ))}
            </select>
          </label>
          <span class="grow" />
          {listed.items !== undefined &&
            listed.items.length > 0 &&
            (sure ? (
              <span class="row">
                <span>Dismiss {kind === "" ? "all" : "all of this kind"}? This cannot be undone.</span>
                <button type="button" class="danger" onClick={() => void dismissAll()}>
                  Yes, dismiss
                </button>
                <button type="button" onClick={() => setSure(false)}>
                  Keep
                </button>
              </span>
            ) : (
              <button type="button" onClick={() => setSure(true)}>
                Dismiss all
              </button>
            ))}
        </div>
        <Cards
          listed={listed}
          said={said}
          empty={
            <>
              <p>Nothing here.</p>
              <p>
                Tool calls that failed for good or whose outcome nobody knows, and webhooks that were not taken, are
                kept here until you dismiss them.
              </p>
            </>
          }
          card={(letter) => <LetterCard key={letter.id} letter={letter} dismiss={() => dismiss(letter)} />}
        />
      </div>
    </main>
  );
}

function LetterCard({ letter, dismiss }: { letter: DeadLetter; dismiss: () => Promise<void> }) {
  const [asked, setAsked] = useState(false);
  const about = safeInline(letter.label || letter.what, 120);
  return (
    <li class="card">
      <div class="card-head">
        <h2>{about}</h2>
        <span class={`status ${letter.outcome === "unknown" ? "bad" : "warn"}`}>{ended(letter)}</span>
        <button
          type="button"
          disabled={asked}
          onClick={() => {
            setAsked(true);
            void dismiss().finally(() => setAsked(false));
          }}
        >
          Dismiss<span class="visually-hidden"> {about}</span>
        </button>
      </div>
      <PlainText text={letter.text} />
      <p class="muted">
        {kindName(letter.kind)} <code>{safeInline(letter.what, 120)}</code>
        {letter.event !== undefined && <> for {safeInline(letter.event, 40)}</>}, {letter.attempts}{" "}
        {letter.attempts === 1 ? "attempt" : "attempts"}, <code>{safeInline(letter.code, 40)}</code>,{" "}
        <When at={letter.at} />, <RunLink runId={letter.run_id}>in this run</RunLink>.
      </p>
    </li>
  );
}

function kindName(kind: string): string {
  if (kind === "tool") return "Tool";
  return kind === "webhook" ? "Webhook to" : safeInline(kind, 40);
}

function ended({ kind, outcome, code }: DeadLetter): string {
  if (outcome === "unknown") return "outcome unknown";
  if (kind === "webhook") return code === "gone" ? "not wanted any more" : "not taken";
  return "failed";
}
