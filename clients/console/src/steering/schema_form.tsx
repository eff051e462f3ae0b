/** A form for a JSON value, made from its schema: arguments of a call, the answer to a question. */

import { useMemo } from "preact/hooks";

import { safeInline } from "../text/safe.js";
import { BooleanControl, ChoiceControl, JsonControl, NumberControl, TextControl } from "./fields.js";
import { HIDDEN } from "./check.js";
import type { Mistake } from "./check.js";
import { below, isObject, own, same, Unreadable, withOwn, withoutOwn } from "./json.js";
import type { Draft, DraftObject, Json } from "./json.js";
import { blank, fieldOf, MAX_ITEMS } from "./schema.js";
import type { Control, Field, Schema } from "./schema.js";
import { Strays } from "./strays.js";

export interface SchemaFormProps {
  readonly schema: Schema;
  readonly value: Draft;
  readonly onChange: (value: Draft) => void;
  /** What was proposed: fields that differ from it say so. */
  readonly original?: Json;
  readonly mistakes: readonly Mistake[];
  readonly disabled?: boolean;
  /** Unique in the page; ids of the fields begin with it. */
  readonly id: string;
  /** What the whole is called, for those who hear the page. */
  readonly label: string;
  /** Fields that stand in the original cannot be taken out (an edit of arguments only replaces). */
  readonly keepsAll?: boolean;
}

interface Whole extends SchemaFormProps {
  readonly at: ReadonlyMap<string, readonly string[]>;
}

export function SchemaForm(props: SchemaFormProps) {
  const at = useMemo(() => {
    const found = new Map<string, string[]>();
    for (const { path, text } of props.mistakes) found.set(path, [...(found.get(path) ?? []), text]);
    return found;
  }, [props.mistakes]);
  const whole: Whole = { ...props, at };
  return (
    <div class="schema-form" role="group" aria-label={props.label}>
      <FieldEditor
        whole={whole}
        schema={props.schema}
        value={props.value}
        path=""
        name=""
        depth={0}
        required
        onChange={props.onChange}
        original={props.original}
      />
      <Strays whole={whole} />
    </div>
  );
}

interface FieldProps {
  readonly whole: Whole;
  readonly schema: Schema;
  readonly value: Draft | undefined;
  readonly path: string;
  readonly name: string;
  readonly depth: number;
  readonly required: boolean;
  readonly original: Json | undefined;
  readonly onChange: (value: Draft) => void;
  readonly onRemove?: (() => void) | undefined;
}

/** One id for each path, whatever its names are made of. */
const idOf = (whole: Whole, path: string): string =>
  whole.id + path.replaceAll(/[^A-Za-z0-9]/g, (char) => (char === "/" ? "-" : `_${char.charCodeAt(0).toString(16)}`));

