/** The controls of single values. Each shows what was typed also while it cannot be read. */

import { useState } from "preact/hooks";

import { PlainText } from "../text/plain.js";
import { asJson, safeInline, visible } from "../text/safe.js";
import { Unreadable, same } from "./json.js";
import type { Draft, Json } from "./json.js";

export interface ControlProps<Value> {
  readonly id: string;
  readonly value: Value;
  readonly onChange: (value: Draft) => void;
  readonly disabled: boolean;
  /** Ids of what describes the field: its help and its mistakes. */
  readonly describedBy: string | undefined;
  readonly wrong: boolean;
}

/** Characters up to which a text or JSON can be edited here: a longer one makes the browser's own text area slow. */
export const MAX_EDITED = 50_000;

/** Rows of a text before it scrolls by itself; how many lines it has is then said below it. */
const MAX_ROWS = 12;

const common = ({ id, disabled, describedBy, wrong }: ControlProps<unknown>) => ({
  id,
  disabled,
  "aria-describedby": describedBy,
  "aria-invalid": wrong,
});

/** Whether a text has characters that a field would not show, or that would turn its line around. */
export const hasUnseen = (text: string): boolean => visible(text) !== text.replaceAll("\r\n", "\n");

/** JSON text in which what cannot be seen is escaped: the same value, and nothing in it can deceive. */
export function escaped(json: string): string {
  if (!hasUnseen(json)) return json;
  const shown = (char: string): string =>
    char === "\n" || !hasUnseen(char)
      ? char
      : [...Array(char.length).keys()].map((at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`).join("");
  return [...json].map(shown).join("");
}

export function TextControl(props: ControlProps<string> & { long: boolean }) {
  const [unseen] = useState(hasUnseen(props.value));
  return unseen ? (
    <>
      <p class="hint">This text has characters that cannot be seen. It is written as JSON, where they have names.</p>
      <JsonControl {...props} />
    </>
  ) : (
    <PlainTextControl {...props} />
  );
}

function PlainTextControl(props: ControlProps<string> & { long: boolean }) {
  const { value, onChange } = props;
  // Once it has several lines it keeps them: a control that changes under the fingers would lose the focus.
  const [long] = useState(props.long);
  const [tooLong] = useState(value.length > MAX_EDITED);
  if (tooLong && value.length > MAX_EDITED) {
    return (
      <div id={props.id} class="too-long">
        <p class="hint">Too long to be edited here.</p>
        <PlainText text={value} />
      </div>
    );
  }
  const shared = { ...common(props), value, spellcheck: false, autocomplete: "off" as const };
  const lines = long ? value.split("\n").length : 1;
  return long ? (
    <>
      <textarea
        {...shared}
        rows={Math.min(MAX_ROWS, Math.max(3, lines))}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
      {lines > MAX_ROWS && <p class="hint">{lines.toLocaleString("en")} lines</p>}
    </>
  ) : (
    <input type="text" {...shared} onInput={(event) => onChange(event.currentTarget.value)} />
  );
}

/** A number or why the text is none. Integers beyond 2^53 would be sent as others than were typed. */
export function readNumber(text: string, integer: boolean): number | Unreadable {
  const trimmed = text.trim();
  if (trimmed === "") return new Unreadable(text, "Type a number.");
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return new Unreadable(text, "This is not a number.");
  const number = Number(trimmed);
  if (!Number.isFinite(number)) return new Unreadable(text, "This number is too large.");
  if (integer && !Number.isInteger(number)) return new Unreadable(text, "This must be a whole number.");
  if (Number.isInteger(number) && !Number.isSafeInteger(number))
    return new Unreadable(text, "This number is too large to be exact.");
  return number;
}

export function NumberControl(props: ControlProps<Draft> & { integer: boolean }) {
  const { value, onChange, integer } = props;
  const [text, setText] = useTyped(
    value,
    (typed) => readNumber(typed, integer),
    (number) => String(number),
  );
  return (
    <input
      type="text"
      inputMode={integer ? "numeric" : "decimal"}
      autocomplete="off"
      {...common(props)}
      value={text}
      onInput={(event) => onChange(setText(event.currentTarget.value))}
    />
  );
}

/** A JSON text's value, or what is wrong with it. */
export function readJson(text: string): Json | Unreadable {
  if (text.trim() === "") return new Unreadable(text, 'Type a JSON value, for example "text", 5, [] or {}.');
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    return new Unreadable(
      text,
      `This is not JSON yet: ${safeInline(error instanceof Error ? error.message : error, 120)}`,
    );
  }
}

export function JsonControl(props: ControlProps<Draft>) {
  const { value, onChange } = props;
  const [text, setText] = useTyped<Json>(value, readJson, (json) => escaped(asJson(json)));
  const [tooLong] = useState(text.length > MAX_EDITED);
  if (tooLong && text.length > MAX_EDITED) {
    return (
      <div id={props.id} class="too-long">
        <p class="hint">Too long to be edited here.</p>
        <PlainText text={text} />
      </div>
    );
  }
  return (
    <textarea
      {...common(props)}
      class="json"
      rows={Math.min(14, Math.max(2, text.split("\n", 14).length))}
      spellcheck={false}
      autocomplete="off"
      value={text}
      onInput={(event) => onChange(setText(event.currentTarget.value))}
    />
  );
}

/**
 * The text of a control whose value is read from it. What was typed stays as it is ("1.", "[1,") while it means the
 * value that stands outside; a value set from outside (a reset) is written anew.
 */
function useTyped<Value extends Json>(
  value: Draft,
  read: (text: string) => Value | Unreadable,
  write: (value: Draft) => string,
): [string, (text: string) => Value | Unreadable] {
  const shown = (): string => (value instanceof Unreadable ? value.text : write(value));
  const [typed, setTyped] = useState<{ text: string; value: Draft }>(() => ({ text: shown(), value }));
  const text = typed.value === value || same(typed.value, value) ? typed.text : shown();
  return [
    text,
    (next) => {
      const found = read(next);
      setTyped({ text: next, value: found });
      return found;
    },
  ];
}

export function BooleanControl(props: ControlProps<Draft> & { label: string }) {
  return (
    <label class="check" for={props.id}>
      <input
        type="checkbox"
        {...common(props)}
        checked={props.value === true}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <span>{props.label}</span>
    </label>
  );
}

export function ChoiceControl(props: ControlProps<Draft> & { options: readonly Json[] }) {
  const { value, options, onChange } = props;
  const at = options.findIndex((each) => same(each, value));
  return (
    <select
      {...common(props)}
      value={String(at)}
      onChange={(event) => onChange(options[Number(event.currentTarget.value)] ?? null)}
    >
      {at === -1 && (
        <option value="-1" disabled>
          {value === undefined || value === "" ? "Choose" : `${safeInline(inText(value), 80)} (not allowed)`}
        </option>
      )}
      {options.map((each, index) => (
        <option key={index} value={String(index)}>
          {safeInline(inText(each), 120)}
        </option>
      ))}
    </select>
  );
}

export function inText(value: unknown): string {
  return typeof value === "string" ? value : value instanceof Unreadable ? value.text : asJson(value);
}
