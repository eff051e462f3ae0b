import { ConnectionBadge } from "./connection/badge.js";
import { client, connection, wantsToken } from "./connection/state.js";
import { TokenForm } from "./connection/token_form.js";
import { DeadLettersPage } from "./pages/dead_letters.js";
import { GrantsPage } from "./pages/grants.js";
import { route, type Route } from "./routes.js";
import { ListPage } from "./runs/list_page.js";
import { RunPage } from "./runs/run_page.js";
import { ApprovalWatch } from "./steering/approval_watch.js";
import { safeInline } from "./text/safe.js";
import { ThemeToggle } from "./theme.js";

const PAGES = [
  ["#/", "Runs", "runs"],
  ["#/grants", "Grants", "grants"],
  ["#/dead-letters", "Dead letters", "dead-letters"],
] as const;

export function App() {
  const at = route.value;
  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header class="header">
        <a class="brand" href="#/" aria-label="Midstream, all runs">
          <svg viewBox="0 0 20 20" aria-hidden="true">
            <path
              d="M2 6c3-3 5-3 8 0s5 3 8 0M2 10c3-3 5-3 8 0s5 3 8 0M2 14c3-3 5-3 8 0s5 3 8 0"
              fill="none"
              stroke="currentColor"
              stroke-width="1.8"
              stroke-linecap="round"
            />
          </svg>
          <span>Midstream</span>
        </a>
        <nav class="nav" aria-label="Pages">
          {PAGES.map(([href, words, page]) => (
            <a key={page} href={href} aria-current={at.page === page ? "page" : undefined}>
              {words}
            </a>
          ))}
          <a class="wide" href="./docs">
            Protocol
          </a>
        </nav>
        <ConnectionBadge />
        <ThemeToggle />
      </header>
      {wantsToken(connection.value) ? <TokenForm /> : <Page at={at} />}
      <ApprovalWatch client={client.value} />
    </div>
  );
}

/** The address behind `#` is the route's, so the browser's own jump is done here. */
const skip = (event: Event): void => {
  event.preventDefault();
  const main = document.getElementById("main");
  main?.setAttribute("tabindex", "-1");
  main?.focus();
};

function Page({ at }: { at: Route }) {
  switch (at.page) {
    case "runs":
      return <ListPage threadId={at.threadId} />;
    case "run":
      return <RunPage runId={at.runId} />;
    case "grants":
      return <GrantsPage client={client.value} />;
    case "dead-letters":
      return <DeadLettersPage client={client.value} />;
    case "unknown":
      return (
        <main class="page" id="main">
          <div class="column">
            <div class="card start-form">
              <h1>There is no such page</h1>
              <p class="muted">{safeInline(at.path, 120)}</p>
              <p>
                <a class="button" href="#/">
                  All runs
                </a>
              </p>
            </div>
          </div>
        </main>
      );
  }
}
