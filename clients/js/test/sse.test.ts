import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MAX_EVENT_CHARS, sseReader } from "../src/sse.js";

type Said = ["event", string, string, string] | ["comment"] | ["retry", number];

function read(pieces: Iterable<string>): Said[] {
  const said: Said[] = [];
  const feed = sseReader({
    event: (type, data, id) => said.push(["event", type, data, id]),
    comment: () => said.push(["comment"]),
    retry: (ms) => said.push(["retry", ms]),
  });
  for (const piece of pieces) feed(piece);
  return said;
}

describe("what the standard says", () => {
  const cases: [string, string, Said[]][] = [
    ["an event", "id: e.1\nevent: a\ndata: {}\n\n", [["event", "a", "{}", "e.1"]]],
    ["without a type", "data: x\n\n", [["event", "message", "x", ""]]],
    ["several data lines", "data: x\ndata:y\ndata\n\n", [["event", "message", "x\ny\n", ""]]],
    ["lines of one event that end with CRLF", "data: x\r\ndata: y\r\n\r\n", [["event", "message", "x\ny", ""]]],
    ["one space is taken away", "data:  x\n\n", [["event", "message", " x", ""]]],
    ["colons in the value", "data: a:b: c\n\n", [["event", "message", "a:b: c", ""]]],
    [
      "without data nothing is said, and the type is forgotten",
      "event: a\n\ndata: x\n\n",
      [["event", "message", "x", ""]],
    ],
    [
      "the id stays",
      "id: 7\ndata: x\n\ndata: y\n\n",
      [
        ["event", "message", "x", "7"],
        ["event", "message", "y", "7"],
      ],
    ],
    ["an id with a null is none", "id: 7\nid: a\0b\ndata: x\n\n", [["event", "message", "x", "7"]]],
    ["a comment", ": keep-alive\n\n", [["comment"]]],
    ["retry", "retry: 250\n\nretry: soon\n\nretry: -1\n\n", [["retry", 250]]],
    ["unknown fields pass", "color: red\ndata: x\n\n", [["event", "message", "x", ""]]],
    ["no blank line, no event", "data: x\n", []],
    [
      "CR and CRLF",
      "data: x\r\rdata: y\r\n\r\ndata: z\n\r\n",
      [
        ["event", "message", "x", ""],
        ["event", "message", "y", ""],
        ["event", "message", "z", ""],
      ],
    ],
    ["other line separators are text", "data: a\u2028b\u0085c\n\n", [["event", "message", "a\u2028b\u0085c", ""]]],
  ];
  test.each(cases)("%s", (_, text, said) => expect(read([text])).toEqual(said));
  test.each(cases)("%s, one character at a time", (_, text, said) => expect(read(text)).toEqual(said));
});

test("the borders of the pieces mean nothing", () => {
  const part = fc.constantFrom(
    "data: x",
    "data:",
    "id: 3",
    "event: run.reset",
    ": c",
    "retry: 5",
    "\n",
    "\r",
    "\r\n",
    "é😀",
    ":",
    " ",
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 40 }), fc.array(fc.nat(300), { maxLength: 12 }), (parts, borders) => {
      const text = parts.join("");
      const at = [0, ...borders.filter((border) => border <= text.length).sort((a, b) => a - b), text.length];
      const pieces = at.slice(1).map((end, index) => text.slice(at[index], end));
      expect(read(pieces)).toEqual(read([text]));
    }),
  );
});

test("a line of ten million characters in small pieces is one event, soon", () => {
  const piece = "x".repeat(1000);
  const began = performance.now();
  const said = read(
    (function* () {
      yield "data: ";
      for (let n = 0; n < 10_000; n += 1) yield piece;
      yield "\n\n";
    })(),
  );
  expect(said).toEqual([["event", "message", piece.repeat(10_000), ""]]);
  // Joined once, not with every piece (which takes minutes).
  expect(performance.now() - began).toBeLessThan(5_000);
});

test("what never ends is refused", () => {
  const feed = sseReader({ event: () => undefined });
  const piece = "x".repeat(MAX_EVENT_CHARS / 4);
  expect(() => {
    for (let n = 0; n < 5; n += 1) feed(piece);
  }).toThrow(RangeError);
  const lines = sseReader({ event: () => undefined });
  expect(() => {
    for (let n = 0; n < 5; n += 1) lines(`data:${piece}\n`);
  }).toThrow(RangeError);
});
