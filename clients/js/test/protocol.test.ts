/** What src/protocol.ts says of the protocol, beside the page and the schema that say it first. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, expectTypeOf, test } from "vitest";
import {
  CLOSE,
  type EventOf,
  isEnded,
  isTerminal,
  mayRetry,
  type Pending,
  type RunEvent,
  type View,
} from "../src/protocol.js";

const read = (file: string) => readFileSync(new URL(`../../../${file}`, import.meta.url), "utf8");
const PAGE = read("protocol/PROTOCOL.md");

test("the generated types are fresh", () => {
  execFileSync(process.execPath, ["scripts/types.mjs", "--check"], { cwd: new URL("..", import.meta.url) });
});

test("close codes are those of the page, and each retries as its table says", () => {
  const rows = [...PAGE.matchAll(/^\| (\d{4}) \| .*\| (yes|no) \|$/gm)].map(([, code, retry]): [number, boolean] => [
    Number(code),
    retry === "yes",
  ]);
  expect(rows.map(([code]) => code)).toEqual(Object.values(CLOSE));
  for (const [code, retry] of rows) expect([code, mayRetry(code)]).toEqual([code, retry]);
});

test.each([
  [1001, true],
  [1002, true],
  [1006, true],
  [1011, true],
  [4000, true],
  [4499, true],
  [4510, false],
  [4999, false],
])("a close with %i, which no table lists: retry %s", (code, retry) => expect(mayRetry(code)).toBe(retry));

test("the refusals are those of the page", () => {
  const table = PAGE.slice(PAGE.indexOf("| code | HTTP |"), PAGE.indexOf("### `run.start`"));
  const told = [...table.matchAll(/^\| `(\w+)` \| \d{3} \|/gm)].map(([, code]) => code as string);
  const union = read("clients/js/src/protocol.ts").split("export type RefusalCode =")[1] as string;
  const known = [...union.matchAll(/"(\w+)"/g)].map(([, code]) => code as string);
  expect(told.length).toBeGreaterThan(20);
  expect(known).toEqual([...told, "internal"].sort());
});

test("a run's last events are the terminal ones", () => {
  const last = (type: string) => isTerminal({ type } as RunEvent);
  expect(["run.completed", "run.failed", "run.cancelled"].every(last)).toBe(true);
  expect(["run.started", "run.cancelling", "run.status", "?"].some(last)).toBe(false);
  expect((["queued", "running", "waiting", "completed", "failed", "cancelled"] as const).filter(isEnded)).toEqual([
    "completed",
    "failed",
    "cancelled",
  ]);
});

describe("types", () => {
  test("an event is discriminated by its type, what waits by its kind", () => {
    const told = (event: RunEvent): string => {
      switch (event.type) {
        case "message.delta":
          return event.payload.text;
        case "approval.required":
          expectTypeOf(event.payload.risk).toEqualTypeOf<"high" | "low" | "medium">();
          return event.payload.tool;
        default:
          // @ts-expect-error: a payload that was not told apart has no text
          return event.payload.text as string;
      }
    };
    expectTypeOf(told).returns.toEqualTypeOf<string>();
    expectTypeOf<EventOf<"notice">["payload"]["level"]>().toEqualTypeOf<"error" | "info" | "warning">();
    expectTypeOf<Extract<Pending, { kind: "input" }>["question"]>().toEqualTypeOf<string>();
  });

  test("a view cannot be changed in place", () => {
    expectTypeOf<View["messages"]>().not.toHaveProperty("push");
    expectTypeOf<View["pending"][number]>().toEqualTypeOf<Pending>();
    expectTypeOf<View["failure"]>().toEqualTypeOf<EventOf<"run.failed">["payload"] | undefined>();
  });
});
