/** What an approval's answer will send, and sending it. */

import type { Approval, RememberScope } from "@midstream/client";

import { hiddenIn, mistakesIn } from "./check.js";
import type { Mistake } from "./check.js";
import { changed, isObject } from "./json.js";
import type { Draft, DraftObject, JsonObject } from "./json.js";
import type { Answering, Queue } from "./queue.js";
import type { Schema } from "./schema.js";
import { codeOf, refused } from "./words.js";

/** The schema of the arguments. Where the server gives none, what stands there says which control each one gets. */
export function argsSchema(approval: Approval): Schema {
  if (approval.argsSchema !== undefined) return approval.argsSchema;
  const type = (value: unknown): Schema =>
    typeof value === "string"
      ? { type: "string" }
      : typeof value === "boolean"
        ? { type: "boolean" }
        : typeof value === "number"
          ? { type: "number" }
          : {};
  return {
    type: "object",
    properties: Object.fromEntries(Object.entries(approval.args).map(([name, value]) => [name, type(value)])),
  };
}

/** What the edit changes; empty when nothing is. */
export const edits = (approval: Approval, { args }: Answering): DraftObject =>
  changed(approval.args as JsonObject, args);

/** Everything that keeps it from being approved: mistakes at fields. */
export function mistakesOf(approval: Approval, answering: Answering): readonly Mistake[] {
  if (!approval.editable) return [];
  const now = edits(approval, answering);
  // What the agent proposed was checked when it was proposed; only what a person changed can be their mistake.
  const inChanged = ({ path }: Mistake): boolean => Object.keys(now).some((name) => under(path, name));
  const found = mistakesIn(argsSchema(approval), answering.args as Draft).filter(inChanged);
  return [...found, ...hiddenIn(now as Draft)];
}

function under(path: string, name: string): boolean {
  const first = path.split("/")[1]?.replaceAll("~1", "/").replaceAll("~0", "~");
  return first === name;
}

/** Sends the answer. What the server refuses is said in the dialog, which keeps what was typed. */
export async function send(queue: Queue, approval: Approval, decision: "approve" | "deny"): Promise<void> {
  const answering = queue.answering(approval);
  if (answering.sending !== undefined) return;
  queue.change(approval, { sending: decision, refusal: "", mistakes: [] });
  try {
    if (decision === "deny") {
      const reason = answering.reason.trim();
      await approval.deny(reason === "" ? undefined : reason);
    } else {
      const { remember, forSeconds } = answering;
      const options =
        remember === ""
          ? {}
          : {
              remember: {
                scope: remember as RememberScope,
                ...(forSeconds === undefined || remember === "run" ? {} : { expiresInS: forSeconds }),
              },
            };
      const args = edits(approval, answering) as Record<string, unknown>;
      await (Object.keys(args).length === 0 ? approval.approve(options) : approval.edit(args, options));
    }
  } catch (error) {
    queue.change(approval, { sending: undefined, refusal: refused(error), mistakes: fieldErrors(error) });
    // The one who answered here is told, also when the dialog goes on to the next call meanwhile.
    if (codeOf(error) === "already_resolved" || codeOf(error) === "expired") queue.say(refused(error));
  }
}

/** The mistakes that a refusal names, at the fields of the form. */
export function fieldErrors(error: unknown): readonly Mistake[] {
  const found = isObject(error) ? error["errors"] : undefined;
  if (!Array.isArray(found)) return [];
  return found.flatMap((each: unknown) =>
    isObject(each) && typeof each["path"] === "string" && typeof each["text"] === "string"
      ? [{ path: each["path"].replace(/^\/args(?=\/)/, ""), text: `The server says: ${each["text"]}` }]
      : [],
  );
}
