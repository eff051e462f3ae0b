import type { ComponentChildren, VNode } from "preact";

import type { Listed } from "./listed.js";

/** A time in words, in the reader's time zone. */
export const inWords = (time: Date): string =>
  time.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** A time for people, in their own time zone, with the exact one behind it. */
export function When({ at }: { at: string }) {
  const time = new Date(at);
  if (Number.isNaN(time.getTime())) return null;
  return <time dateTime={time.toISOString()}>{inWords(time)}</time>;
}

export function RunLink({ runId, children }: { runId: string; children: ComponentChildren }) {
  return <a href={`#/runs/${encodeURIComponent(runId)}`}>{children}</a>;
}

export function Problem({ text, again }: { text: string; again: () => void }) {
  if (text === "") return null;
  return (
    <div class="card problem-card" role="alert">
      <p class="problem">{text}</p>
      <button type="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}

export interface CardsOptions<Item> {
  readonly listed: Listed<Item>;
  /** What was done last, for those who hear the page. */
  readonly said: string;
  /** Instead of a list without items. */
  readonly empty: ComponentChildren;
  /** One item's card, with its key. */
  readonly card: (item: Item) => VNode;
}

/** A list as cards: what is wrong with it, what is in it, and its next page. */
export function Cards<Item>({ listed, said, empty, card }: CardsOptions<Item>) {
  return (
    <>
      <p class="visually-hidden" role="status">
        {said}
      </p>
      <Problem text={listed.problem} again={listed.again} />
      {listed.items === undefined ? (
        listed.problem === "" && <p class="muted">Loading.</p>
      ) : listed.items.length === 0 ? (
        <div class="card empty">{empty}</div>
      ) : (
        <ul class="cards">{listed.items.map(card)}</ul>
      )}
      {listed.more !== undefined && (
        <button type="button" onClick={listed.more}>
          Show more
        </button>
      )}
    </>
  );
}
