import { describe, expect, test } from "vitest";

import { hiddenIn, mistakesIn } from "../src/steering/check.js";
import { readJson, readNumber } from "../src/steering/fields.js";
import { changed, same, Unreadable, withOwn, withoutOwn } from "../src/steering/json.js";
import type { Draft, Json } from "../src/steering/json.js";
import { blank, fieldOf } from "../src/steering/schema.js";
import type { Schema } from "../src/steering/schema.js";

// As a server makes it from a function's signature.
const REFUND: Schema = {
  type: "object",
  properties: {
    order: { type: "string", pattern: "^ord_[0-9]+$", description: "Which order" },
    amount: { type: "number", exclusiveMinimum: 0, maximum: 100 },
    kind: { enum: ["full", "partial"], default: "full" },
    items: { type: "array", items: { $ref: "#/$defs/Item" }, default: [] },
    note: { anyOf: [{ type: "string" }, { type: "null" }], default: null },
    limits: { anyOf: [{ type: "object", additionalProperties: { type: "integer" } }, { type: "null" }], default: null },
    anything: { default: null },
    flag: { type: "boolean", default: false },
    both: { anyOf: [{ type: "integer" }, { type: "string" }], default: 1 },
  },
  required: ["order", "amount"],
  additionalProperties: false,
  $defs: {
    Item: {
      title: "Item",
      type: "object",
      properties: { sku: { type: "string" }, count: { type: "integer", minimum: 1, maximum: 99, default: 1 } },
      required: ["sku"],
    },
  },
};

const property = (name: string): Schema => (REFUND as { properties: Record<string, Schema> }).properties[name]!;
const said = (value: Draft, schema: Schema = REFUND): string[] =>
  mistakesIn(schema, value).map(({ path, text }) => `${path}: ${text}`);

describe("controls", () => {
  test.each([
    ["order", "text"],
    ["amount", "number"],
    ["kind", "choice"],
    ["items", "list"],
    ["note", "text"],
    ["limits", "json"],
    ["anything", "json"],
    ["flag", "boolean"],
    ["both", "json"],
  ])("%s is edited as %s", (name, kind) => {
    expect(fieldOf(property(name), REFUND, undefined).control.kind).toBe(kind);
  });

  test("what may be null says so, and keeps its default", () => {
    expect(fieldOf(property("note"), REFUND, undefined)).toMatchObject({ nullable: true, fallback: null });
    expect(fieldOf(property("order"), REFUND, undefined)).toMatchObject({
      nullable: false,
      description: "Which order",
    });
    expect(fieldOf({ type: ["string", "null"] }, {}, undefined)).toMatchObject({
      nullable: true,
      control: { kind: "text" },
    });
  });

  test("a reference is followed, also in an item; a circle ends", () => {
    const item = fieldOf({ $ref: "#/$defs/Item" }, REFUND, undefined).control;
    expect(item).toMatchObject({
      kind: "object",
      properties: [
        { name: "sku", required: true },
        { name: "count", required: false },
      ],
    });
    const circle: Schema = { $defs: { A: { $ref: "#/$defs/A" } }, $ref: "#/$defs/A" };
    expect(fieldOf(circle, circle, undefined).control.kind).toBe("json");
    expect(mistakesIn(circle, "x")).toEqual([]);
  });

  test("a value that the controls could not show whole is edited as JSON", () => {
    expect(fieldOf({ type: "object", properties: { a: {} } }, {}, { a: 1, b: 2 }).control.kind).toBe("json");
    expect(fieldOf({ type: "object" }, {}, {}).control.kind).toBe("json");
  });

  test("long texts get several lines", () => {
    expect(fieldOf({ type: "string" }, {}, "one\ntwo").control).toEqual({ kind: "text", long: true });
    expect(fieldOf({ type: "string" }, {}, "short").control).toEqual({ kind: "text", long: false });
  });

  test("a new item begins with its required fields", () => {
    expect(blank({ $ref: "#/$defs/Item" }, REFUND)).toEqual({ sku: "" });
    expect(blank(property("kind"), REFUND)).toBe("full");
  });
});

