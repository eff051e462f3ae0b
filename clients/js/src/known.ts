/**
 * What a server sent, without what this version does not know: a field that no structure of the protocol has, `null`
 * where a field is left out, and a value of another kind than its field's are as if they were not there. A name means
 * one thing wherever it stands, so one list of names says all of it. What is open on the wire (arguments, an object's
 * data, a result) stays the very value it was; closed sets of words are not checked.
 */

import { FIELDS } from "./fields.gen.js";

const SIGNS = new Map(FIELDS.split(" ").map((field) => [field.replace(/\W/, ""), field.replace(/\w+/, "")]));

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isText = (value: unknown) => typeof value === "string";

/** Whether `value` is what a field with this sign holds: see scripts/types.mjs. */
function fits(sign: string | undefined, value: unknown): boolean {
  switch (sign) {
    case "":
      return isText(value);
    case "#":
      return typeof value === "number";
    case "!":
      return typeof value === "boolean";
    case "*":
      return true;
    case "~":
      return isText(value) || isObject(value);
    case "{":
    case "=":
      return isObject(value);
    case "%":
      return isObject(value) && Object.values(value).every(isObject);
    case ",":
      return Array.isArray(value) && value.every(isText);
    default:
      return sign !== undefined && Array.isArray(value) && value.every(isObject);
  }
}

/** `value` in a new object, with the fields that are known and fit. */
export function known(value: object): Record<string, unknown> {
  const read: Record<string, unknown> = {};
  for (const [name, part] of Object.entries(value)) {
    const sign = SIGNS.get(name);
    if (fits(sign, part)) {
      if (sign === "[") read[name] = part.map(known);
      else if (sign === "%") read[name] = named(part);
      else read[name] = sign === "=" || (sign === "~" && isObject(part)) ? known(part) : part;
    }
  }
  return read;
}

/** Keys that are somebody's names. `fromEntries` defines them, so one called `__proto__` is a name like any other. */
function named(parts: Record<string, object>): object {
  return Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, known(part)]));
}
