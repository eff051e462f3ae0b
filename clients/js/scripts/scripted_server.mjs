// A WebSocket server that answers every start with the same recorded run: enough to see a client work in any runtime.
import { readFile } from "node:fs/promises";
import { WebSocketServer } from "ws";

const LOG = new URL("../../../protocol/conformance/fold/approved.json", import.meta.url);

const limits = {
  max_frame_bytes: 1_048_576,
  max_input_bytes: 262_144,
  max_tool_result_bytes: 262_144,
  max_runs: 64,
  commands_in_flight: 32,
  command_memory_s: 86_400,
};

/** Listens on loopback; `{url, close()}`. */
export async function scriptedServer() {
  const { events } = JSON.parse(await readFile(LOG, "utf8"));
  const last = events.at(-1);
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await new Promise((resolve) => server.once("listening", resolve));

  server.on("connection", (socket, request) => {
    const say = (type, payload) => socket.send(JSON.stringify({ v: 1, type, payload }));
    const client_id = new URL(request.url, "http://localhost").searchParams.get("client_id") ?? "cl_1";
    const now = new Date().toISOString();
    say("connection.ready", {
      connection_id: "con_1",
      client_id,
      server: "scripted",
      now,
      heartbeat_s: 15,
      principal: { id: "u", name: "u" },
      limits,
    });
    socket.on("message", (data) => {
      const { type, command_id, payload } = JSON.parse(String(data));
      if (type === "ping") return say("pong", { t: payload?.t });
      if (type !== "run.start")
        return say("receipt", { command_id, status: "rejected", code: "unknown_command", text: "Starts alone." });
      const of = { run_id: last.run_id, thread_id: "th_1" };
      say("receipt", { command_id, status: "accepted", ...of, at_seq: 1, as: "started" });
      say("run.attached", {
        command_id,
        ...of,
        epoch: "e_1",
        head_seq: last.seq,
        first_seq: 1,
        status: "completed",
        can: ["read"],
        pending: [],
      });
      for (const event of events) socket.send(JSON.stringify(event));
      say("run.caught_up", { run_id: last.run_id, seq: last.seq });
    });
  });

  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      for (const socket of server.clients) socket.terminate();
      server.close();
    },
  };
}
