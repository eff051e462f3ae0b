/**
 * The timeline: a list of which only what is near the window is in the page. It stays at its end as long as the reader
 * is there, and otherwise where the reader is.
 */

import type { ReadonlySignal } from "@preact/signals";
import type { VNode } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Virtualizer, type VirtualizerHandle } from "virtua";

import { safeInline } from "../text/safe.js";
import { EntryBody } from "./entry.js";
import type { Entry } from "./order.js";

/** A reader within so many pixels of the end is at the end. */
const NEAR_END = 40;

/**
 * After a jump the list measures what came into the window and corrects its place: for so long, in ms, what scrolls is
 * not taken for the reader, unless a hand did it.
 */
const SETTLE_MS = 700;

/** For how many frames after a jump the focus is held. */
const SETTLE_FRAMES = 15;

/** How far beyond the window entries are kept in the page, in pixels. */
const BUFFER = 600;

export interface TimelineHandle {
  /** Shows the entry with this key and puts the focus on it. */
  show(key: string): void;
  /** The entry after (1) or before (-1) the one that has the focus, else the first one in the window. */
  step(by: 1 | -1): void;
  end(): void;
}

export interface TimelineProps {
  entries: ReadonlySignal<readonly Entry[]>;
  /** More may come. */
  live: boolean;
  onResume(runId: string): void;
  handle(handle: TimelineHandle): void;
}

export function Timeline({ entries: source, live, onResume, handle }: TimelineProps) {
  const entries = source.value;
  const scroller = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);
  const atEnd = useRef(true);
  const seen = useRef({ top: 0, height: 0, entries: 0 });
  const current = useRef<string | undefined>(undefined);
  const focused = useRef(false);
  const jumped = useRef(-SETTLE_MS);
  const touched = useRef(-SETTLE_MS);
  const [unseen, setUnseen] = useState(-1);
  const latest = useRef(entries);
  latest.current = entries;

  const toEnd = (): void => {
    const box = scroller.current;
    if (box !== null) box.scrollTop = box.scrollHeight;
  };

  const jumpToEnd = (): void => {
    jumped.current = performance.now();
    current.current = undefined;
    atEnd.current = true;
    toEnd();
  };

  const byHand = (): void => {
    touched.current = performance.now();
  };

  const scrolled = (): void => {
    const box = scroller.current;
    if (box === null) return;
    const left = box.scrollHeight - box.scrollTop - box.clientHeight;
    // Only moving up leaves the end: more text below moves nothing.
    const wentUp = box.scrollTop < seen.current.top - 1 && box.scrollHeight >= seen.current.height;
    const now = performance.now();
    const handled = now - touched.current < SETTLE_MS;
    if (handled || now - jumped.current > SETTLE_MS) {
      if (left <= NEAR_END) atEnd.current = true;
      else if (wentUp) atEnd.current = false;
    }
    seen.current.top = box.scrollTop;
    seen.current.height = box.scrollHeight;
    if (atEnd.current) {
      seen.current.entries = latest.current.length;
      setUnseen(-1);
    } else setUnseen(latest.current.length - seen.current.entries);
  };

  useLayoutEffect(() => {
    if (atEnd.current) {
      seen.current.entries = entries.length;
      toEnd();
    } else setUnseen(entries.length - seen.current.entries);
  }, [entries]);

  // Heights are known after the layout: the end is followed before it is painted.
  useEffect(() => {
    const observer = new ResizeObserver(() => {
      if (atEnd.current) toEnd();
    });
    if (scroller.current !== null) observer.observe(scroller.current);
    if (inner.current !== null) observer.observe(inner.current);
    return () => observer.disconnect();
  }, []);

  const focusAt = (index: number, align: "nearest" | "start"): void => {
    const entry = latest.current[index];
    if (entry === undefined) return;
    jumped.current = performance.now();
    atEnd.current = index === latest.current.length - 1;
    list.current?.scrollToIndex(index, { align });
    current.current = entry.key;
    // It comes into the page with the scrolling, can take the focus when it has been measured, and may lose it again
    // while rows are put around it.
    let frames = 0;
    const focus = (): void => {
      if (current.current !== entry.key) return;
      const element = scroller.current?.querySelector<HTMLElement>(`[data-key="${CSS.escape(entry.key)}"]`);
      const active = document.activeElement;
      if (element && (!focused.current || active === document.body)) element.focus({ preventScroll: true });
      focused.current ||= element != null && document.activeElement === element;
      if (frames++ < SETTLE_FRAMES) requestAnimationFrame(focus);
    };
    focused.current = false;
    requestAnimationFrame(focus);
  };

  useEffect(() => {
    handle({
      show: (key) => focusAt(latest.current.findIndex((entry) => entry.key === key), "start"),
      step: (by) => {
        const key = document.activeElement?.closest<HTMLElement>("[data-key]")?.dataset["key"] ?? current.current;
        const at = latest.current.findIndex((entry) => entry.key === key);
        const first = list.current?.findItemIndex(list.current.scrollOffset) ?? 0;
        const next = at === -1 ? first : at + by;
        focusAt(Math.min(latest.current.length - 1, Math.max(0, next)), "nearest");
      },
      end: jumpToEnd,
    });
  }, []);

  return (
    <div class="timeline">
      <div
        class="timeline-scroll"
        ref={scroller}
        onScroll={scrolled}
        onWheel={byHand}
        onTouchMove={byHand}
        onPointerDown={byHand}
        onKeyDown={byHand}
        tabIndex={0}
        role="region"
        aria-label="Timeline"
      >
        <div class="timeline-inner" ref={inner} role="feed" aria-label="What happened" aria-busy={live}>
          <Virtualizer ref={list} scrollRef={scroller} data={entries} bufferSize={BUFFER} itemSize={72}>
            {(entry: Entry, index: number) =>
              (
                <Row
                  key={entry.key}
                  entry={entry}
                  names={beginsStage(entry, entries[index - 1])}
                  index={index}
                  count={live ? -1 : entries.length}
                  onResume={onResume}
                />
              ) as VNode as never
            }
          </Virtualizer>
        </div>
      </div>
      {unseen >= 0 && (
        <button
          type="button"
          class="to-end"
          onClick={jumpToEnd}
        >
          {unseen > 0 ? `${unseen} new below` : "To the newest"}
        </button>
      )}
    </div>
  );
}

/** Whether an entry has to say which stage it is in: the one before it does not. */
const beginsStage = (entry: Entry, before: Entry | undefined): boolean => {
  if (entry.stage === undefined) return false;
  const last = before?.kind === "stage" ? before.step : before?.stage;
  return last?.step_id !== entry.stage.step_id;
};

interface RowProps {
  entry: Entry;
  names: boolean;
  index: number;
  count: number;
  onResume(runId: string): void;
}

function Row({ entry, names, index, count, onResume }: RowProps) {
  return (
    <article
      class={`entry ${entry.kind} ${entry.stage === undefined ? "" : "staged"}`}
      data-key={entry.key}
      data-seq={entry.seq}
      tabIndex={-1}
      aria-posinset={index + 1}
      aria-setsize={count}
    >
      {names && <p class="stage-tag">{safeInline(entry.stage?.title, 80)}</p>}
      <EntryBody entry={entry} onResume={onResume} />
    </article>
  );
}
