import type { ComponentChildren } from "preact";

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
