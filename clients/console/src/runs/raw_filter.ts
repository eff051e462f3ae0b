/** Which raw events a person looks for. Goes on from where it was, so that events streaming in cost nothing more. */

import type { RunEvent } from "@midstream/client";

const texts = new WeakMap<RunEvent, string>();

/** The event's line of NDJSON, as the log has it. */
export const lineOf = (event: RunEvent): string => {
  let text = texts.get(event);
  if (text === undefined) {
    text = JSON.stringify(event);
    texts.set(event, text);
  }
  return text;
};

export class RawFilter {
  #query = "";
  #type = "";
  #log: readonly RunEvent[] = [];
  #first: RunEvent | undefined;
  #upTo = 0;
  #found: RunEvent[] = [];

  /** The events of `log` of this type (a prefix ending in a dot: of this family) whose text has `query` in it. */
  apply(log: readonly RunEvent[], query: string, type: string): readonly RunEvent[] {
    const same = log === this.#log && log[0] === this.#first && query === this.#query && type === this.#type;
    if (!same || log.length < this.#upTo) {
      this.#log = log;
      this.#first = log[0];
      this.#query = query;
      this.#type = type;
      this.#upTo = 0;
      this.#found = [];
    }
    if (this.#upTo === log.length) return this.#found;
    const wanted = query.toLowerCase();
    const fresh: RunEvent[] = [];
    for (; this.#upTo < log.length; this.#upTo++) {
      const event = log[this.#upTo]!;
      const fits = type === "" || (type.endsWith(".") ? event.type.startsWith(type) : event.type === type);
      if (fits && (wanted === "" || lineOf(event).toLowerCase().includes(wanted))) fresh.push(event);
    }
    if (fresh.length > 0) this.#found = this.#found.concat(fresh);
    return this.#found;
  }
}
