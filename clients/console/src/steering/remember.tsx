/** Approving more than this one call: a scope, and for how long. */

import { useId } from "preact/hooks";
import type { Approval } from "@midstream/client";

import type { Answering } from "./queue.js";
import { scopeName, SPANS } from "./words.js";

interface RememberProps {
  readonly approval: Approval;
  readonly answering: Answering;
  readonly change: (change: Partial<Answering>) => void;
}

export function Remember({ approval, answering, change }: RememberProps) {
  const id = useId();
  const { remember, forSeconds } = answering;
  const lasting = remember !== "" && remember !== "run";
  return (
    <fieldset class="remember">
      <legend>Later calls of this tool</legend>
      {["", ...approval.rememberScopes].map((scope) => (
        <label class="check" key={scope} for={`${id}-${scope}`}>
          <input
            type="radio"
            id={`${id}-${scope}`}
            name={`${id}-scope`}
            checked={remember === scope}
            onChange={() => change({ remember: scope })}
          />
          <span>
            {scope === ""
              ? "Ask every time"
              : scope === "run"
                ? "Approve for the rest of this run"
                : `Approve: ${scopeName(scope).toLowerCase()}`}
          </span>
        </label>
      ))}
      {lasting && (
        <div class="form-entry">
          <label for={`${id}-span`}>How long</label>
          <select
            id={`${id}-span`}
            value={String(forSeconds ?? "")}
            onChange={(event) =>
              change({ forSeconds: event.currentTarget.value === "" ? undefined : Number(event.currentTarget.value) })
            }
          >
            {SPANS.map(({ seconds, name }) => (
              <option key={name} value={String(seconds ?? "")}>
                {name}
              </option>
            ))}
          </select>
        </div>
      )}
    </fieldset>
  );
}
