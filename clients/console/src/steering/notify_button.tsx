import { useState } from "preact/hooks";

import { canAsk } from "./attention.js";

/** Asks for the right to show notifications; a browser lets only a click do that. Nothing once that is decided. */
export function NotifyButton() {
  const [asks, setAsks] = useState(canAsk);
  if (!asks) return null;
  return (
    <button
      type="button"
      class="small"
      onClick={() => void Notification.requestPermission().then(() => setAsks(canAsk()))}
    >
      Notify me when a run waits
    </button>
  );
}
