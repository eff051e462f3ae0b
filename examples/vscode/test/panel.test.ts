// @vitest-environment happy-dom
/** The panel's page: what it draws, and that nothing a model says becomes markup. */

import { emptyView, type View } from "@midstream/client";
import { beforeAll, beforeEach, expect, test, vi } from "vitest";
import { blocksOf, changeOf, MAX_BLOCKS } from "../src/blocks.js";
import { MAX_BLOCK_CHARS, safeLine, safeText } from "../src/safe.js";

const postMessage = vi.fn();
const part = (id: string) => document.getElementById(id) as HTMLElement;

beforeAll(async () => {
  document.body.innerHTML = `<p id="status"></p><button id="decide"></button><button id="stop"></button>
    <main id="run"></main><ul id="corrections"></ul>
    <form id="say"><label id="label"></label><textarea id="text"></textarea><button id="send"></button></form>`;
  vi.stubGlobal("acquireVsCodeApi", () => ({ postMessage }));
  await import("../src/webview/panel.js");
  expect(postMessage.mock.calls).toEqual([[{ type: "ready" }]]);
});

beforeEach(() => postMessage.mockClear());

const message = (text: string, at = 0) => ({ message_id: `m${at}`, role: "assistant" as const, text, state: "open" as const });
const viewOf = (changes: Partial<View>): View => ({ ...emptyView("run_1"), ...changes });

function draw(data: object): void {
  const quiet = { status: "", running: true, waits: 0, corrections: [] };
  window.dispatchEvent(new MessageEvent("message", { data: { ...quiet, ...data } }));
}

test("pictures of a run that grows, shrinks and changes are those of its blocks", () => {
  const pictures = [
    ["one"],
    ["one two"],
    ["one two", "x"],
    ["one two three", "x"],
    ["other"],
    [],
    ["new"],
  ].map((texts) => blocksOf(viewOf({ messages: texts.map(message) })));
  let before: ReturnType<typeof blocksOf> = [];
  for (const now of pictures) {
    const change = changeOf(before, now);
    if (change) draw({ change });
    before = now;
    expect(Array.from(part("run").children, ({ textContent }) => textContent)).toEqual(now.map(({ text }) => text));
  }
  expect(changeOf(before, before)).toBeUndefined();
});

test("markup stays text", () => {
  const hostile = `<img src=x onerror="alert(1)"><script>alert(1)</script>`;
  draw({
    status: hostile,
    corrections: [{ id: "c", text: hostile }],
    change: { keep: 0, blocks: blocksOf(viewOf({ messages: [message(hostile)] })) },
  });
  expect(document.querySelectorAll("img, script")).toHaveLength(0);
  expect(part("run").textContent).toBe(hostile);
});

test("what a person types and presses is told", () => {
  draw({ corrections: [{ id: "c1", text: "moon" }], waits: 2 });
  part("corrections").querySelector("button")?.click();
  part("decide").click();
  part("stop").click();
  const text = part("text") as HTMLTextAreaElement;
  text.value = " more ";
  part("say").dispatchEvent(new Event("submit", { cancelable: true }));
  expect(postMessage.mock.calls.map(([said]) => said)).toEqual([
    { type: "revoke", id: "c1" },
    { type: "decide" },
    { type: "stop" },
    { type: "say", text: "more" },
  ]);
  expect(text.value).toBe("");
  draw({ returned: "more" });
  expect(text.value).toBe("more");
  draw({ returned: "never over what was typed" });
  expect(text.value).toBe("more");
});

test("what moves a cursor or turns text is shown and not done", () => {
  expect(safeText("\x1b[2J\u202egnp.exe\r\n\t")).toBe("␛[2J<U+202E>gnp.exe\n\t");
  expect(safeLine("a\nb  c")).toBe("a b c");
  expect(safeLine("x".repeat(10_000_000))).toHaveLength(200);
});

test("ten megabytes on one line, and thousands of messages, are cut", () => {
  const [long] = blocksOf(viewOf({ messages: [message("x".repeat(10_000_000))] }));
  expect(long?.text.length).toBeLessThan(MAX_BLOCK_CHARS + 100);
  const many = blocksOf(viewOf({ messages: Array.from({ length: MAX_BLOCKS + 5 }, (_, at) => message("x", at)) }));
  expect(many).toHaveLength(MAX_BLOCKS);
  expect(many.at(-1)?.key).toBe(`m${MAX_BLOCKS + 4}`);
});
