import { useState } from "preact/hooks";

import { canAsk } from "./attention.js";

/** Asks for the right to show notifications; a browser lets only a click do that. Nothing once that is decided. */
export function NotifyButton() {
  const [asks, setAsks] = useState(canAsk);
  if (!asks) return null;
  return (
    <button
      type="button"
      class="small notify"
      title="Notify me when a run waits"
      onClick={() => void Notification.requestPermission().then(() => setAsks(canAsk()))}
    >
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path
          d="M4 11V7a4 4 0 0 1 8 0v4l1 1H3zM7 14h2M8 1.5V3"
          fill="none"
          stroke="currentColor"
          stroke-width="1.5"
          stroke-linecap="round"
          stroke-linejoin="round"
        />
      </svg>
      <span>Notify me when a run waits</span>
    </button>
  );
}
