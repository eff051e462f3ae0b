import { PlainText } from "../text/plain.js";
import { safeInline } from "../text/safe.js";
import { isObject } from "./json.js";
import type { Json } from "./json.js";

/** A value that can only be looked at: short facts by name, anything else as text. */
export function ShownValue({ value }: { value: Json }) {
  if (!isObject(value)) return <PlainText text={typeof value === "string" ? value : JSON.stringify(value)} />;
  const entries = Object.entries(value as Readonly<Record<string, Json>>);
  if (entries.length === 0) return <p class="muted">No arguments.</p>;
  return (
    <dl class="facts">
      {entries.map(([name, each]) => (
        <div key={name}>
          <dt>{safeInline(name, 80)}</dt>
          <dd>
            <PlainText text={typeof each === "string" ? each : JSON.stringify(each, null, 2)} />
          </dd>
        </div>
      ))}
    </dl>
  );
}
