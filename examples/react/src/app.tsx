import { useClient, useConnection } from "@midstream/client/react";
import { type FormEvent, useEffect, useState } from "react";
import { Approvals } from "./approvals";
import { RunPage } from "./run";

const WISH = "Make a poster for the summer market.";

/** The run in the address, so that a reloaded page goes on with it, and a copied one shows the same. */
function useRunId(): string | undefined {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return hash.slice(1) || undefined;
}

export function App() {
  const runId = useRunId();
  return (
    <>
      <header>
        <h1>Poster desk</h1>
        <Connection />
      </header>
      <main>
        {runId ? <RunPage key={runId} runId={runId} /> : <p>Ask for a poster. You choose its colour, and nothing is printed before you agree.</p>}
      </main>
      <footer>
        <Approvals />
        <Start />
      </footer>
    </>
  );
}

function Connection() {
  const client = useClient();
  const { status, error } = useConnection();
  return (
    <p role="status">
      {error ? `Closed: ${error.message}` : { connecting: "Connecting", ready: "Connected", reconnecting: "Coming back", closed: "Closed" }[status]}
      {status === "reconnecting" && <button onClick={() => client.reconnect()}>Now</button>}
    </p>
  );
}

function Start() {
  const client = useClient();
  const [problem, setProblem] = useState<string>();

  async function start(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const input = String(new FormData(event.currentTarget).get("input"));
    setProblem(undefined);
    try {
      const run = await client.start({ input });
      location.hash = run.id;
    } catch (error) {
      setProblem((error as Error).message);
    }
  }

  return (
    <form onSubmit={start}>
      <input name="input" aria-label="What do you need?" defaultValue={WISH} required />
      <button>Start</button>
      {problem && <p role="alert">{problem}</p>}
    </form>
  );
}
