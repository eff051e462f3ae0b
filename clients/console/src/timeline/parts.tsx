/** What the entries of the timeline are made of. */

import type { ComponentChildren } from "preact";

import { asJson, safeInline } from "../text/safe.js";
import { wordsOf } from "./words.js";

export type Tone = "good" | "warn" | "bad" | "busy" | "";

export function Time({ at }: { at: string | undefined }) {
  if (at === undefined || at === "") return null;
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return null;
  return (
    <time class="time" dateTime={at} title={date.toLocaleString()}>
      {date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })}
    </time>
  );
}

export function Line({ tone, time, children }: { tone: Tone; time: string | undefined; children: ComponentChildren }) {
  return (
    <div class={`line ${tone}`}>
      <span class="line-mark" aria-hidden="true" />
      <p class="grow">{children}</p>
      <Time at={time} />
    </div>
  );
}

interface BoxProps {
  title: ComponentChildren;
  tone: Tone | "plain" | "person";
  time: string | undefined;
  aside?: ComponentChildren;
  children: ComponentChildren;
}

export function Box({ title, tone, time, aside, children }: BoxProps) {
  return (
    <div class={`box ${tone}`}>
      <div class="box-head">
        <h3>{title}</h3>
        {aside}
        <span class="grow" />
        <Time at={time} />
      </div>
      {children}
    </div>
  );
}

/** What is true of a call's effect. */
export const outcomeWords = (outcome: string): string =>
  ({
    not_started: "Nothing was done.",
    failed: "It failed, and nothing goes on.",
    unknown: "Whether it had an effect is not known.",
    completed: "It was done.",
  })[outcome] ?? safeInline(wordsOf(outcome), 60);

export const inWords = (value: unknown): string => (typeof value === "string" ? value : asJson(value));
