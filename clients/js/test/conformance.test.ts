/** The language-neutral cases of protocol/conformance: what a client does of the protocol, it does as they say. */

import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type RunEvent, type View } from "../src/protocol.js";
import { emptyView, fold, foldAll, readView } from "../src/view.js";

const HOME = new URL("../../../protocol/conformance/", import.meta.url);

interface FoldCase {
  name: string;
  epoch?: string;
  events: RunEvent[];
  views: Record<string, unknown>;
}

function load<Case>(file: string): Case {
  return JSON.parse(readFileSync(new URL(file, HOME), "utf8")) as Case;
}

const FOLDS = readdirSync(new URL("fold/", HOME))
  .filter((name) => name.endsWith(".json"))
  .map((name) => load<FoldCase>(`fold/${name}`));

// `decode/` is about what a server reads and `order/` about what it writes: a client neither decodes commands nor
// judges a log. Of `order/` the logs in order are more material for the fold's laws.
const LOGS = load<{ cases: { name: string; wrong_at: number[]; events: RunEvent[] }[] }>(
  "order/order.json",
).cases.filter((log) => log.wrong_at.length === 0);

const begin = (events: readonly RunEvent[]) => emptyView((events[0] as RunEvent).run_id);

describe.each(FOLDS)("fold: $name", ({ epoch, events, views }) => {
  test("makes the view at every seq", () => {
    let view = begin(events);
    for (const event of events) {
      view = fold(view, event, epoch);
      expect(view).toStrictEqual(views[view.cursor.seq]);
    }
    expect(Object.keys(views).at(-1)).toBe(String(view.cursor.seq));
  });

  test("a snapshot anywhere leads to the same view", () => {
    const last = foldAll(begin(events), events, epoch);
    for (const snapshot of Object.values(views)) {
      const read = readView(snapshot) as View;
      expect(read).toStrictEqual(snapshot);
      expect(foldAll(read, events)).toStrictEqual(last);
    }
  });

  test("an event that comes a second time returns the very same view", () => {
    let view = begin(events);
    for (const event of events) {
      view = fold(view, event, epoch);
      expect(fold(view, event, epoch)).toBe(view);
      expect(fold(view, events[0] as RunEvent)).toBe(view);
    }
  });
});

test("the cases have every type of event", () => {
  const schema = JSON.parse(readFileSync(new URL("../schema/midstream.schema.json", HOME), "utf8")) as {
    $defs: { Event: { discriminator: { mapping: Record<string, string> } } };
  };
  const types = Object.keys(schema.$defs.Event.discriminator.mapping);
  const seen = new Set<string>(FOLDS.flatMap(({ events }) => events.map(({ type }) => type)));
  expect(types.length).toBeGreaterThan(30);
  expect(types.filter((type) => !seen.has(type))).toEqual([]);
});

test.each(LOGS)("order: $name, from any place in it", ({ events }) => {
  const last = foldAll(begin(events), events);
  for (let at = 0; at <= events.length; at += 1) {
    const snapshot = foldAll(begin(events), events.slice(0, at));
    expect(foldAll(readView(JSON.parse(JSON.stringify(snapshot))) as View, events.slice(at))).toStrictEqual(last);
  }
});
