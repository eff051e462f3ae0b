import { expect, it } from "vitest";
import { environmentOf } from "../src/environment.js";
import { openWebSocket } from "../src/websocket.js";
import { FakeServer, FakeSocket } from "./fake/server.js";
import { settle } from "./fake/clock.js";

async function opened(more: object = {}) {
  const server = new FakeServer();
  class WebSocket extends FakeSocket {
    constructor(url: string, protocols: string[] = []) {
      super(server, url, protocols);
      Object.assign(this, more);
    }
  }
  const said: unknown[] = [];
  const link = openWebSocket(
    {
      opened: () => said.push("opened"),
      frame: (text) => said.push(JSON.parse(text || "null")?.type),
      closed: (code, reason) => said.push([code, reason]),
    },
    {
      url: new URL("https://a.example/agents/"),
      clientId: "c_1",
      token: undefined,
      environment: environmentOf({ WebSocket }),
    },
  );
  expect(said, "nothing before it returns").toEqual([]);
  await settle();
  return { link, said, socket: server.socket };
}

it("is at the server's prefix, and says what comes", async () => {
  const { said, socket } = await opened();
  expect(socket.url.href).toBe("wss://a.example/agents/v1/ws?client_id=c_1");
  expect(socket.protocols).toEqual(["midstream.v1.json"]);
  socket.onmessage?.({ data: new ArrayBuffer(2) });
  socket.onerror?.({ message: "reset" });
  socket.cut(1006);
  expect(said).toEqual(["opened", "connection.ready", undefined, [1006, "reset"]]);
});

it("says nothing after it is closed, and closes with what a browser allows", async () => {
  for (const [code, sent] of [[1000, 1000], [1002, 4000], [1006, 4000]] as const) {
    const { link, said, socket } = await opened();
    const { onmessage, onclose } = socket;
    expect([onmessage, onclose]).not.toContain(null);
    link.close(code);
    expect(socket.closedWith).toBe(sent);
    socket.onerror?.({ message: "late" });
    socket.onmessage?.({ data: "{}" });
    socket.onclose?.({ code: 1006, reason: "" });
    expect(said).toEqual(["opened", "connection.ready"]);
  }
});

it("does not wait for a server that does not answer, where it need not", async () => {
  let terminated = 0;
  const { link, socket } = await opened({ terminate: () => (terminated += 1) });
  link.close(1006);
  expect([terminated, socket.closedWith]).toEqual([1, undefined]);
});
