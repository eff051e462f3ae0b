/** How a run ended: its result, or what became of everything it had begun. */

import type { RunCancelled, RunFailed, View } from "@midstream/client";

import { Markdown } from "../text/markdown.js";
import { PlainText } from "../text/plain.js";
import { asJson, safeInline } from "../text/safe.js";
import { Box, outcomeWords } from "./parts.js";
import { wordsOf } from "./words.js";

interface EndProps {
  view: View;
  time: string | undefined;
  onResume: ((runId: string) => void) | undefined;
}

export function EndBody({ view, onResume, time }: EndProps) {
  if (view.failure !== undefined) return <FailedBody failure={view.failure} onResume={onResume} time={time} />;
  if (view.cancelled !== undefined) {
    const { by, reason } = view.cancelled;
    return (
      <Box title="Cancelled" tone="plain" time={time}>
        <p>
          By {safeInline(by, 60)}
          {reason === undefined ? "" : `: ${safeInline(reason)}`}
        </p>
        <Effects effects={view.cancelled.effects} />
      </Box>
    );
  }
  const said = view.messages.at(-1)?.text === view.result;
  return (
    <Box title="Completed" tone="good" time={time}>
      {!said && view.result !== undefined && <Result result={view.result} />}
      {view.usage !== undefined && view.usage.total_tokens > 0 && (
        <p class="small muted">{view.usage.total_tokens.toLocaleString("en")} tokens</p>
      )}
    </Box>
  );
}

function Result({ result }: { result: unknown }) {
  return typeof result === "string" ? <Markdown text={result} /> : <PlainText class="code" text={asJson(result)} />;
}

function FailedBody({ failure, onResume, time }: { failure: RunFailed; onResume: ((runId: string) => void) | undefined; time: string | undefined }) {
  const { resume } = failure;
  return (
    <Box title="Failed" tone="bad" time={time} aside={<span class="small muted">{safeInline(wordsOf(failure.code), 60)}</span>}>
      <PlainText text={failure.text} />
      {failure.completed.length > 0 && (
        <div class="small">
          <p class="muted">Done before that</p>
          <ul class="done">
            {failure.completed.slice(0, 50).map((title, index) => (
              <li key={index}>{safeInline(title)}</li>
            ))}
          </ul>
        </div>
      )}
      <Effects effects={failure.effects} />
      {resume !== undefined && (
        <div class="row">
          <span class="small grow">{safeInline(resume.text, 400)}</span>
          {resume.run_id !== undefined && onResume !== undefined && (
            <button type="button" onClick={() => onResume(resume.run_id!)}>
              Go on from here
            </button>
          )}
        </div>
      )}
      <p class="small muted">
        Error <code>{safeInline(failure.error_id, 64)}</code> in the server's log
      </p>
    </Box>
  );
}

function Effects({ effects }: { effects: RunCancelled["effects"] }) {
  if (effects.length === 0) return null;
  return (
    <details open={effects.some((effect) => effect.outcome === "unknown")}>
      <summary>What became of its {effects.length === 1 ? "call" : `${effects.length} calls`}</summary>
      <ul class="done small">
        {effects.slice(0, 200).map((effect) => (
          <li key={effect.tool_call_id}>
            <code>{safeInline(effect.tool, 80)}</code>: {outcomeWords(effect.outcome)}
          </li>
        ))}
      </ul>
    </details>
  );
}