function FieldEditor(props: FieldProps) {
  const { whole, schema, value, path, name, depth, required } = props;
  const field = fieldOf(schema, whole.schema, value instanceof Unreadable ? undefined : value, depth);
  const id = idOf(whole, path);
  const wrong = whole.at.get(path) ?? [];
  const title = safeInline(field.title !== undefined && depth === 0 ? field.title : name, 80);
  const describedBy = [field.description !== undefined && `${id}-help`, wrong.length > 0 && `${id}-wrong`]
    .filter((each) => each !== false)
    .join(" ");
  const nested = field.control.kind === "object" || (field.control.kind === "list" && !tooMany(value));
  const isRoot = path === "";
  const touched = !isRoot && whole.original !== undefined && !same(props.original, value);
  const heading = !isRoot && (
    <span class="form-entry-name">
      {title}
      {required && !(field.control.kind === "boolean") && <span class="required"> (required)</span>}
    </span>
  );
  const mark = touched && <span class="changed">changed</span>;
  const help = field.description !== undefined && (
    <p class="hint" id={`${id}-help`}>
      {safeInline(field.description, 600)}
    </p>
  );
  const mistakes = wrong.length > 0 && (
    <p class="mistake" id={`${id}-wrong`}>
      {wrong.map((each) => safeInline(each, 300)).join(" ")}
    </p>
  );
  const hidden = value === HIDDEN && same(props.original, value);
  const tools = !isRoot && (
    <span class="form-entry-tools">
      {touched && props.original !== undefined && (
        <button type="button" class="small" disabled={whole.disabled} onClick={() => props.onChange(props.original!)}>
          Reset<span class="visually-hidden"> {title}</span>
        </button>
      )}
      {field.nullable && value !== null && value !== undefined && (
        <button type="button" class="small" disabled={whole.disabled} onClick={() => props.onChange(null)}>
          Empty<span class="visually-hidden"> {title}</span>
        </button>
      )}
      {props.onRemove !== undefined && (
        <button type="button" class="small" disabled={whole.disabled} onClick={props.onRemove}>
          Remove<span class="visually-hidden"> {title}</span>
        </button>
      )}
    </span>
  );
  const body =
    value === null && field.nullable ? (
      <EmptyValue
        whole={whole}
        id={id}
        title={title}
        start={() => props.onChange(filled(schema, whole.schema, depth))}
      />
    ) : hidden ? (
      <HiddenValue whole={whole} id={id} title={title} start={() => props.onChange("")} />
    ) : (
      <ControlFor
        {...props}
        id={id}
        field={field}
        describedBy={describedBy === "" ? undefined : describedBy}
        wrong={wrong.length > 0}
        title={title}
      />
    );
  if (nested && !isRoot) {
    return (
      <fieldset class="form-entry nested" id={id} tabIndex={-1}>
        <legend>
          {heading}
          {mark}
        </legend>
        {tools}
        {help}
        {mistakes}
        {body}
      </fieldset>
    );
  }
  const labelled = field.control.kind !== "boolean" && !isRoot;
  return (
    <div class={`form-entry${wrong.length > 0 ? " wrong" : ""}`}>
      {(heading !== false || tools !== false) && (
        <div class="form-entry-head">
          <span>
            {labelled ? <label for={id}>{heading}</label> : heading}
            {mark}
          </span>
          {tools}
        </div>
      )}
      {isRoot && !nested && (
        <label class="visually-hidden" for={id}>
          {whole.label}
        </label>
      )}
      {help}
      {body}
      {mistakes}
    </div>
  );
}

function filled(schema: Schema, root: Schema, depth: number): Draft {
  const first = blank(schema, root, depth);
  if (first !== null) return first;
  switch (fieldOf(schema, root, undefined, depth).control.kind) {
    case "text":
      return "";
    case "number":
      return new Unreadable("", "Type a number.");
    case "boolean":
      return false;
    case "list":
      return [];
    case "object":
      return {};
    default:
      return "";
  }
}

function EmptyValue({ whole, id, title, start }: { whole: Whole; id: string; title: string; start: () => void }) {
  return (
    <p class="empty-value">
      <span class="muted">Empty (null)</span>
      <button type="button" class="small" id={id} disabled={whole.disabled} onClick={start}>
        Fill in<span class="visually-hidden"> {title}</span>
      </button>
    </p>
  );
}

function HiddenValue({ whole, id, title, start }: { whole: Whole; id: string; title: string; start: () => void }) {
  return (
    <p class="empty-value">
      <span class="muted">Hidden from you; it stays as it is.</span>
      <button type="button" class="small" id={id} disabled={whole.disabled} onClick={start}>
        Replace<span class="visually-hidden"> {title}</span>
      </button>
    </p>
  );
}

const tooMany = (value: Draft | undefined): boolean => Array.isArray(value) && value.length > MAX_ITEMS;

interface ControlForProps extends FieldProps {
  readonly id: string;
  readonly field: Field;
  readonly describedBy: string | undefined;
  readonly wrong: boolean;
  readonly title: string;
}

