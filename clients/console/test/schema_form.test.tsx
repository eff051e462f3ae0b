import { render } from "preact";
import { useState } from "preact/hooks";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { mistakesIn } from "../src/steering/check.js";
import type { Draft, Json } from "../src/steering/json.js";
import { SchemaForm } from "../src/steering/schema_form.js";
import type { Schema } from "../src/steering/schema.js";

let place: HTMLElement;
let value: Draft;

beforeEach(() => {
  place = document.body.appendChild(document.createElement("div"));
});
afterEach(() => {
  render(null, place);
  place.remove();
});

function Shown({ schema, first, keepsAll }: { schema: Schema; first: Json; keepsAll: boolean }) {
  const [now, set] = useState<Draft>(first);
  value = now;
  return (
    <SchemaForm
      id="f"
      label="Arguments"
      schema={schema}
      value={now}
      original={first}
      mistakes={mistakesIn(schema, now)}
      keepsAll={keepsAll}
      onChange={set}
    />
  );
}

async function show(schema: Schema, first: Json, keepsAll = false): Promise<void> {
  await act(() => render(<Shown schema={schema} first={first} keepsAll={keepsAll} />, place));
}

const field = <Control extends HTMLElement = HTMLInputElement>(id: string): Control => {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`no field ${id} in ${place.innerHTML}`);
  return found as Control;
};

async function type(id: string, text: string): Promise<void> {
  await act(() => {
    const at = field<HTMLInputElement>(id);
    at.value = text;
    at.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

async function press(name: string): Promise<void> {
  const found = [...place.querySelectorAll("button")].find((each) => each.textContent?.trim() === name);
  if (found === undefined)
    throw new Error(`no button ${name}: ${[...place.querySelectorAll("button")].map((each) => each.textContent)}`);
  await act(() => found.click());
}

const object = (properties: Record<string, Schema>, required: string[] = []): Schema => ({
  type: "object",
  properties,
  required,
});

describe("a form", () => {
  test("what is typed into a number stays as it was typed while it is read", async () => {
    await show(object({ n: { type: "number" } }), { n: 1 });
    for (const [text, read] of [
      ["1.", 1],
      ["1.5", 1.5],
      ["1.50", 1.5],
    ] as const) {
      await type("f-n", text);
      expect(value).toEqual({ n: read });
      expect(field("f-n").value).toBe(text);
    }
    await type("f-n", "1.5x");
    expect(field("f-n").value).toBe("1.5x");
    expect(place.textContent).toContain("This is not a number.");
    expect(field("f-n").getAttribute("aria-invalid")).toBe("true");
  });

  test("a reset writes the proposed value anew", async () => {
    await show(object({ n: { type: "number" } }), { n: 1 });
    await type("f-n", "x");
    await press("Reset n");
    expect(value).toEqual({ n: 1 });
    expect(field("f-n").value).toBe("1");
  });

  test("JSON can be unfinished", async () => {
    await show(object({ any: {} }), { any: { a: 1 } });
    await type("f-any", "[1,");
    expect(field("f-any").value).toBe("[1,");
    expect(place.textContent).toContain("This is not JSON yet");
    await type("f-any", "[1, 2]");
    expect(value).toEqual({ any: [1, 2] });
    expect(field("f-any").value).toBe("[1, 2]");
  });

  test("a list grows and shrinks within its bounds", async () => {
    await show(object({ tags: { type: "array", items: { type: "string" }, maxItems: 2 } }), { tags: ["a"] });
    await press("Add an item to tags");
    await type("f-tags-1", "b");
    expect(value).toEqual({ tags: ["a", "b"] });
    expect(place.textContent).not.toContain("Add an item");
    await press("Remove tags 1");
    expect(value).toEqual({ tags: ["b"] });
    expect(field("f-tags-0").value).toBe("b");
  });

  test("a field that may be null is emptied and filled in", async () => {
    await show(object({ note: { anyOf: [{ type: "string" }, { type: "null" }], default: null } }), { note: "x" });
    await press("Empty note");
    expect(value).toEqual({ note: null });
    await press("Fill in note");
    await type("f-note", "y");
    expect(value).toEqual({ note: "y" });
  });

  test("an optional field is added and taken out; one that was proposed stays", async () => {
    const schema = object({ a: { type: "string" }, b: { type: "integer", default: 5 } });
    await show(schema, { a: "x" }, true);
    await press("Add b");
    expect(value).toEqual({ a: "x", b: 5 });
    await press("Remove b");
    expect(value).toEqual({ a: "x" });
    expect(place.textContent).not.toContain("Remove a");
  });

  test("something hidden is replaced as a whole or stays as it is", async () => {
    await show(object({ password: { type: "string" } }), { password: "[hidden]" });
    expect(place.querySelector("input")).toBeNull();
    await press("Replace password");
    await type("f-password", "new");
    expect(value).toEqual({ password: "new" });
  });

  test("a text with characters that cannot be seen is written where they can", async () => {
    await show(object({ path: { type: "string" } }), { path: "a\u202eb" });
    expect(field("f-path").value).toBe('"a\\u202eb"');
    await type("f-path", '"ab"');
    expect(value).toEqual({ path: "ab" });
  });

  test("labels are text, each control has one, and mistakes belong to their fields", async () => {
    const name = "<img src=x>\u202e";
    await show(object({ [name]: { type: "string", minLength: 3, description: "<b>help</b>" } }), { [name]: "x" });
    expect(place.querySelector("img, b")).toBeNull();
    const input = place.querySelector("input")!;
    expect(place.querySelector(`label[for="${input.id}"]`)?.textContent).toBe("<img src=x>[U+202E]");
    const described = input
      .getAttribute("aria-describedby")!
      .split(" ")
      .map((id) => document.getElementById(id)?.textContent);
    expect(described).toEqual(["<b>help</b>", "This needs 3 characters or more."]);
  });

  test("a mistake at a place without a field is said all the same", async () => {
    const schema: Schema = object({ map: { type: "object", additionalProperties: { type: "integer" } } });
    await show(schema, { map: { a: "x" } });
    expect(place.querySelector(".mistakes")?.textContent).toContain("/map/a This must be a whole number.");
  });
});
