import { describe, expect, it, vi } from "vitest";
import { world } from "./fake/world.js";

function answering(...answers: (Response | Error)[]) {
  const asked: { method: string; url: string; authorization: string | null; body: unknown }[] = [];
  let tokens = 0;
  const fetch = vi.fn(async (url: string, init: RequestInit) => {
    const authorization = new Headers(init.headers).get("authorization");
    asked.push({ method: init.method ?? "", url, authorization, body: init.body });
    const answer = answers.shift() ?? new Response("{}");
    if (answer instanceof Error) throw answer;
    return answer;
  });
  const { client } = world({
    url: "https://test.example/agents",
    getToken: () => `t${(tokens += 1)}`,
    fetch: fetch as unknown as typeof globalThis.fetch,
  });
  return { rest: client.rest, asked };
}

const json = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });

describe("HTTP requests", () => {
  it("go to the endpoints below the prefix, with the token", async () => {
    const page = { items: [], next_cursor: "c" };
    const gone = new Response(null, { status: 204 });
    const { rest, asked } = answering(json(page), json({}), gone, json({ items: [{ name: "a" }] }));
    expect(await rest.runs({ status: "running", threadId: "t 1", limit: 5, cursor: undefined })).toEqual(page);
    await rest.view("a/b");
    expect(await rest.delete("run_1")).toBeUndefined();
    expect(await rest.agents()).toEqual([{ name: "a" }]);
    await rest.thread("th_1");
    await rest.grants({ limit: 2 });
    await rest.revokeGrant("g");
    await rest.deadLetters({ kind: "tool" });
    await rest.dismissDeadLetter("d");
    await rest.dismissDeadLetters({ kind: "tool" });
    await rest.request("POST", "v1/x", { body: { a: 1 } });
    expect(asked.map(({ method, url }) => `${method} ${url.replace("https://test.example/agents/v1/", "")}`)).toEqual([
      "GET runs?status=running&limit=5&thread_id=t+1",
      "GET runs/a%2Fb",
      "DELETE runs/run_1",
      "GET agents",
      "GET threads/th_1",
      "GET grants?limit=2",
      "DELETE grants/g",
      "GET dead-letters?kind=tool",
      "DELETE dead-letters/d",
      "DELETE dead-letters?kind=tool",
      "POST x",
    ]);
    expect(asked.at(-1)?.body).toBe('{"a":1}');
    expect(asked.every(({ authorization }) => /^Bearer t\d+$/.test(authorization ?? ""))).toBe(true);
  });

  it("are made again with another token after 401, once", async () => {
    const refusal = () => json({ error: { code: "unauthorized", text: "old" } }, 401);
    const { rest, asked } = answering(refusal(), json({ ok: 1 }), refusal(), refusal());
    expect(await rest.view("r")).toEqual({ ok: 1 });
    expect(new Set(asked.map(({ authorization }) => authorization)).size).toBe(2);
    await expect(rest.view("r")).rejects.toMatchObject({ code: "unauthorized", status: 401 });
  });

  it("reject with what the server said", async () => {
    const said = { code: "run_active", text: "cancel it first", retryable: false };
    const page = (status: number) => new Response("<html>", { status });
    const { rest } = answering(json({ error: said }, 409), page(502), page(200), new TypeError("no network"));
    const refused = { name: "Refused", code: "run_active", message: "cancel it first", status: 409 };
    await expect(rest.delete("r")).rejects.toMatchObject(refused);
    await expect(rest.view("r")).rejects.toMatchObject({ name: "Refused", message: "the server answered 502" });
    await expect(rest.view("r")).rejects.toThrow(/is it a Midstream server/);
    await expect(rest.view("r")).rejects.toMatchObject({ name: "Disconnected", message: "no network (1006)" });
  });

  it("can be aborted", async () => {
    const { rest } = answering(new DOMException("aborted", "AbortError"));
    const stop = new AbortController();
    stop.abort(new Error("mine"));
    await expect(rest.view("r", { signal: stop.signal })).rejects.toThrow("mine");
  });
});
