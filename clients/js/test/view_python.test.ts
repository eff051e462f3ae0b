/** Random logs, folded here and by the server's own function: the same views. */

import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { View } from "../src/protocol.js";
import { emptyView, foldAll, readView } from "../src/view.js";
import { logs, RUN_ID } from "./logs.js";
import { PYTHON } from "./python.js";

const LOGS = 400;

const FOLD = `
import json, sys
from midstream_protocol import decode_event, fold_all, view_to_builtins
for line in sys.stdin:
    view = fold_all(decode_event(json.dumps(event)) for event in json.loads(line))
    print(json.dumps(view_to_builtins(view)))
`;

test("the server's fold makes the same views", () => {
  const made = fc.sample(logs, LOGS).filter((events) => events.length > 0);
  const ran = spawnSync(PYTHON, ["-c", FOLD], {
    input: made.map((events) => `${JSON.stringify(events)}\n`).join(""),
    encoding: "utf8",
    maxBuffer: 1e9,
  });
  expect(ran.stderr).toBe("");
  const views = ran.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as View);
  expect(views.length).toBe(made.length);
  made.forEach((events, at) => {
    const view = foldAll(emptyView(RUN_ID), events);
    expect(view, JSON.stringify(events)).toStrictEqual(views[at]);
    expect(readView(views[at])).toStrictEqual(views[at]);
  });
}, 30_000);
