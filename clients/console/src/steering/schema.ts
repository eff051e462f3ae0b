/** What a JSON Schema says about one field of a form: which control it gets. Pure. */

import { isObject, own } from "./json.js";
import type { Draft, DraftObject, Json } from "./json.js";

/** A schema of the wire; `true` and `{}` allow anything. */
export type Schema = Readonly<Record<string, unknown>> | boolean;

export interface Property {
  readonly name: string;
  readonly schema: Schema;
  readonly required: boolean;
}

/** `json` is a text area with JSON: what the other controls cannot express is typed as it is. */
export type Control =
  | { readonly kind: "text"; readonly long: boolean }
  | { readonly kind: "number"; readonly integer: boolean }
  | { readonly kind: "boolean" }
  | { readonly kind: "choice"; readonly options: readonly Json[] }
  | { readonly kind: "list"; readonly item: Schema; readonly min: number; readonly max: number }
  | { readonly kind: "object"; readonly properties: readonly Property[] }
  | { readonly kind: "json" };

export interface Field {
  readonly control: Control;
  readonly nullable: boolean;
  readonly title: string | undefined;
  readonly description: string | undefined;
  readonly fallback: Json | undefined;
}

/** Steps of `$ref` and of one-branch unions that are followed: more than anybody writes, and an end to a circle. */
const MAX_STEPS = 16;
/** Objects and lists within one another that get controls of their own; what is deeper is edited as JSON. */
export const MAX_FORM_DEPTH = 6;
/** Options of one choice, and fields of one object, that get controls; what has more is edited as JSON. */
const MAX_OPTIONS = 200;
/** List items that get controls; a longer list is edited as JSON. */
export const MAX_ITEMS = 100;
/** Characters from which a text gets several lines. */
const LONG_TEXT = 60;

/** The schema that a `$ref` into `root` names; one that cannot be followed allows anything (the server decides). */
export function resolved(schema: Schema, root: Schema): Schema {
  let at = schema;
  for (let step = 0; step < MAX_STEPS; step += 1) {
    if (!isObject(at) || typeof own(at, "$ref") !== "string") return at;
    const found = pointed(root, own(at, "$ref") as string);
    if (found === undefined) return true;
    at = found;
  }
  return true;
}

function pointed(root: Schema, reference: string): Schema | undefined {
  if (!reference.startsWith("#")) return undefined;
  let at: unknown = root;
  for (const part of reference.slice(1).split("/").slice(1)) {
    const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
    at = isObject(at) ? own(at, name) : undefined;
  }
  return isObject(at) || typeof at === "boolean" ? at : undefined;
}

/** The types a schema names; empty when it names none. */
export function typesOf(schema: Readonly<Record<string, unknown>>): readonly string[] {
  const type = own(schema, "type");
  if (typeof type === "string") return [type];
  return Array.isArray(type) ? type.filter((each): each is string => typeof each === "string") : [];
}

function branches(schema: Readonly<Record<string, unknown>>): readonly Schema[] | undefined {
  const found = own(schema, "anyOf") ?? own(schema, "oneOf");
  return Array.isArray(found)
    ? (found.filter((each) => isObject(each) || typeof each === "boolean") as Schema[])
    : undefined;
}

const isNull = (schema: Schema): boolean =>
  isObject(schema) && (own(schema, "const") === null || same(typesOf(schema), ["null"]));

const same = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && one.every((each, index) => each === other[index]);

/** How a field of this schema is edited. `value` is what stands in it: a union is edited as what it holds. */
export function fieldOf(schema: Schema, root: Schema, value: Draft | undefined, depth = 0): Field {
  let nullable = false;
  let title: string | undefined;
  let description: string | undefined;
  let fallback: Json | undefined;
  let at = resolved(schema, root);
  const noted = (from: Schema): void => {
    if (!isObject(from)) return;
    title ??= textOf(from, "title");
    description ??= textOf(from, "description");
    // Null is a default like any other.
    if (fallback === undefined) fallback = own(from, "default") as Json | undefined;
  };
  noted(schema);
  for (let step = 0; step < MAX_STEPS && isObject(at); step += 1) {
    noted(at);
    const all = branches(at);
    const alone = own(at, "allOf");
    if (all !== undefined) {
      const rest = all.filter((each) => !isNull(resolved(each, root)));
      nullable ||= rest.length < all.length;
      if (rest.length !== 1) {
        const options = rest.map((each) => constantOf(resolved(each, root)));
        const control: Control =
          options.length <= MAX_OPTIONS && options.every((each) => each !== undefined)
            ? { kind: "choice", options: options.filter((each) => each !== undefined) }
            : { kind: "json" };
        return { control, nullable, title, description, fallback };
      }
      at = resolved(rest[0]!, root);
    } else if (Array.isArray(alone) && alone.length === 1) {
      at = resolved(alone[0] as Schema, root);
    } else break;
  }
  if (!isObject(at)) return { control: { kind: "json" }, nullable, title, description, fallback };
  noted(at);
  const types = typesOf(at);
  nullable ||= types.includes("null") && types.length > 1;
  return {
    control: controlOf(
      at,
      types.filter((each) => each !== "null"),
      value,
      depth,
    ),
    nullable,
    title,
    description,
    fallback,
  };
}

