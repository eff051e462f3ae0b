/** Server-sent events, as the HTML standard reads them: text in, events out. No I/O. */

/** Characters of one line or one event; a server that sends more without an end is not one of ours. */
export const MAX_EVENT_CHARS = 64 * 1024 * 1024;

export interface SseEvents {
  /** One event with its `data`; `id` is the last one said, on this event or before. */
  event(type: string, data: string, id: string): void;
  /** A line that begins with a colon: a sign of life. */
  comment?(): void;
  /** Milliseconds after which to come back. */
  retry?(ms: number): void;
}

/**
 * Takes a stream's text piece by piece, whatever the pieces' borders; lines end with LF, CR or CRLF. An event without
 * its blank line at the end of the stream never was one. Throws `RangeError` beyond `MAX_EVENT_CHARS`.
 */
export function sseReader(events: SseEvents): (text: string) => void {
  let line: string[] = [];
  let lineChars = 0;
  let data: string[] = [];
  let dataChars = 0;
  let type = "";
  let id = "";
  let afterCr = false;

  const bounded = (chars: number): number => {
    if (chars > MAX_EVENT_CHARS) throw new RangeError(`an event of more than ${MAX_EVENT_CHARS} characters`);
    return chars;
  };

  const field = (name: string, value: string): void => {
    if (name === "data") {
      data.push(value);
      dataChars = bounded(dataChars + value.length + 1);
    } else if (name === "event") type = value;
    else if (name === "id" && !value.includes("\0")) id = value;
    else if (name === "retry" && /^\d+$/.test(value)) events.retry?.(Number(value));
  };

  const endOfLine = (last: string): void => {
    const whole = line.length === 0 ? last : line.join("") + last;
    line = [];
    lineChars = 0;
    if (whole === "") {
      const said = data;
      const kind = type || "message";
      data = [];
      dataChars = 0;
      type = "";
      if (said.length > 0) events.event(kind, said.join("\n"), id);
    } else if (whole[0] === ":") events.comment?.();
    else {
      const colon = whole.indexOf(":");
      if (colon < 0) field(whole, "");
      else field(whole.slice(0, colon), whole.slice(whole[colon + 1] === " " ? colon + 2 : colon + 1));
    }
  };

  return (text) => {
    let from = 0;
    if (afterCr && text !== "") {
      // The LF of a CRLF whose CR was the last character before.
      if (text[0] === "\n") from = 1;
      afterCr = false;
    }
    const ends = /\r\n|\n|\r/g;
    ends.lastIndex = from;
    for (let end = ends.exec(text); end !== null; end = ends.exec(text)) {
      const next = ends.lastIndex;
      afterCr = end[0] === "\r" && next === text.length;
      endOfLine(text.slice(from, end.index));
      from = next;
    }
    if (from < text.length) {
      // Kept in pieces: a long line that comes in many is joined once.
      line.push(text.slice(from));
      lineChars = bounded(lineChars + text.length - from);
    }
  };
}
