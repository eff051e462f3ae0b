/**
 * Whether a draft fits a JSON Schema, said at the fields while somebody types. Pure. It knows the keywords that tools'
 * schemas use and passes over the others: the server checks all of them, and its word is the last.
 */

import { below, isObject, own, same, Unreadable } from "./json.js";
import type { Draft } from "./json.js";
import { countOf, resolved, typesOf } from "./schema.js";
import type { Schema } from "./schema.js";

export interface Mistake {
  /** JSON Pointer of the field. */
  readonly path: string;
  readonly text: string;
}

/** Mistakes said at once: nobody corrects more in one go. */
export const MAX_MISTAKES = 50;
/** Allowed values named in one mistake. */
const MAX_NAMED = 12;
/** Values visited in one check: a pasted document must not stop the page. What is beyond, the server checks. */
const MAX_VISITS = 20_000;
/** Schemas within one another: an end for those that name themselves. */
const MAX_DEPTH = 64;
/** Characters that a pattern is tried on here. */
const MAX_PATTERN_TEXT = 10_000;
/** What stands for a hidden value. The server refuses it as one. */
export const HIDDEN = "[hidden]";

/** What is wrong with `value`; empty when nothing is that can be seen here. */
export function mistakesIn(schema: Schema, value: Draft): readonly Mistake[] {
  const check = new Check(schema);
  check.visit(schema, value, "", 0);
  return check.mistakes;
}

class Check {
  readonly mistakes: Mistake[] = [];
  readonly root: Schema;
  visits = 0;

  constructor(root: Schema) {
    this.root = root;
  }

  visit(found: Schema, value: Draft, path: string, depth: number): void {
    this.visits += 1;
    if (this.mistakes.length >= MAX_MISTAKES || this.visits > MAX_VISITS || depth > MAX_DEPTH) return;
    if (value instanceof Unreadable) {
      this.say(path, value.why);
      return;
    }
    const schema = resolved(found, this.root);
    if (schema === false) this.say(path, "Nothing may stand here.");
    if (!isObject(schema)) return;
    if (!this.#kind(schema, value, path)) return;
    if (typeof value === "number") this.#number(schema, value, path);
    if (typeof value === "string") this.#text(schema, value, path);
    if (Array.isArray(value)) this.#list(schema, value as readonly Draft[], path, depth);
    else if (isObject(value)) this.#object(schema, value as Readonly<Record<string, Draft>>, path, depth);
    const all = own(schema, "allOf");
    if (Array.isArray(all)) for (const each of all) this.visit(each as Schema, value, path, depth + 1);
    const any = own(schema, "anyOf") ?? own(schema, "oneOf");
    if (Array.isArray(any)) this.#any(any as readonly Schema[], value, path, depth);
  }

  say(path: string, text: string): void {
    if (this.mistakes.length < MAX_MISTAKES) this.mistakes.push({ path, text });
  }

  #kind(schema: Readonly<Record<string, unknown>>, value: Draft, path: string): boolean {
    const types = typesOf(schema);
    if (types.length > 0 && !types.some((type) => isOf(type, value))) {
      this.say(path, `This must be ${types.map((type) => ARTICLE.get(type) ?? type).join(" or ")}.`);
      return false;
    }
    const options = own(schema, "enum");
    if (Array.isArray(options) && !options.some((each) => same(each, value))) {
      const more = options.length > MAX_NAMED ? ` and ${options.length - MAX_NAMED} more` : "";
      this.say(path, `Choose one of: ${options.slice(0, MAX_NAMED).map(shown).join(", ")}${more}.`);
      return false;
    }
    if (Object.hasOwn(schema, "const") && !same(own(schema, "const"), value)) {
      this.say(path, `This must be ${shown(own(schema, "const"))}.`);
      return false;
    }
    return true;
  }

