/** Where the page is, kept behind the `#` of its address: that works below any prefix a server is mounted at. */

import { signal } from "@preact/signals";

export type Route =
  | { readonly page: "runs"; readonly threadId?: string }
  | { readonly page: "run"; readonly runId: string }
  | { readonly page: "grants" }
  | { readonly page: "dead-letters" }
  | { readonly page: "unknown"; readonly path: string };

const ID = /^[A-Za-z0-9_-]{1,64}$/;

/** The route of a hash such as `#/runs/run_1`. */
export const routeOf = (hash: string): Route => {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  if (path === "" || path === "runs") {
    const thread = new URLSearchParams(query).get("thread");
    return thread !== null && ID.test(thread) ? { page: "runs", threadId: thread } : { page: "runs" };
  }
  if (path === "grants" || path === "dead-letters") return { page: path };
  const runId = path.startsWith("runs/") ? path.slice(5) : "";
  return ID.test(runId) ? { page: "run", runId } : { page: "unknown", path };
};

export const runHref = (runId: string): string => `#/runs/${runId}`;
export const threadHref = (threadId: string): string => `#/runs?thread=${threadId}`;

export const route = signal<Route>(routeOf(location.hash));

addEventListener("hashchange", () => {
  route.value = routeOf(location.hash);
});
