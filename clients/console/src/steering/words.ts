/** What the steering parts say to people. Pure: facts in, a sentence out; texts of others go through `safeInline`. */

import type { ApprovalResolved } from "@midstream/client";

import { safeInline } from "../text/safe.js";

const NAME = 80;
const REASON = 400;

/** Why an approval is asked for. An unknown reason is the tool's own words. */
export function whyAsked(reason: string): string {
  switch (reason) {
    case "policy":
      return "This tool asks before every call.";
    case "unknown_outcome":
      return "An earlier try of this call broke off, and may have taken effect. Approved, it may happen twice.";
    case "changed":
      return "What you were shown before has changed since. Look at it again.";
    default:
      return safeInline(reason, REASON);
  }
}

/** What happens when nobody answers in time. */
export function whenExpired(onExpire: string): string {
  if (onExpire === "fail") return "If nobody answers in time, the run fails.";
  if (onExpire === "deny") return "If nobody answers in time, the call is denied and the agent goes on.";
  return `If nobody answers in time: ${safeInline(onExpire, NAME)}.`;
}

/** Seconds as people say them: two units at most. */
export function timeLeft(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const [days, hours] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24];
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60];
  const parts =
    days > 0
      ? [`${days} d`, hours > 0 && `${hours} h`]
      : hours > 0
        ? [`${hours} h`, minutes > 0 && `${minutes} min`]
        : minutes > 0
          ? [`${minutes} min`, rest > 0 && `${rest} s`]
          : [`${rest} s`];
  return parts.filter((part) => part !== false).join(" ");
}

/** Seconds for which a grant can be given; one for a run ends with the run. Undefined: until it is revoked. */
export const SPANS: readonly { readonly seconds: number | undefined; readonly name: string }[] = [
  { seconds: 3600, name: "for one hour" },
  { seconds: 86_400, name: "for one day" },
  { seconds: 7 * 86_400, name: "for one week" },
  { seconds: undefined, name: "until I revoke it" },
];

export interface ScopeFacts {
  readonly scope: string;
  readonly tool: string;
  readonly agent: string;
}

/** A scope as a choice. */
export function scopeName(scope: string): string {
  switch (scope) {
    case "run":
      return "For the rest of this run";
    case "thread":
      return "In this conversation";
    case "always":
      return "Always";
    default:
      return safeInline(scope, NAME);
  }
}

/** What a remembered approval will cover, before it is given. `forSeconds`: how long; undefined: until revoked. */
export function scopeCovers({ scope, tool, agent }: ScopeFacts, forSeconds?: number): string {
  const calls = `every call of ${safeInline(tool, NAME)}, whatever its arguments,`;
  const ends =
    forSeconds === undefined
      ? "until you revoke it under Grants"
      : (SPANS.find(({ seconds }) => seconds === forSeconds)?.name ?? `for ${timeLeft(forSeconds)}`);
  const by = agent === "" ? "" : ` by the agent ${safeInline(agent, NAME)}`;
  switch (scope) {
    case "run":
      return `From now on ${calls} runs in this run without asking.`;
    case "thread":
      return `From now on ${calls}${by} runs in this conversation without asking, ${ends}.`;
    case "always":
      return `From now on ${calls}${by} runs in any run of yours without asking, ${ends}.`;
    default:
      return `From now on ${calls} runs without asking in the scope “${safeInline(scope, NAME)}”, ${ends}.`;
  }
}

export interface Answerer {
  /** The answer came from this very page. */
  readonly here: boolean;
  /** The answerer is who this page is signed in as. */
  readonly me: boolean;
}

/** How an approval was settled, and by whom. */
export function howResolved(label: string, resolved: ApprovalResolved, { here, me }: Answerer): string {
  const what = safeInline(label, NAME);
  const by = here ? "by you" : me ? "by you in another window" : `by ${safeInline(resolved.by, NAME)}`;
  const because =
    resolved.reason === undefined || resolved.reason === "" ? "" : ` Reason: ${safeInline(resolved.reason, REASON)}`;
  switch (resolved.decision) {
    case "approved":
      return `${what}: approved ${by}${resolved.edited ? " with other arguments" : ""}.`;
    case "denied":
      return `${what}: denied ${by}.${because}`;
    case "expired":
      return `${what}: nobody answered in time.`;
    case "cancelled":
      return `${what}: withdrawn, because the call was cancelled.`;
  }
}

/** A refusal of the server (or of the connection) in words that say what to do. */
export function refused(error: unknown): string {
  const code = codeOf(error);
  switch (code) {
    case "already_resolved":
      return resolutionOf(error) ?? "This was answered already.";
    case "expired":
      return "The time for this answer was over.";
    case "digest_mismatch":
      return "The arguments are no longer the ones you saw. Look at the call again before you answer.";
    case "invalid_args":
      return "The server does not take this: see the marked fields.";
    case "forbidden":
      return "You may look at this, but not answer it.";
    case "run_ended":
      return "The run has ended.";
    case "already_applied":
      return "It is too late: the correction was used already.";
    case "not_steerable":
      return "This agent takes no corrections while it works.";
    case "too_many_pending":
      return "Corrections wait already. Take one back, or wait until one is used.";
    case "too_large":
      return "This text is too long for the server. Shorten it.";
    case "disconnected":
      return "The connection was closed before the server answered. Nothing is known of it yet.";
    default: {
      const text = error instanceof Error ? error.message : String(error);
      return safeInline(text === "" ? "It was refused." : text, REASON);
    }
  }
}

export function codeOf(error: unknown): string {
  const code = typeof error === "object" && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : "";
}

function resolutionOf(error: unknown): string | undefined {
  const found = (error as { resolution?: { decision?: unknown; by?: unknown } }).resolution;
  if (typeof found?.decision !== "string" || typeof found.by !== "string") return undefined;
  return `This was ${safeInline(found.decision, NAME)} already, by ${safeInline(found.by, NAME)}.`;
}

export type CorrectionMode = "next_step" | "now" | "when_idle";

export const MODES: readonly { readonly mode: CorrectionMode; readonly name: string; readonly says: string }[] = [
  { mode: "next_step", name: "Next step", says: "The agent reads it before its next step. Nothing is interrupted." },
  {
    mode: "now",
    name: "Now",
    says: "What the agent is saying is interrupted, and it reads this at once. Running tools finish.",
  },
  { mode: "when_idle", name: "When idle", says: "The agent reads it when it has done what it planned." },
];

/** Where a correction that waits stands. */
export function whereCorrection(state: string, mode: string, reason: string | undefined): string {
  if (state === "held") {
    return reason === "approval_open"
      ? "Waits until the open approval is answered"
      : `Waits: ${safeInline(reason ?? "held", NAME)}`;
  }
  return mode === "when_idle"
    ? "Waits until the agent is done"
    : mode === "now"
      ? "Is on its way"
      : "Waits for the next step";
}

/** Why a correction came back unused. */
export function whyReturned(reason: string | undefined): string {
  switch (reason) {
    case "cancelled":
      return "the run was cancelled";
    case "failed":
      return "the run failed";
    case undefined:
    case "":
      return "the run did not use it";
    default:
      return safeInline(reason, NAME).replaceAll("_", " ");
  }
}