function ControlFor(props: ControlForProps) {
  const { whole, field, id, describedBy, wrong, onChange } = props;
  const value: Draft = props.value === undefined ? "" : props.value;
  const control: Control = tooMany(value) ? { kind: "json" } : field.control;
  const common = { id, describedBy, wrong, onChange, disabled: whole.disabled === true };
  switch (control.kind) {
    case "text":
      return typeof value === "string" ? (
        <TextControl {...common} value={value} long={control.long} />
      ) : (
        <JsonControl {...common} value={value} />
      );
    case "number":
      return typeof value === "number" || value instanceof Unreadable ? (
        <NumberControl {...common} value={value} integer={control.integer} />
      ) : (
        <JsonControl {...common} value={value} />
      );
    case "boolean":
      return typeof value === "boolean" ? (
        <BooleanControl {...common} value={value} label={props.path === "" ? whole.label : "Yes"} />
      ) : (
        <JsonControl {...common} value={value} />
      );
    case "choice":
      return <ChoiceControl {...common} value={value} options={control.options} />;
    case "object":
      return <ObjectFields {...props} control={control} value={isObject(value) ? (value as DraftObject) : {}} />;
    case "list":
      return Array.isArray(value) ? (
        <ListFields {...props} control={control} value={value as readonly Draft[]} />
      ) : (
        <JsonControl {...common} value={value} />
      );
    case "json":
      return <JsonControl {...common} value={value} />;
  }
}

function ObjectFields(
  props: Omit<ControlForProps, "value"> & { control: Extract<Control, { kind: "object" }>; value: DraftObject },
) {
  const { whole, control, value, path, depth, onChange } = props;
  const original = isObject(props.original) ? (props.original as Readonly<Record<string, Json>>) : undefined;
  const shown = control.properties.filter((each) => each.required || Object.hasOwn(value, each.name));
  const rest = control.properties.filter((each) => !each.required && !Object.hasOwn(value, each.name));
  return (
    <div class="fields">
      {shown.map(({ name, schema, required }) => {
        const proposed = original === undefined ? undefined : (own(original, name) as Json | undefined);
        const present = Object.hasOwn(value, name);
        const removable = present && !required && !(whole.keepsAll === true && depth === 0 && proposed !== undefined);
        return present ? (
          <FieldEditor
            key={name}
            whole={whole}
            schema={schema}
            value={value[name]}
            path={below(path, name)}
            name={name}
            depth={depth + 1}
            required={required}
            original={proposed}
            onChange={(next) => onChange(withOwn<Draft>(value, name, next))}
            onRemove={removable ? () => onChange(withoutOwn(value, name)) : undefined}
          />
        ) : (
          <div class="form-entry wrong" key={name}>
            <div class="form-entry-head">
              <span class="form-entry-name">
                {safeInline(name, 80)}
                <span class="required"> (required)</span>
              </span>
              <button
                type="button"
                class="small"
                disabled={whole.disabled}
                onClick={() => onChange(withOwn<Draft>(value, name, filled(schema, whole.schema, depth + 1)))}
              >
                Fill in<span class="visually-hidden"> {safeInline(name, 80)}</span>
              </button>
            </div>
            <p class="mistake">This is required.</p>
          </div>
        );
      })}
      {rest.length > 0 && whole.disabled !== true && (
        <p class="more-fields">
          <span class="muted">Not given:</span>
          {rest.map(({ name, schema }) => (
            <button
              type="button"
              class="small"
              key={name}
              onClick={() => onChange(withOwn<Draft>(value, name, filled(schema, whole.schema, depth + 1)))}
            >
              Add {safeInline(name, 80)}
            </button>
          ))}
        </p>
      )}
    </div>
  );
}

function ListFields(
  props: Omit<ControlForProps, "value"> & { control: Extract<Control, { kind: "list" }>; value: readonly Draft[] },
) {
  const { whole, control, value, path, depth, onChange, title } = props;
  const original = Array.isArray(props.original) ? (props.original as readonly Json[]) : undefined;
  return (
    <div class="fields list">
      {value.length === 0 && <p class="muted">No items.</p>}
      {value.map((each, index) => (
        <FieldEditor
          key={index}
          whole={whole}
          schema={control.item}
          value={each}
          path={below(path, index)}
          name={`${title} ${index + 1}`.trim()}
          depth={depth + 1}
          required={false}
          original={original?.[index]}
          onChange={(next) => onChange(value.map((old, at) => (at === index ? next : old)))}
          onRemove={value.length > control.min ? () => onChange(value.filter((_, at) => at !== index)) : undefined}
        />
      ))}
      {value.length < control.max && whole.disabled !== true && (
        <button
          type="button"
          class="small"
          onClick={() => onChange([...value, filled(control.item, whole.schema, depth + 1)])}
        >
          Add an item<span class="visually-hidden"> to {title}</span>
        </button>
      )}
    </div>
  );
}
