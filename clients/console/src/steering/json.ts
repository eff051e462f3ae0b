/** JSON values while somebody types them. Names come off the wire, so nothing is set by `object[name]`. */

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: Json;
}

/** What was typed into a field and is not a value yet: kept so that it stays in the field, and never sent. */
export class Unreadable {
  readonly text: string;
  readonly why: string;
  constructor(text: string, why: string) {
    this.text = text;
    this.why = why;
  }
}

/** A value being edited. */
export type Draft = null | boolean | number | string | Unreadable | readonly Draft[] | DraftObject;
export interface DraftObject {
  readonly [name: string]: Draft;
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Unreadable);
}

/** An own property, never one of the prototype's. */
export function own(object: Readonly<Record<string, unknown>>, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** A copy with one property set. */
export function withOwn<Value>(
  object: Readonly<Record<string, Value>>,
  name: string,
  value: Value,
): Record<string, Value> {
  const entries = Object.entries(object);
  const at = entries.findIndex(([each]) => each === name);
  if (at === -1) entries.push([name, value]);
  else entries[at] = [name, value];
  return Object.fromEntries(entries);
}

export function withoutOwn<Value>(object: Readonly<Record<string, Value>>, name: string): Record<string, Value> {
  return Object.fromEntries(Object.entries(object).filter(([each]) => each !== name));
}

/** Whether two values are the same JSON, whatever the order of names. An unreadable draft equals nothing. */
export function same(one: unknown, other: unknown): boolean {
  if (one === other) return !(one instanceof Unreadable);
  if (Array.isArray(one)) {
    return Array.isArray(other) && one.length === other.length && one.every((each, index) => same(each, other[index]));
  }
  if (!isObject(one) || !isObject(other)) return false;
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every((name) => Object.hasOwn(other, name) && same(one[name], other[name]))
  );
}

/** The top-level arguments that differ from what was proposed: what an answer sends. */
export function changed(before: JsonObject, now: DraftObject): DraftObject {
  return Object.fromEntries(
    Object.entries(now).filter(([name, value]) => !Object.hasOwn(before, name) || !same(before[name], value)),
  );
}

/** A JSON Pointer one step down. */
export function below(path: string, part: string | number): string {
  return `${path}/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`;
}
