/** Calls that need no approval any more: what each grant covers, where it comes from, and taking it back. */

import { useState } from "preact/hooks";
import type { Client, Grant } from "@midstream/client";

import { useChanges } from "../steering/subscribed.js";
import { scopeName } from "../steering/words.js";
import { safeInline } from "../text/safe.js";
import { useListed } from "./listed.js";
import { Cards, inWords, RunLink, When } from "./parts.js";
import "./pages.css";

export function GrantsPage({ client }: { client: Client }) {
  useChanges(client);
  const listed = useListed<Grant>(
    client,
    "grants",
    (grant) => grant.grant_id,
    (cursor, signal) => client.rest.grants({ signal, cursor }),
  );
  const [said, setSaid] = useState("");
  const revoke = async (grant: Grant): Promise<void> => {
    if (await listed.take(grant, () => client.rest.revokeGrant(grant.grant_id))) {
      setSaid(`Revoked: calls of ${safeInline(grant.tool, 60)} ask again.`);
    }
  };
  return (
    <main class="page" id="main">
      <div class="column listed">
        <div>
          <h1>Grants</h1>
          <p class="muted">
            Tools that you allowed to run without asking, beyond one run. Revoking one holds from the next call on, also
            in runs that are under way.
          </p>
        </div>
        <Cards
          listed={listed}
          said={said}
          empty={
            <>
              <p>No grants.</p>
              <p>
                When a call waits for your approval, you can also approve later calls of its tool: in the conversation,
                or always. Such grants are listed here. One for the rest of a run ends with the run.
              </p>
            </>
          }
          card={(grant) => <GrantCard key={grant.grant_id} grant={grant} revoke={() => revoke(grant)} />}
        />
      </div>
    </main>
  );
}

function GrantCard({ grant, revoke }: { grant: Grant; revoke: () => Promise<void> }) {
  const [asked, setAsked] = useState(false);
  const tool = safeInline(grant.tool, 80);
  return (
    <li class="card">
      <div class="card-head">
        <h2>
          <code>{tool}</code>
        </h2>
        <span class="status warn">{scopeName(grant.scope)}</span>
        <button
          type="button"
          class="danger"
          disabled={asked}
          onClick={() => {
            setAsked(true);
            void revoke().finally(() => setAsked(false));
          }}
        >
          Revoke<span class="visually-hidden"> the grant for {tool}</span>
        </button>
      </div>
      <p>{covers(grant)}</p>
      <p class="muted">
        Given <When at={grant.created_at} /> by {safeInline(grant.by, 80)}
        {grant.from.label !== undefined && <> at “{safeInline(grant.from.label, 100)}”</>},{" "}
        <RunLink runId={grant.from.run_id}>in this run</RunLink>.
      </p>
    </li>
  );
}

/** What a grant covers, in a sentence. */
export function covers({ tool, agent, scope, expires_at: ends }: Grant): string {
  const calls = `Every call of ${safeInline(tool, 80)} by the agent ${safeInline(agent, 80)}`;
  const where = WHERE.get(scope) ?? `in the scope “${safeInline(scope, 40)}”`;
  const time = ends === undefined ? "until you revoke it" : `until ${inWords(new Date(ends))}`;
  return `${calls} ${where}, whatever its arguments, ${time}.`;
}

const WHERE: ReadonlyMap<string, string> = new Map([
  ["thread", "in one conversation"],
  ["always", "in any run of yours"],
]);
