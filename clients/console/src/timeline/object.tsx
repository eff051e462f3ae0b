import type { ObjectCreated } from "@midstream/client";

import { DiffView } from "../steering/diff_view.js";
import { PlainText } from "../text/plain.js";
import { asJson, cut, safeHref, safeInline } from "../text/safe.js";

/** Characters of a diff shown in the timeline; the whole is in the raw events. */
const MAX_DIFF = 200_000;

/** A structured result. Kinds that are not known are shown as what they are: data. */
export function ObjectBody({ object }: { object: ObjectCreated }) {
  const fields = fieldsOf(object.data);
  if (object.kind === "citation") {
    const href = safeHref(textOf(fields.get("url")));
    const title = safeInline(textOf(fields.get("title")) || textOf(fields.get("source")) || textOf(fields.get("path")), 160);
    const cited = textOf(fields.get("cited_text"));
    return (
      <div>
        <p>
          {href === undefined ? (
            title || "Untitled"
          ) : (
            <a href={href} target="_blank" rel="noopener noreferrer">
              {title || safeInline(href, 120)}
            </a>
          )}
          <span class="small muted"> {placeOf(fields)}</span>
        </p>
        {cited !== "" && (
          <blockquote class="cited">
            <PlainText text={cited} />
          </blockquote>
        )}
      </div>
    );
  }
  const diff = typeof object.data === "string" ? object.data : textOf(fields.get("diff") ?? fields.get("data"));
  if (object.kind === "diff" && diff !== "") return <DiffView text={cut(diff, MAX_DIFF)} label="Changes" />;
  return <PlainText class="code" text={typeof object.data === "string" ? object.data : asJson(object.data)} />;
}

const fieldsOf = (data: unknown): ReadonlyMap<string, unknown> =>
  new Map(typeof data === "object" && data !== null && !Array.isArray(data) ? Object.entries(data) : []);

const textOf = (value: unknown): string => (typeof value === "string" ? value : "");

const placeOf = (fields: ReadonlyMap<string, unknown>): string => {
  const [unit, start, end, line] = ["unit", "start", "end", "line"].map((name) => fields.get(name));
  if (typeof line === "number") return `line ${line}`;
  if (typeof start !== "number") return "";
  return safeInline(`${textOf(unit) || "at"} ${start}${typeof end === "number" && end !== start ? `\u2013${end}` : ""}`, 60);
};
