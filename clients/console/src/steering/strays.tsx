import { safeInline } from "../text/safe.js";
import { isObject, own } from "./json.js";
import type { Draft } from "./json.js";
import { fieldOf, MAX_ITEMS } from "./schema.js";
import type { Schema } from "./schema.js";
import type { SchemaFormProps } from "./schema_form.js";

/** Mistakes at places that have no control of their own, so that none is said nowhere. */
export function Strays({ whole }: { whole: SchemaFormProps }) {
  const strays = whole.mistakes.filter(({ path }) => path !== "" && !placed(whole, path));
  if (strays.length === 0) return null;
  return (
    <ul class="mistakes">
      {strays.map(({ path, text }) => (
        <li key={path + text}>
          <code>{safeInline(path, 80)}</code> {safeInline(text, 300)}
        </li>
      ))}
    </ul>
  );
}

function placed({ schema, value: root }: SchemaFormProps, path: string): boolean {
  let [at, value, depth]: [Schema, Draft | undefined, number] = [schema, root, 0];
  for (const part of path.slice(1).split("/")) {
    const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
    const { control } = fieldOf(at, schema, value, depth);
    if (control.kind === "object") {
      const property = control.properties.find((each) => each.name === name);
      if (property === undefined) return false;
      [at, value] = [property.schema, isObject(value) ? (own(value, name) as Draft | undefined) : undefined];
    } else if (control.kind === "list" && Array.isArray(value)) {
      const item = (value as readonly Draft[])[Number(name)];
      if (item === undefined || value.length > MAX_ITEMS) return false;
      [at, value] = [control.item, item];
    } else return false;
    depth += 1;
  }
  return true;
}
