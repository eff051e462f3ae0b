import type { RunEvent } from "@midstream/client";
import type { VNode } from "preact";
import { useDeferredValue } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { Virtualizer } from "virtua";

import { CopyButton, PlainText } from "../text/plain.js";
import { asJson, safeInline } from "../text/safe.js";
import { lineOf, RawFilter } from "./raw_filter.js";
import type { RunModel } from "./run_model.js";

const FAMILIES = ["run.", "message.", "reasoning.", "tool.", "approval.", "input.", "correction.", "plan.", "recovery.", "object.", "notice", "usage."];

/** The height of a row in pixels; rows are of one height, so nothing has to be measured. */
const ROW = 28;

/** The events as they came: filter by family and text, look at one, copy one or all of them. */
export function RawDrawer({ model, onClose }: { model: RunModel; onClose(): void }) {
  const [typed, setTyped] = useState("");
  const [type, setType] = useState("");
  const [chosen, setChosen] = useState<RunEvent | undefined>(undefined);
  const query = useDeferredValue(typed);
  const filter = useRef(new RawFilter());
  const field = useRef<HTMLInputElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    field.current?.focus();
    return () => (before instanceof HTMLElement ? before.focus() : undefined);
  }, []);
  void model.rawVersion.value;
  const found = filter.current.apply(model.raw, query, type);
  const more = (model.view.value?.cursor.seq ?? 0) > 0 && model.raw.length === 0;
  return (
    <section
      class="drawer"
      role="dialog"
      aria-label="Raw events"
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        onClose();
      }}
    >
      <div class="drawer-head">
        <h2>Raw events</h2>
        <input
          ref={field}
          type="search"
          placeholder="Text in an event"
          aria-label="Text in an event"
          value={typed}
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
        <select value={type} aria-label="Type" onChange={(event) => setType(event.currentTarget.value)}>
          <option value="">All types</option>
          {FAMILIES.map((family) => (
            <option key={family} value={family}>
              {family.replace(/\.$/, "")}
            </option>
          ))}
        </select>
        <CopyButton text={() => found.map(lineOf).join("\n")} label="Copy all" />
        <button type="button" onClick={onClose}>
          Close
        </button>
        <span class="small muted raw-count" role="status">
          {found.length.toLocaleString("en")} of {model.raw.length.toLocaleString("en")} events
          {more ? ". The history came as a snapshot: events are listed from here on" : ""}
        </span>
      </div>
      <div class="raw-list" ref={scroller} tabIndex={0} role="group" aria-label="Events">
        <Virtualizer scrollRef={scroller} data={found} itemSize={ROW} bufferSize={300}>
          {(event: RunEvent) =>
            (
              <button
                key={event.seq}
                type="button"
                class="raw-row"
                aria-pressed={chosen === event}
                onClick={() => setChosen(chosen === event ? undefined : event)}
              >
                <span>{event.from === undefined ? event.seq : `${event.from}-${event.seq}`}</span>
                <span>{safeInline(event.type, 60)}</span>
                <span class="raw-summary muted">{safeInline(lineOf(event).slice(lineOf(event).indexOf('"payload":') + 10), 160)}</span>
              </button>
            ) as VNode as never
          }
        </Virtualizer>
      </div>
      {chosen !== undefined && (
        <div class="raw-detail" tabIndex={0} role="group" aria-label={`Event ${chosen.seq}`}>
          <div class="row">
            <strong class="grow">
              {chosen.seq} {safeInline(chosen.type, 60)}
            </strong>
            <CopyButton text={() => lineOf(chosen)} />
          </div>
          <PlainText text={asJson(chosen)} class="code" />
        </div>
      )}
    </section>
  );
}
