/** Telling somebody who looks elsewhere: the page's title, its icon, and notifications of the browser. */

import { safeInline } from "../text/safe.js";

/** What deserves attention, the most urgent first. */
export type Cause = "blocked" | "failed" | "done";
const ORDER: readonly Cause[] = ["blocked", "failed", "done"];

export interface Attention {
  /** Questions that wait for an answer. */
  readonly waiting: number;
  readonly failed: number;
  readonly done: number;
}

/** The most urgent cause. */
export function urgent({ waiting, failed, done }: Attention): Cause | undefined {
  const counts = { blocked: waiting, failed, done };
  return ORDER.find((cause) => counts[cause] > 0);
}

/** The title's beginning: a number where somebody must answer, a word where something ended unseen. */
export function badge(attention: Attention): string {
  switch (urgent(attention)) {
    case "blocked":
      return `(${attention.waiting}) `;
    case "failed":
      return "(failed) ";
    case "done":
      return "(done) ";
    case undefined:
      return "";
  }
}

const BADGE = /^\((?:\d+|failed|done)\) /;

/** Keeps the badge before whatever the page's title is. Returns what ends it. */
export function keepTitle(read: () => string): { update(): void; stop(): void } {
  const update = (): void => {
    const wanted = read() + document.title.replace(BADGE, "");
    if (document.title !== wanted) document.title = wanted;
  };
  const observer = new MutationObserver(update);
  observer.observe(document.head, { childList: true, subtree: true, characterData: true });
  return {
    update,
    stop() {
      observer.disconnect();
      document.title = document.title.replace(BADGE, "");
    },
  };
}

const DOTS: Readonly<Record<Cause, string>> = { blocked: "%23c77700", failed: "%23b3261e", done: "%231b6b3c" };

/** Puts a dot on the page's icon. */
export function markIcon(cause: Cause | undefined): void {
  const icon = document.head.querySelector<HTMLLinkElement>("link[rel~='icon']");
  if (icon === null) return;
  icon.dataset["plain"] ??= icon.href;
  const dot =
    cause === undefined
      ? icon.dataset["plain"]
      : "data:image/svg+xml," +
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' " +
        `fill='${DOTS[cause]}'/></svg>`;
  if (icon.href !== dot) icon.href = dot;
}

/** Whether the browser can be asked to show notifications. It is asked from a click only. */
export function canAsk(): boolean {
  return typeof Notification !== "undefined" && Notification.permission === "default";
}

/** Nobody sees the page now. */
export const away = (): boolean => document.visibilityState === "hidden" || !document.hasFocus();

const TITLES: Readonly<Record<Cause, string>> = {
  blocked: "A run waits for you",
  failed: "A run failed",
  done: "A run is done",
};

export interface News {
  readonly cause: Cause;
  readonly about: string;
  /** The same tag replaces what was shown under it. */
  readonly tag: string;
  readonly runId: string;
}

/** Shows a notification, if the person allowed that and looks elsewhere. */
export function notify({ cause, about, tag, runId }: News, onClick: () => void): void {
  if (typeof Notification === "undefined" || Notification.permission !== "granted" || !away()) return;
  try {
    const shown = new Notification(TITLES[cause], {
      body: safeInline(about, 120),
      tag,
      requireInteraction: cause === "blocked",
    });
    shown.onclick = () => {
      window.focus();
      location.hash = `#/runs/${encodeURIComponent(runId)}`;
      shown.close();
      onClick();
    };
  } catch {
    // Browsers of phones have the constructor and refuse it: the title says it then.
  }
}
