// A program of somebody else's: compiled in an empty project against the installed package, and run by Node.
import {
  type Approval,
  type Client,
  connect,
  MidstreamError,
  type Run,
  type RunEvent,
  type View,
} from "@midstream/client";
import { url } from "./server.js";

function told(event: RunEvent): string {
  switch (event.type) {
    case "message.delta":
      return event.payload.text;
    case "approval.required":
      return `${event.payload.risk satisfies "low" | "medium" | "high"}: ${event.payload.label}`;
    case "run.completed":
      return String(event.payload.usage.total_tokens);
    default:
      return event.type;
  }
}

function waiting(view: View): string[] {
  return view.pending.map((item) => {
    switch (item.kind) {
      case "approval":
        return item.approval_id;
      case "input":
        return item.question;
      case "tool":
        return item.client_id;
    }
  });
}

export async function decide(approval: Approval): Promise<void> {
  await (approval.risk === "low" ? approval.approve() : approval.deny("Too risky."));
}

// @ts-expect-error: there is no such event
export const wrong = (event: RunEvent) => event.type === "message.deleted";

async function follow(client: Client): Promise<View> {
  const run: Run = await client.start({ input: "Hello", agent: "desk" });
  let text = "";
  for await (const event of run) text += `${told(event)} `;
  const view = await run.finished;
  if (waiting(view).length > 0 || !text.includes("run.started")) throw new Error(`not the run that was sent: ${text}`);
  return view;
}

const client = connect({ url, getToken: () => "token", transport: "websocket" });
const { status, messages, cursor } = await follow(client);
client.close();
const refused = await client.start({ input: "Hello" }).catch((error: unknown) => error);
if (!(refused instanceof MidstreamError)) throw new Error(`expected a MidstreamError, got ${String(refused)}`);
console.log(
  `${status} after ${cursor.seq} events and ${messages.length} messages; a closed client refuses (${refused.code})`,
);