describe("mistakes", () => {
  test("what fits has none", () => {
    expect(
      said({ order: "ord_1", amount: 9.9, kind: "partial", items: [{ sku: "a", count: 99 }], note: null, both: "x" }),
    ).toEqual([]);
  });

  test.each<[string, Draft, string]>([
    ["a pattern", { order: "17", amount: 1 }, "/order: This must match the pattern ^ord_[0-9]+$"],
    ["a bound", { order: "ord_1", amount: 0 }, "/amount: This must be more than 0."],
    ["the other bound", { order: "ord_1", amount: 100.5 }, "/amount: This must be at most 100."],
    ["a missing field", { order: "ord_1" }, "/amount: This is required."],
    ["a field nobody knows", { order: "ord_1", amount: 1, more: 1 }, "/more: This field is not known here."],
    ["a choice", { order: "ord_1", amount: 1, kind: "none" }, "/kind: Choose one of: full, partial."],
    [
      "a nested bound",
      { order: "ord_1", amount: 1, items: [{ sku: "a", count: 0 }] },
      "/items/0/count: This must be at least 1.",
    ],
    ["a nested missing field", { order: "ord_1", amount: 1, items: [{}] }, "/items/0/sku: This is required."],
    ["another type", { order: "ord_1", amount: "1" }, "/amount: This must be a number."],
    ["a map's value", { order: "ord_1", amount: 1, limits: { a: 1.5 } }, "/limits/a: This must be a whole number."],
    [
      "none of several",
      { order: "ord_1", amount: 1, both: true },
      "/both: This fits none of the forms that are allowed here.",
    ],
    [
      "what cannot be read",
      { order: "ord_1", amount: new Unreadable("x", "This is not a number.") },
      "/amount: This is not a number.",
    ],
  ])("%s is said at its field", (_, value, text) => {
    expect(said(value)).toEqual([text]);
  });

  test("lengths count characters, not halves of them", () => {
    expect(said("🙂🙂", { type: "string", maxLength: 2 })).toEqual([]);
    expect(said("🙂🙂", { type: "string", minLength: 3 })).toEqual([": This needs 3 characters or more."]);
    expect(said("", { type: "string", minLength: 1 })).toEqual([": This must not be empty."]);
  });

  test("an exact multiple is one, whatever the processor makes of it", () => {
    expect(said(0.3, { multipleOf: 0.1 })).toEqual([]);
    expect(said(0.35, { multipleOf: 0.1 })).toEqual([": This must be a multiple of 0.1."]);
  });

  test("a pattern that could run for ever is left to the server", () => {
    const before = performance.now();
    expect(said(`${"a".repeat(40)}!`, { type: "string", pattern: "^(a+)+$" })).toEqual([]);
    expect(said(`${"a".repeat(40)}!`, { type: "string", pattern: "^(a|a)*$" })).toEqual([]);
    expect(performance.now() - before).toBeLessThan(200);
    expect(said("b", { type: "string", pattern: "(?P<python>a)" })).toEqual([]);
  });

  test("names of an object's prototype are ordinary names", () => {
    const hostile = JSON.parse('{"__proto__": {"a": 1}, "constructor": "x"}') as Draft;
    const open: Schema = { type: "object", properties: {}, additionalProperties: { type: "string" } };
    expect(said(hostile, open)).toEqual(["/__proto__: This must be a text."]);
    expect(said({}, { type: "object", required: ["constructor"] })).toEqual(["/constructor: This is required."]);
    expect(Object.getPrototypeOf(withOwn({}, "__proto__", 1))).toBe(Object.prototype);
    expect(Object.keys(withoutOwn(hostile as Record<string, Draft>, "constructor"))).toEqual(["__proto__"]);
  });

  test("a huge value does not stop the page", () => {
    const before = performance.now();
    mistakesIn(
      { type: "array", items: { type: "string" } },
      Array.from({ length: 300_000 }, (_, index) => index),
    );
    expect(performance.now() - before).toBeLessThan(1000);
  });

  test("what is hidden cannot be sent back", () => {
    expect(hiddenIn({ a: { b: ["x", "y [hidden] z"] } })).toEqual([
      { path: "/a/b/1", text: "A part of this is hidden from you. Type all of it, or reset it." },
    ]);
  });
});

describe("reading", () => {
  test.each([
    ["5", 5],
    [" -1.50 ", -1.5],
    ["1.", 1],
    ["1e3", 1000],
  ])("%j is a number", (text, number) => expect(readNumber(text, false)).toBe(number));

  test.each(["", "1,5", "0x10", "Infinity", "1e999", "--1", "5 5", "9007199254740993"])("%j is none", (text) => {
    expect(readNumber(text, false)).toBeInstanceOf(Unreadable);
  });

  test("a whole number with a point is one", () => {
    expect(readNumber("5.0", true)).toBe(5);
    expect(readNumber("5.5", true)).toBeInstanceOf(Unreadable);
  });

  test("JSON that is not finished is kept as it was typed", () => {
    expect(readJson('{"a": ')).toMatchObject({ text: '{"a": ' });
    expect(readJson("[1]")).toEqual([1]);
  });
});

describe("what is sent", () => {
  test("only top-level arguments that differ", () => {
    const before: Record<string, Json> = { a: 1, b: { x: [1, 2] }, c: "same" };
    expect(changed(before, { a: 2, b: { x: [1, 2] }, c: "same" })).toEqual({ a: 2 });
    expect(changed(before, { ...before, b: { x: [1, 3] }, d: null })).toEqual({ b: { x: [1, 3] }, d: null });
    expect(changed(before, before)).toEqual({});
  });

  test("the order of names is no difference, the order of items is", () => {
    expect(same({ a: 1, b: 2 }, { b: 2, a: 1 })).toBe(true);
    expect(same([1, 2], [2, 1])).toBe(false);
    expect(same({ a: undefined }, {})).toBe(false);
    expect(same([], {})).toBe(false);
    expect(same(null, {})).toBe(false);
  });
});
