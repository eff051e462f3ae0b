// What is made from the protocol's JSON Schema: src/protocol.gen.ts (the wire's types) and src/fields.gen.ts (the
// fields that a view is made of). `--write` makes them anew, `--check` fails if one is stale.
import { readFile, writeFile } from "node:fs/promises";
import { compile } from "json-schema-to-typescript";

const SOURCE = "protocol/schema/midstream.schema.json";
const BANNER = `// Generated from ${SOURCE} by scripts/types.mjs. Do not edit: run \`npm run types\`.\n`;

// These move the cursor of a view and nothing else, so no client reads their payloads.
const PASSED_OVER = ["guardrail.triggered", "context.trimmed"];

const schema = JSON.parse(await readFile(new URL(`../../../${SOURCE}`, import.meta.url), "utf8"));

/** What TypeScript cannot say of a structure ("one of these must be there") would only blur its type. */
function plain(part) {
  const requiredOnly = (choices) => choices?.every((choice) => Object.keys(choice).join() === "required");
  if (Array.isArray(part)) return part.map(plain);
  if (part === null || typeof part !== "object") return part;
  const kept = Object.entries(part).filter(
    ([key, value]) => !(["anyOf", "oneOf"].includes(key) && Array.isArray(value) && requiredOnly(value)),
  );
  const open = part.type === "object" && part.properties === undefined && part.additionalProperties === undefined;
  return Object.fromEntries([
    ...kept.map(([key, value]) => [key, plain(value)]),
    ...(open ? [["additionalProperties", true]] : []),
  ]);
}

const named = (reference) => reference.$ref.split("/").at(-1);

/** What a field holds, as one sign: src/known.ts says what they mean. */
function sign(field) {
  if (field.$ref) return "=";
  if (field.type === "array") return { "=": "[", "{": "]", "": "," }[sign(field.items)];
  if (field.type === "integer" || field.type === "number") return "#";
  if (field.type === "boolean") return "!";
  if (field.type === "object") return field.additionalProperties ? "%" : "{";
  return field.type === "string" || field.enum ? "" : "*";
}

/** Every field of a view, of what is in it, and of the payloads that are folded into it. */
function fields() {
  const signs = new Map();
  const seen = new Set();
  const add = (definition) => {
    if (seen.has(definition)) return;
    seen.add(definition);
    for (const [name, field] of Object.entries(definition.properties ?? {})) {
      const found = sign(field);
      if (found === undefined) throw new Error(`src/known.ts has no sign for ${name}`);
      const before = signs.get(name) ?? found;
      // A call's preview is a text, an approval's a structure.
      if (before !== found && [before, found].some((either) => !["", "=", "~"].includes(either))) {
        throw new Error(`${name} holds different things in different structures: src/known.ts has no sign for that`);
      }
      signs.set(name, before === found ? found : "~");
      for (const part of [field, field.items, field.additionalProperties]) {
        if (part?.$ref) add(schema.$defs[named(part)]);
      }
    }
  };
  for (const reference of schema.$defs.Event.oneOf) {
    const { type, payload } = schema.$defs[named(reference)].properties;
    if (!PASSED_OVER.includes(type.const)) add(schema.$defs[named(payload)]);
  }
  add(schema.$defs.View);
  const words = [...signs].map(([name, found]) => name + found);
  const about = "/** Each name with the sign of what it holds: see known.ts. */";
  return `${BANNER}\n${about}\nexport const FIELDS =\n  ${JSON.stringify(words.join(" "))};\n`;
}

const made = {
  "protocol.gen.ts":
    BANNER +
    (await compile(plain(schema), "Midstream", {
      additionalProperties: false,
      bannerComment: "",
      ignoreMinAndMaxItems: true,
    })),
  "fields.gen.ts": fields(),
};

for (const [name, text] of Object.entries(made)) {
  const file = new URL(`../src/${name}`, import.meta.url);
  if (!process.argv.includes("--check")) {
    await writeFile(file, text);
  } else if ((await readFile(file, "utf8").catch(() => "")) !== text) {
    console.error(`src/${name} is stale: run \`npm run types\``);
    process.exitCode = 1;
  }
}
