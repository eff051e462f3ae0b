import { describe, expect, it, vi } from "vitest";
import type { ToolCall } from "../src/index.js";
import { following, settle, world, type World } from "./fake/world.js";

const request = (tool_call_id = "call_1", more: object = {}) => ({
  tool_call_id,
  message_id: "msg_1",
  tool: "pick",
  label: "Pick",
  args: { n: 1 },
  client_id: "client_1",
  expires_at: "2026-01-01T00:01:00.000Z",
  expires_in_s: 60,
  ...more,
});
const results = ({ server }: Pick<World, "server">) => server.commands("tool.result").map(({ payload }) => payload);

describe("a tool of this client", () => {
  it("is offered now and with every attach, and not after it is taken back", async () => {
    const { server, clock, run } = await following();
    const tool = { name: "pick", description: "Picks", inputSchema: { type: "object" } };
    const offered = { name: "pick", description: "Picks", input_schema: { type: "object" } };
    const end = run.registerTool(tool, () => 1);
    run.registerTool("other", () => 2);
    expect(server.commands("tools.offer").at(-1)?.payload).toEqual({ client_tools: [offered, { name: "other" }] });
    server.socket.cut();
    await clock.advance(250);
    expect(server.commands("run.attach").at(-1)?.payload.client_tools).toEqual([offered, { name: "other" }]);
    end();
    end();
    await settle();
    expect(server.commands("tools.offer").at(-1)?.payload).toEqual({ client_tools: [{ name: "other" }] });
    expect(server.commands("tools.offer")).toHaveLength(3);
  });

  it("is called once, and its result is told", async () => {
    const made = await following();
    const { server, clock, run } = made;
    const seen = vi.fn(({ n }: { n: number }, { toolCallId: id, label }: ToolCall) => ({ got: n, id, label }));
    run.registerTool("pick", seen);
    server.write("tool.requested", request());
    await settle();
    server.socket.cut();
    await clock.advance(250);
    run.detach();
    await made.client.attach("run_1").then((again) => again.registerTool("pick", seen));
    await settle();
    expect(seen).toHaveBeenCalledTimes(1);
    const result = { got: 1, id: "call_1", label: "Pick" };
    expect(results(made)).toEqual([{ tool_call_id: "call_1", ok: true, result }]);
  });

  it("is not called for another client, without a handler, or for a call of the past", async () => {
    const seen = vi.fn(() => 1);
    const made = world({ tools: { pick: seen } });
    made.server.log();
    made.server.write("tool.requested", request("call_0"));
    made.server.write("tool.completed", { tool_call_id: "call_0", duration_ms: 1, preview: "", via: "client" });
    made.server.write("tool.requested", request("call_1", { client_id: "client_2" }));
    made.server.write("tool.requested", request("call_2", { tool: "unknown" }));
    made.server.write("tool.requested", request("call_3"));
    const run = await made.client.attach("run_1");
    await settle();
    expect(seen).toHaveBeenCalledTimes(1);
    expect(results(made).map(({ tool_call_id }) => tool_call_id)).toEqual(["call_3"]);
    run.registerTool("unknown", seen);
    await settle();
    expect(results(made).map(({ tool_call_id }) => tool_call_id)).toEqual(["call_3", "call_2"]);
  });

  it.each([
    [new Error("not there"), { code: "failed", text: "not there" }],
    [Object.assign(new Error("no file"), { code: "ENOENT" }), { code: "ENOENT", text: "no file" }],
    ["plain", { code: "failed", text: "plain" }],
    [undefined, { code: "failed", text: "undefined" }],
  ])("that throws %s fails as %j", async (thrown, error) => {
    const made = await following();
    made.run.registerTool("pick", () => {
      throw thrown;
    });
    made.server.write("tool.requested", request());
    await settle();
    expect(results(made)).toEqual([{ tool_call_id: "call_1", ok: false, error }]);
  });

  it("without a result says null", async () => {
    const made = await following();
    made.run.registerTool("pick", async () => {});
    made.server.write("tool.requested", request());
    await settle();
    expect(results(made)).toEqual([{ tool_call_id: "call_1", ok: true, result: null }]);
  });

  it.each([
    ["malformed", () => 1n],
    ["too_large", () => "x".repeat(1 << 21)],
  ])("whose result cannot be sent fails as %s", async (code, handler) => {
    const made = await following();
    made.run.registerTool("pick", handler);
    made.server.write("tool.requested", request());
    await settle();
    expect(results(made)).toMatchObject([{ ok: false, error: { code } }]);
  });

  it("tells its progress, the newest of several", async () => {
    const made = await following();
    made.run.registerTool("pick", async (_, { progress }) => {
      for (let n = 0; n <= 100; n += 1) progress({ fraction: n / 100 });
      await settle();
      progress({ text: "nearly" });
      await settle();
    });
    made.server.write("tool.requested", request());
    await settle();
    await settle();
    await settle();
    const told = results(made).map(({ progress, ok }) => progress ?? ok);
    expect(told).toEqual([{ fraction: 0 }, { fraction: 1 }, { text: "nearly" }, true]);
  });

  it("is told when nobody waits any more, and says nothing then", async () => {
    const made = await following();
    const signals: AbortSignal[] = [];
    made.run.registerTool("pick", (_, { signal }) => {
      signals.push(signal);
      return new Promise((resolve) => signal.addEventListener("abort", () => resolve("late")));
    });
    made.server.write("tool.requested", request("call_1"));
    made.server.write("tool.requested", request("call_2"));
    await settle();
    const failed = { tool_call_id: "call_1", code: "cancelled", text: "", outcome: "unknown", retryable: false };
    made.server.write("tool.failed", failed);
    await settle();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
    made.client.close();
    await settle();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
    expect(results(made)).toEqual([]);
  });

  it("that cannot be described as JSON is not offered, now or later", async () => {
    const { client, server, clock, run } = await following();
    expect(() => run.registerTool({ name: "pick", inputSchema: { n: 1n } }, () => 1)).toThrow(TypeError);
    server.socket.cut();
    await clock.advance(250);
    expect(client.connection.status).toBe("ready");
    expect(server.commands("run.attach").at(-1)?.payload.client_tools).toBeUndefined();
  });

  it("whose offer is refused is not offered again with the next attach", async () => {
    const { client, server, clock, run, reported } = await following();
    server.refusals.set("tools.offer", { code: "conflict", text: "the server has it" });
    run.registerTool("pick", () => 1);
    await settle();
    expect(reported).toMatchObject([{ message: "tools.offer was refused: the server has it" }]);
    server.socket.cut();
    await clock.advance(250);
    expect(server.commands("run.attach").at(-1)?.payload.client_tools).toBeUndefined();
    expect(client.connection.status).toBe("ready");
  });

  it("can be given for every run, and for one", async () => {
    const made = world({ tools: { pick: () => "all" } });
    const run = await made.client.start({
      input: "x",
      tools: { look: { description: "Looks", run: () => "one" } },
      clientTools: ["later"],
    });
    expect(made.server.commands("run.start")[0]?.payload.client_tools).toEqual([
      { name: "later" },
      { name: "pick" },
      { name: "look", description: "Looks" },
    ]);
    made.server.write("tool.requested", request("call_1"));
    made.server.write("tool.requested", request("call_2", { tool: "look" }));
    await settle();
    expect(results(made).map(({ result }) => result)).toEqual(["all", "one"]);
    made.server.socket.cut();
    await made.clock.advance(250);
    expect(made.server.commands("run.attach")[0]?.payload.client_tools).toHaveLength(3);
    expect(run.attached).toBe(true);
  });
});
