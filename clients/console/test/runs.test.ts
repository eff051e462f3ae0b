import type { RunEvent, RunSummary } from "@midstream/client";
import fc from "fast-check";
import { expect, test } from "vitest";

import { routeOf } from "../src/routes.js";
import { lineOf, RawFilter } from "../src/runs/raw_filter.js";
import { matching, merged } from "../src/runs/search.js";
import { secondsOf, wordsOf } from "../src/timeline/words.js";
import { eventOf } from "./logs.js";

const run = (id: string, more: object = {}): RunSummary =>
  ({ run_id: id, thread_id: `th_${id}`, agent: "desk", status: "running", plan: [], ...more }) as unknown as RunSummary;

test("a search finds words of title, agent, id, status and result, all of them", () => {
  const runs = [run("run_1", { title: "Fix the login" }), run("run_2", { result: { city: "Bergen" }, status: "completed" })];
  const found = (query: string): string[] => matching(runs, query).map((each) => each.run_id);
  expect(found("LOGIN desk")).toEqual(["run_1"]);
  expect(found("bergen completed")).toEqual(["run_2"]);
  expect(found("login completed")).toEqual([]);
  expect(matching(runs, "  ")).toBe(runs);
});

test("a search finds a run by its id, but not every run whose id has the letter by chance", () => {
  const runs = [run("run_a3Xk9Qz"), run("run_b7Yw2Ls", { title: "Number 3" })];
  const found = (query: string): string[] => matching(runs, query).map((each) => each.run_id);
  expect(found("3")).toEqual(["run_b7Yw2Ls"]);
  expect(found("run_a3xk9qz")).toEqual(["run_a3Xk9Qz"]);
  expect(found("b7yw2l")).toEqual(["run_b7Yw2Ls"]);
});

test("a fresh page goes before what was loaded, and no run is there twice", () => {
  const all = merged([run("c"), run("b", { status: "failed" })], [run("b"), run("a")]);
  expect(all.map((each) => `${each.run_id} ${each.status}`)).toEqual(["c running", "b failed", "a running"]);
});

test("routes", () => {
  expect(routeOf("")).toEqual({ page: "runs" });
  expect(routeOf("#/runs?thread=th_1")).toEqual({ page: "runs", threadId: "th_1" });
  expect(routeOf("#/runs/run_1")).toEqual({ page: "run", runId: "run_1" });
  expect(routeOf("#/dead-letters")).toEqual({ page: "dead-letters" });
  expect(routeOf("#/runs/../../x")).toEqual({ page: "unknown", path: "runs/../../x" });
  expect(routeOf("#/runs/<img>")).toMatchObject({ page: "unknown" });
});

test("a filter that goes on gives what one over the whole gives", () => {
  const event = fc.tuple(fc.constantFrom("tool.started", "tool.failed", "message.delta", "notice"), fc.string({ maxLength: 4 }));
  fc.assert(
    fc.property(fc.array(event), fc.constantFrom("", "a", "tool"), fc.constantFrom("", "tool.", "notice"), fc.nat(5), (drafts, query, type, chunk) => {
      const all = drafts.map(([name, text], index) => eventOf(index + 1, name, { text }));
      const log: RunEvent[] = [];
      const filter = new RawFilter();
      for (let at = 0; at <= all.length; at += chunk + 1) {
        log.push(...all.slice(log.length, at));
        filter.apply(log, query, type);
      }
      log.push(...all.slice(log.length));
      const expected = all.filter(
        (each) =>
          (type === "" || (type.endsWith(".") ? each.type.startsWith(type) : each.type === type)) &&
          lineOf(each).toLowerCase().includes(query),
      );
      expect(filter.apply(log, query, type)).toEqual(expected);
      expect(filter.apply(log, "", "")).toEqual(all);
    }),
  );
});

test("durations and codes in words", () => {
  expect([0.0404, 1.5, 9.96, 59.6, 80, 3600].map(secondsOf)).toEqual(["40 ms", "1.5 s", "10 s", "1 min", "1 min 20 s", "60 min"]);
  expect(wordsOf("some_new_code")).toBe("some new code");
});
