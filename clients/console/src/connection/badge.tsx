import { useEffect, useState } from "preact/hooks";

import { safeInline } from "../text/safe.js";
import { client, connection, online, restart } from "./state.js";

/** Seconds until `at`, told again every second; undefined without one. */
const useSecondsUntil = (at: number | undefined): number | undefined => {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (at === undefined) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [at]);
  return at === undefined ? undefined : Math.max(0, Math.ceil((at - now) / 1000));
};

/** How the page stands with the server, always in the header. */
export function ConnectionBadge() {
  const state = connection.value;
  const left = useSecondsUntil(state.status === "reconnecting" ? state.retryAt : undefined);
  const closed = state.status === "closed";
  const ready = state.status === "ready";
  const offline = !ready && (!online.value || state.offline === true);
  const words = closed
    ? "Disconnected"
    : ready
      ? "Connected"
      : offline
        ? "Offline"
        : state.status === "connecting"
          ? "Connecting"
          : left !== undefined && left > 0
            ? `Reconnecting in ${left} s`
            : "Reconnecting";
  const why = closed ? (state.error?.message ?? state.reason) : ready ? undefined : state.reason;
  const tone = ready ? "good" : closed || offline ? "bad" : "warn";
  // Counting seconds is for the eye; a screen reader is told of the change alone.
  const spoken = words.replace(/ in \d+ s$/, "");
  return (
    <div class="connection" data-status={offline ? "offline" : state.status} title={safeInline(why ?? "")}>
      <span class={`dot ${tone}`} aria-hidden="true" />
      <span class="words" aria-hidden="true">
        {words}
      </span>
      <span class="visually-hidden" role="status">
        {spoken}
      </span>
      {ready && <span class="transport">{state.transport === "http" ? "over HTTP" : "over WebSocket"}</span>}
      {!ready && state.status !== "connecting" && (
        <button type="button" onClick={() => (closed ? restart() : client.value.reconnect())}>
          Reconnect now
        </button>
      )}
    </div>
  );
}
