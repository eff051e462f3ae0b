/** Questions of the agent: choices, a form from a schema, or free text. */

import { useId, useMemo, useState } from "preact/hooks";
import type { Client, Question, Run } from "@midstream/client";

import { PlainText } from "../text/plain.js";
import { safeInline } from "../text/safe.js";
import { fieldErrors } from "./answering.js";
import { mistakesIn } from "./check.js";
import type { Mistake } from "./check.js";
import { TimeLeft } from "./facts.js";
import type { Draft } from "./json.js";
import { SchemaForm } from "./schema_form.js";
import { blank } from "./schema.js";
import { useChanges } from "./subscribed.js";
import { refused } from "./words.js";

export function Questions({ run, client }: { run: Run; client: Client | undefined }) {
  useChanges(run);
  return (
    <>
      {run.questions.map((question) => (
        <QuestionForm key={question.id} run={run} question={question} client={client} />
      ))}
    </>
  );
}

function QuestionForm({ run, question, client }: { run: Run; question: Question; client: Client | undefined }) {
  useChanges(run);
  useChanges(client);
  const id = useId();
  const schema = question.schema;
  const [value, setValue] = useState<Draft>(() => (schema === undefined ? "" : blank(schema, schema)));
  const [sending, setSending] = useState(false);
  const [refusal, setRefusal] = useState("");
  const [told, setTold] = useState<readonly Mistake[]>([]);
  const [tried, setTried] = useState(false);
  const mistakes = useMemo(() => (schema === undefined ? [] : mistakesIn(schema, value)), [schema, value]);
  const may = run.can.length === 0 || run.can.includes("input");
  const empty = schema === undefined && (typeof value !== "string" || value.trim() === "");
  const answer = async (): Promise<void> => {
    setTried(true);
    if (sending || empty || mistakes.length > 0) return;
    setSending(true);
    setRefusal("");
    try {
      await question.answer(value);
    } catch (error) {
      setRefusal(refused(error));
      setTold(fieldErrors(error));
      setSending(false);
    }
  };
  const change = (next: Draft): void => {
    setValue(next);
    setTold([]);
  };
  return (
    <form
      class="question"
      aria-labelledby={`${id}-question`}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        void answer();
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) {
          event.preventDefault();
          void answer();
        }
      }}
    >
      <div class="section-head">
        <h3>The agent asks</h3>
        <span class="muted">
          Time left: <TimeLeft until={question.expiresAt} />
        </span>
      </div>
      <div id={`${id}-question`}>
        <PlainText text={question.question} />
      </div>
      {!may ? (
        <p class="muted">You may watch this run, but not answer.</p>
      ) : (
        <>
          {schema !== undefined ? (
            <SchemaForm
              id={`${id}-form`}
              label="Your answer"
              schema={schema}
              value={value}
              mistakes={tried ? [...mistakes, ...told] : told}
              disabled={sending}
              onChange={change}
            />
          ) : question.choices !== undefined && question.choices.length > 0 ? (
            <Choices id={id} choices={question.choices} value={value} disabled={sending} choose={change} />
          ) : (
            <div class="form-entry">
              <label for={`${id}-text`}>Your answer</label>
              <textarea
                id={`${id}-text`}
                rows={2}
                disabled={sending}
                value={typeof value === "string" ? value : ""}
                onInput={(event) => change(event.currentTarget.value)}
              />
            </div>
          )}
          <div class="question-foot">
            <button type="submit" class="primary" disabled={sending || empty || (tried && mistakes.length > 0)}>
              {sending ? "Answering" : "Answer"}
            </button>
            <div aria-live="polite">
              {refusal !== "" && <p class="problem">{refusal}</p>}
              {told
                .filter(({ path }) => path === "" || schema === undefined)
                .map(({ text }) => (
                  <p class="problem" key={text}>
                    {safeInline(text, 300)}
                  </p>
                ))}
              {sending && client !== undefined && client.connection.status !== "ready" && (
                <p class="muted">Not connected. Your answer will be sent when the connection is back.</p>
              )}
            </div>
          </div>
        </>
      )}
    </form>
  );
}

interface ChoicesProps {
  readonly id: string;
  readonly choices: readonly string[];
  readonly value: Draft;
  readonly disabled: boolean;
  readonly choose: (value: string) => void;
}

function Choices({ id, choices, value, disabled, choose }: ChoicesProps) {
  return (
    <fieldset class="choices" disabled={disabled}>
      <legend class="visually-hidden">Your answer</legend>
      {choices.map((choice, index) => (
        <label class="check" key={index} for={`${id}-${index}`}>
          <input
            type="radio"
            id={`${id}-${index}`}
            name={`${id}-choice`}
            checked={value === choice}
            onChange={() => choose(choice)}
          />
          <span>{safeInline(choice, 300)}</span>
        </label>
      ))}
    </fieldset>
  );
}
