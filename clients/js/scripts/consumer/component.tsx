// A component of somebody else's: compiled in an empty project against the installed package.
import { useApprovals, useConnection, useRun } from "@midstream/client/react";
import type { Client } from "@midstream/client";

export function Desk({ client, runId }: { client: Client; runId: string }) {
  const { view } = useRun(client, runId);
  const approvals = useApprovals(client);
  const connection = useConnection(client);
  return (
    <section>
      <p>{connection.status}</p>
      {view?.messages.map((message) => (
        <p key={message.message_id}>{message.text}</p>
      ))}
      {approvals.map((approval) => (
        <button key={approval.id} onClick={() => void approval.approve()}>
          {approval.label}
        </button>
      ))}
    </section>
  );
}
