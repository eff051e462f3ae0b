/** Logs that a server could write, and many that none would: fast-check arbitraries from the protocol's schema. */

import { readFileSync } from "node:fs";
import fc from "fast-check";
import type { RunEvent } from "../src/protocol.js";

interface Schema {
  $ref?: string;
  type?: string;
  const?: unknown;
  enum?: unknown[];
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema;
  oneOf?: Schema[];
}

const schema = JSON.parse(
  readFileSync(new URL("../../../protocol/schema/midstream.schema.json", import.meta.url), "utf8"),
) as { $defs: Record<string, Schema> };

const named = (part: Schema): Schema =>
  part.$ref ? (schema.$defs[part.$ref.split("/").at(-1) as string] as Schema) : part;

// Two ids: events that speak of the same item are what a fold is about.
const id = fc.constantFrom("a", "b");
const text = fc.string({ unit: "binary", maxLength: 4 });
// `__proto__` as JSON has it: a key like any other.
const open = fc.oneof(
  {
    weight: 9,
    // Not fast-check's own JSON values: their integers may be beyond what the wire allows.
    arbitrary: fc.anything({
      values: [fc.integer(), fc.double({ min: -1e6, max: 1e6, noNaN: true }), fc.boolean(), text, fc.constant(null)],
      key: text,
      maxDepth: 2,
    }),
  },
  { weight: 1, arbitrary: fc.constant(JSON.parse('{"__proto__":{"polluted":true},"constructor":1}') as unknown) },
);

function valueOf(name: string, part: Schema): fc.Arbitrary<unknown> {
  const field = named(part);
  if (field.const !== undefined) return fc.constant(field.const);
  if (field.enum) return fc.constantFrom(...field.enum);
  if (name === "id" || name.endsWith("_id")) return id;
  switch (field.type) {
    case "string":
      return text;
    case "integer":
      return fc.nat(1000);
    case "number":
      return fc.nat(1000).map((n) => n / 8);
    case "boolean":
      return fc.boolean();
    case "array":
      return fc.array(valueOf("", field.items as Schema), { maxLength: 3 });
    case "object":
      if (field.properties) return structure(field);
      return field.additionalProperties
        ? fc.dictionary(fc.oneof(text, fc.constant("__proto__")), valueOf("", field.additionalProperties), {
            maxKeys: 2,
          })
        : fc.dictionary(text, open, { maxKeys: 2 });
    default:
      return open;
  }
}

/** All required fields, some of the optional ones (sometimes as null), and now and then one that nobody knows. */
function structure({ properties = {}, required = [] }: Schema): fc.Arbitrary<Record<string, unknown>> {
  const fields = Object.entries(properties).map(([name, part]): [string, fc.Arbitrary<unknown>] => [
    name,
    valueOf(name, part),
  ]);
  const optional = fields.filter(([name]) => !required.includes(name));
  return fc.record(
    {
      ...Object.fromEntries(fields.filter(([name]) => required.includes(name))),
      ...Object.fromEntries(optional.map(([name, value]) => [name, fc.option(value, { freq: 5 })])),
      unheard_of: open,
    },
    { requiredKeys: required as never[] },
  );
}

const TYPES = (schema.$defs["Event"]?.oneOf as Schema[]).map((reference) => {
  const { type, payload } = named(reference).properties as { type: Schema; payload: Schema };
  return { type: type.const as string, payload: structure(named(payload)) };
});

export const RUN_ID = "run_1";

interface Drafted {
  type: string;
  payload: unknown;
  step_id?: string;
}

/** What `drafts` are in a log, from seq 1, as it comes from the wire. */
export function asLog(drafts: readonly Drafted[]): RunEvent[] {
  const log = drafts.map((draft, at) => ({
    v: 1,
    seq: at + 1,
    run_id: RUN_ID,
    ts: "2026-06-12T12:00:00.000Z",
    ...draft,
  }));
  return JSON.parse(JSON.stringify(log)) as RunEvent[];
}

const drafted = (payload: (known: fc.Arbitrary<unknown>) => fc.Arbitrary<unknown>) =>
  fc.oneof(
    ...TYPES.map((of) =>
      fc.record(
        { type: fc.constant(of.type), payload: payload(of.payload), step_id: id },
        { requiredKeys: ["type", "payload"] },
      ),
    ),
  ) as fc.Arbitrary<Drafted>;

/** Events whose payloads are as the schema says, in any order. */
export const logs = fc
  .array(
    drafted((known) => known),
    { maxLength: 40 },
  )
  .map(asLog);

/** Events whose payloads may be anything: a field torn out or of another kind, no object at all, an unknown type. */
export const hostileLogs = fc
  .array(
    fc.oneof(
      drafted((known) => known),
      drafted((known) =>
        fc.tuple(known, fc.nat(20), open).map(([payload, at, value]) => spoiled(payload as object, at, value)),
      ),
      drafted(() => open),
      fc.record({
        type: fc.constantFrom("__proto__", "constructor", "toString", "", "weather.changed"),
        payload: open,
      }),
    ),
    { maxLength: 40 },
  )
  .map(asLog);

function spoiled(payload: object, at: number, value: unknown): object {
  const keys = Object.keys(payload);
  const spoilt = keys[at % Math.max(keys.length, 1)];
  return Object.fromEntries(Object.entries(payload).map(([key, known]) => [key, key === spoilt ? value : known]));
}

export function frozen<Value>(value: Value): Value {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) frozen(part);
  }
  return value;
}
