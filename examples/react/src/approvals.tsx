import type { Approval } from "@midstream/client";
import { useApprovals } from "@midstream/client/react";
import { type FormEvent, useState } from "react";

/** What waits in any run that this page follows; answered elsewhere it goes away by itself. */
export function Approvals() {
  return useApprovals().map((approval) => <Ask key={`${approval.runId} ${approval.id}`} approval={approval} />);
}

function Ask({ approval }: { approval: Approval }) {
  const [problem, setProblem] = useState<string>();
  const { label, preview, args } = approval;

  async function answer(receipt: Promise<unknown>) {
    // `already_resolved`, `expired`, or `invalid_args`: then it stays open.
    await receipt.then(() => setProblem(undefined), (error: Error) => setProblem(error.message));
  }

  function agree(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const copies = Number(new FormData(event.currentTarget).get("copies") ?? args["copies"]);
    // `approve` sends the digest of what was shown, so that nothing else is done.
    void answer(copies === args["copies"] ? approval.approve() : approval.edit({ copies }));
  }

  return (
    <form className="ask" aria-label={label} onSubmit={agree}>
      <h2>{label}?</h2>
      {typeof preview?.data === "string" && <p>{preview.data}</p>}
      {typeof args["copies"] === "number" && (
        <label>
          Copies <input name="copies" type="number" min="1" defaultValue={args["copies"]} readOnly={!approval.editable} />
        </label>
      )}
      <button>Approve</button>
      <button type="button" onClick={() => answer(approval.deny("Not now."))}>Deny</button>
      {problem && <p role="alert">{problem}</p>}
    </form>
  );
}