function controlOf(
  schema: Readonly<Record<string, unknown>>,
  types: readonly string[],
  value: Draft | undefined,
  depth: number,
): Control {
  const options = own(schema, "enum");
  if (
    Array.isArray(options) &&
    options.length > 0 &&
    options.length <= MAX_OPTIONS &&
    options.every((each) => !isObject(each) && !Array.isArray(each))
  ) {
    return { kind: "choice", options: (options as Json[]).filter((each) => each !== null || types.length === 0) };
  }
  if (Object.hasOwn(schema, "const")) {
    const only = own(schema, "const") as Json;
    return isObject(only) || Array.isArray(only) ? { kind: "json" } : { kind: "choice", options: [only] };
  }
  if (types.length !== 1) return { kind: "json" };
  switch (types[0]) {
    case "string":
      return { kind: "text", long: isLong(schema, value) };
    case "integer":
    case "number":
      return { kind: "number", integer: types[0] === "integer" };
    case "boolean":
      return { kind: "boolean" };
    case "array": {
      const item = own(schema, "items");
      const plain = isObject(item) && !Object.hasOwn(schema, "prefixItems");
      if (!plain || depth >= MAX_FORM_DEPTH || !(value === undefined || Array.isArray(value))) return { kind: "json" };
      return {
        kind: "list",
        item,
        min: countOf(schema, "minItems") ?? 0,
        max: countOf(schema, "maxItems") ?? Infinity,
      };
    }
    case "object":
      return objectControl(schema, value, depth);
    default:
      return { kind: "json" };
  }
}

function objectControl(schema: Readonly<Record<string, unknown>>, value: Draft | undefined, depth: number): Control {
  const declared = own(schema, "properties");
  // A map of any names, and a value with names that are not declared, are whole only as JSON.
  if (!isObject(declared) || depth >= MAX_FORM_DEPTH || Object.keys(declared).length > MAX_OPTIONS)
    return { kind: "json" };
  if (value !== undefined && !isObject(value)) return { kind: "json" };
  if (Object.keys((value as DraftObject | undefined) ?? {}).some((name) => !Object.hasOwn(declared, name))) {
    return { kind: "json" };
  }
  const required = own(schema, "required");
  const names = Array.isArray(required) ? required : [];
  return {
    kind: "object",
    properties: Object.entries(declared).map(([name, each]) => ({
      name,
      schema: isObject(each) || typeof each === "boolean" ? each : true,
      required: names.includes(name),
    })),
  };
}

function isLong(schema: Readonly<Record<string, unknown>>, value: Draft | undefined): boolean {
  const text = typeof value === "string" ? value : "";
  const max = countOf(schema, "maxLength");
  if (text.length > LONG_TEXT || text.includes("\n")) return true;
  return max !== undefined && max > 4 * LONG_TEXT && own(schema, "pattern") === undefined;
}

export function countOf(schema: Readonly<Record<string, unknown>>, keyword: string): number | undefined {
  const count = own(schema, keyword);
  return typeof count === "number" && Number.isFinite(count) ? count : undefined;
}

function textOf(schema: Readonly<Record<string, unknown>>, keyword: string): string | undefined {
  const text = own(schema, keyword);
  return typeof text === "string" && text !== "" ? text : undefined;
}

function constantOf(schema: Schema): Json | undefined {
  if (!isObject(schema)) return undefined;
  const only = own(schema, "const");
  return only === undefined || isObject(only) || Array.isArray(only) ? undefined : (only as Json);
}

/** What a new field of this schema holds at first: its default, else the emptiest value of its kind. */
export function blank(schema: Schema, root: Schema, depth = 0): Json {
  const { control, nullable, fallback } = fieldOf(schema, root, undefined, depth);
  if (fallback !== undefined) return fallback;
  if (nullable) return null;
  switch (control.kind) {
    case "text":
      return "";
    case "number":
      return 0;
    case "boolean":
      return false;
    case "choice":
      return control.options[0] ?? null;
    case "list":
      return [];
    case "object":
      return Object.fromEntries(
        control.properties
          .filter((each) => each.required)
          .map((each) => [each.name, blank(each.schema, root, depth + 1)] as const),
      );
    case "json": {
      const at = resolved(schema, root);
      const types = isObject(at) ? typesOf(at) : [];
      return types.includes("object") ? {} : types.includes("array") ? [] : types.includes("string") ? "" : null;
    }
  }
}