  #number(schema: Readonly<Record<string, unknown>>, value: number, path: string): void {
    const [min, above] = [countOf(schema, "minimum"), countOf(schema, "exclusiveMinimum")];
    const [max, under] = [countOf(schema, "maximum"), countOf(schema, "exclusiveMaximum")];
    if (min !== undefined && value < min) this.say(path, `This must be at least ${min}.`);
    if (above !== undefined && value <= above) this.say(path, `This must be more than ${above}.`);
    if (max !== undefined && value > max) this.say(path, `This must be at most ${max}.`);
    if (under !== undefined && value >= under) this.say(path, `This must be less than ${under}.`);
    const step = countOf(schema, "multipleOf");
    if (step !== undefined && step > 0) {
      const times = value / step;
      // 0.3 is three times 0.1, although a processor's arithmetic is not so sure.
      if (Math.abs(times - Math.round(times)) > 1e-9 * Math.max(1, Math.abs(times))) {
        this.say(path, `This must be a multiple of ${step}.`);
      }
    }
  }

  #text(schema: Readonly<Record<string, unknown>>, value: string, path: string): void {
    const [min, max] = [countOf(schema, "minLength"), countOf(schema, "maxLength")];
    if ((min !== undefined && value.length < 2 * min) || (max !== undefined && value.length > max)) {
      // Characters, where JavaScript counts the halves of some twice.
      const length = [...value].length;
      if (min !== undefined && length < min) {
        this.say(path, length === 0 ? "This must not be empty." : `This needs ${counted(min, "character")} or more.`);
      }
      if (max !== undefined && length > max) this.say(path, `This may have ${counted(max, "character")} at most.`);
    }
    const pattern = own(schema, "pattern");
    if (typeof pattern === "string" && value.length <= MAX_PATTERN_TEXT && compiled(pattern)?.test(value) === false) {
      this.say(path, `This must match the pattern ${pattern}`);
    }
    const format = own(schema, "format");
    if (typeof format === "string" && FORMATS.get(format)?.pattern.test(value) === false) {
      this.say(path, FORMATS.get(format)!.text);
    }
  }

  #list(schema: Readonly<Record<string, unknown>>, value: readonly Draft[], path: string, depth: number): void {
    const [min, max] = [countOf(schema, "minItems"), countOf(schema, "maxItems")];
    if (min !== undefined && value.length < min) this.say(path, `This needs ${counted(min, "item")} or more.`);
    if (max !== undefined && value.length > max) this.say(path, `This may have ${counted(max, "item")} at most.`);
    if (own(schema, "uniqueItems") === true && value.length <= 200) {
      const twice = value.findIndex((each, index) => value.slice(0, index).some((before) => same(before, each)));
      if (twice !== -1) this.say(below(path, twice), "This item is in the list already.");
    }
    const first = own(schema, "prefixItems");
    const fixed = Array.isArray(first) ? first : [];
    const item = own(schema, "items");
    value.forEach((each, index) => {
      const rule: unknown = index < fixed.length ? fixed[index] : item;
      if (isObject(rule) || typeof rule === "boolean") this.visit(rule, each, below(path, index), depth + 1);
    });
  }

  #object(
    schema: Readonly<Record<string, unknown>>,
    value: Readonly<Record<string, Draft>>,
    path: string,
    depth: number,
  ): void {
    const declared = own(schema, "properties");
    const properties = isObject(declared) ? declared : {};
    const required = own(schema, "required");
    for (const name of Array.isArray(required) ? required : []) {
      if (typeof name === "string" && !Object.hasOwn(value, name)) this.say(below(path, name), "This is required.");
    }
    const rest = own(schema, "additionalProperties");
    for (const [name, each] of Object.entries(value)) {
      const rule = own(properties, name) ?? (Object.hasOwn(schema, "patternProperties") ? true : rest);
      if (rule === false && !Object.hasOwn(properties, name))
        this.say(below(path, name), "This field is not known here.");
      else if (isObject(rule) || typeof rule === "boolean") this.visit(rule, each, below(path, name), depth + 1);
      else if (each instanceof Unreadable) this.say(below(path, name), each.why);
    }
    const [min, max] = [countOf(schema, "minProperties"), countOf(schema, "maxProperties")];
    const count = Object.keys(value).length;
    if (min !== undefined && count < min) this.say(path, `This needs ${counted(min, "field")} or more.`);
    if (max !== undefined && count > max) this.say(path, `This may have ${counted(max, "field")} at most.`);
  }

  #any(any: readonly Schema[], value: Draft, path: string, depth: number): void {
    let nearest: readonly Mistake[] | undefined;
    for (const each of any) {
      const check = new Check(this.root);
      check.visits = this.visits;
      check.visit(each, value, path, depth + 1);
      this.visits = check.visits;
      if (check.mistakes.length === 0) return;
      // What fits except for something deeper was meant: its mistakes say more than those of the other branches.
      const deeper = check.mistakes.every(
        (mistake) => mistake.path !== path || !mistake.text.startsWith("This must be a"),
      );
      if (deeper) nearest ??= check.mistakes;
    }
    if (any.length === 0) return;
    if (nearest !== undefined) for (const each of nearest) this.say(each.path, each.text);
    else this.say(path, "This fits none of the forms that are allowed here.");
  }
}

/** Top-level arguments to be sent in which something hidden stands: the server would refuse them. */
export function hiddenIn(value: Draft, path = ""): readonly Mistake[] {
  if (typeof value === "string") {
    return value.includes(HIDDEN)
      ? [{ path, text: "A part of this is hidden from you. Type all of it, or reset it." }]
      : [];
  }
  if (Array.isArray(value))
    return (value as readonly Draft[]).flatMap((each, index) => hiddenIn(each, below(path, index)));
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([name, each]) => hiddenIn(each as Draft, below(path, name)));
}

const ARTICLE: ReadonlyMap<string, string> = new Map([
  ["string", "a text"],
  ["number", "a number"],
  ["integer", "a whole number"],
  ["boolean", "yes or no"],
  ["array", "a list"],
  ["object", "an object"],
  ["null", "empty (null)"],
]);

const FORMATS: ReadonlyMap<string, { pattern: RegExp; text: string }> = new Map([
  ["date", { pattern: /^\d{4}-\d{2}-\d{2}$/, text: "Write a date as 2026-12-31." }],
  [
    "date-time",
    { pattern: /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}/, text: "Write a date and a time as 2026-12-31T12:00:00Z." },
  ],
  ["email", { pattern: /^[^\s@]+@[^\s@]+$/, text: "Write an address as name@example.org." }],
]);

function isOf(type: string, value: Draft): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "integer":
      return typeof value === "number" && Number.isInteger(value);
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    case "string":
    case "number":
    case "boolean":
      return typeof value === type;
    default:
      return true;
  }
}

const patterns = new Map<string, RegExp | undefined>();
/** Repetition of something that repeats: what can take for ever to not match. */
const REPEATS_IN_REPEATS = /[*+}]\??\)[*+{]|\([^()]*[*+|][^()]*\)[*+{]/;
const MAX_PATTERN = 500;

/** A pattern that is safe to try here. Of the others, also those of another dialect, the server judges. */
function compiled(pattern: string): RegExp | undefined {
  if (!patterns.has(pattern)) {
    let made: RegExp | undefined;
    if (pattern.length <= MAX_PATTERN && !REPEATS_IN_REPEATS.test(pattern)) {
      try {
        made = new RegExp(pattern, "u");
      } catch {
        made = undefined;
      }
    }
    if (patterns.size > 200) patterns.clear();
    patterns.set(pattern, made);
  }
  return patterns.get(pattern);
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
