// @vitest-environment happy-dom
/** The hooks under React, over the real client and a fake server. */

import { act, type ReactNode, StrictMode, useState } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Client, Run } from "../src/index.js";
import {
  MidstreamProvider,
  type ObjectProps,
  type RunState,
  useApprovals,
  useClient,
  useConnection,
  useObjects,
  useRun,
} from "../src/react.js";
import { following, settle, world, type World } from "./fake/world.js";

let place: HTMLElement;
let root: Root;

beforeEach(() => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  place = document.createElement("main");
  document.body.append(place);
  root = createRoot(place);
});

afterEach(async () => {
  await act(async () => root.unmount());
  place.remove();
  vi.unstubAllGlobals();
});

const draw = (node: ReactNode) => act(async () => root.render(node));
/** One picture of the fake clock, and all that follows from it. */
const frame = ({ clock }: World) => act(async () => clock.advance(16));
/** Real ones: what the hooks do a tick after the last component has gone. */
const tick = () => act(async () => new Promise((done) => setTimeout(done, 1)));

const ASKED = {
  approval_id: "apr_1",
  tool_call_id: "call_1",
  tool: "refund",
  label: "Refund 9.9",
  reason: "policy",
  risk: "medium",
  args: { amount: 9.9 },
  editable: true,
  args_digest: "d",
  decisions: ["approve", "deny"],
  remember_scopes: ["run"],
  expires_at: "2026-01-01T00:05:00.000Z",
  expires_in_s: 300,
  on_expire: "deny",
};

describe("useRun", () => {
  it("draws once for a thousand deltas of one tick", async () => {
    const made = await following();
    let drawn = 0;
    function Text() {
      drawn += 1;
      return <p>{useRun(made.client, "run_1").view?.messages[0]?.text.length}</p>;
    }
    await draw(<Text />);
    await frame(made);
    const before = drawn;
    await act(async () => {
      made.server.append(1_000);
      await settle();
      expect(made.run.view.cursor.seq).toBe(1_002);
    });
    expect(drawn).toBe(before);
    await frame(made);
    expect(drawn).toBe(before + 1);
    expect(place.textContent).toBe(String(made.run.view.messages[0]?.text.length));
  });

  it("attaches while it is shown, once for all components, and leaves a tick after the last", async () => {
    const made = world();
    made.server.log();
    const seen: string[] = [];
    function Status() {
      const { status } = useRun(made.client, "run_1");
      seen.push(status);
      return <i>{status} </i>;
    }
    await draw([<Status key="1" />, <Status key="2" />]);
    await act(settle);
    expect(seen.slice(0, 2)).toEqual(["loading", "loading"]);
    expect(place.textContent).toBe("ready ready ");
    await draw([<Status key="1" />]);
    await tick();
    expect(made.client.run("run_1")).toBeDefined();
    await draw([]);
    await tick();
    expect(made.client.run("run_1")).toBeUndefined();
    expect(made.server.commands("run.attach")).toHaveLength(1);
    expect(made.server.commands("run.detach")).toHaveLength(1);
  });

  it("attaches once under strict mode, and when another page shows the same run next", async () => {
    const made = world();
    made.server.log();
    const Status = () => <>{useRun(made.client, "run_1").status}</>;
    await draw(<StrictMode><Status key="one" /></StrictMode>);
    await act(settle);
    await draw(<StrictMode><Status key="other" /></StrictMode>);
    await tick();
    expect(place.textContent).toBe("ready");
    expect(made.server.commands("run.attach")).toHaveLength(1);
    expect(made.server.commands("run.detach")).toHaveLength(0);
  });

  it("leaves a run that has not answered yet", async () => {
    const made = world();
    made.server.log();
    made.server.held = true;
    const Status = () => <>{useRun(made.client, "run_1").status}</>;
    await draw(<Status />);
    await draw(null);
    await tick();
    expect(made.client.runs).toEqual([]);
  });

  it("does not leave what the application follows", async () => {
    const made = await following();
    const Status = ({ run }: { run: string | Run }) => <>{useRun(made.client, run).status}</>;
    await draw([<Status key="1" run="run_1" />, <Status key="2" run={made.run} />]);
    expect(place.textContent).toBe("readyready");
    await draw([]);
    await tick();
    expect(made.client.run("run_1")).toBe(made.run);
  });

  it("says that there is no such run", async () => {
    const made = world();
    const Status = () => {
      const { status, error, view } = useRun(made.client, "run_none");
      return <>{`${status} ${(error as { code?: string } | undefined)?.code} ${view}`}</>;
    };
    await draw(<Status />);
    await act(settle);
    expect(place.textContent).toBe("error not_found undefined");
  });

  it("keeps the view of a run whose client is closed for good", async () => {
    const made = await following();
    const seen: RunState[] = [];
    const Status = () => (seen.push(useRun(made.run)), null);
    await draw(<Status />);
    await act(async () => made.client.close());
    await frame(made);
    expect(seen.at(-1)).toMatchObject({ status: "error", attached: false, view: { messages: [{ message_id: "msg_1" }] } });
  });

  it("shows a run that ends while it is shown, and again afterwards", async () => {
    const made = world();
    made.server.log();
    const Status = () => <>{useRun(made.client, "run_1").view?.status}</>;
    await draw(<Status />);
    await act(settle);
    await act(async () => (made.server.end(), settle()));
    await frame(made);
    expect(place.textContent).toBe("completed");
    await draw(null);
    await tick();
    await draw(<Status />);
    await act(settle);
    expect(place.textContent).toBe("completed");
  });

  it("has nothing to show without a run, then the one that is named", async () => {
    const made = await following();
    const Status = ({ id }: { id?: string }) => <>{useRun(made.client, id).status}</>;
    await draw(<Status />);
    expect(place.textContent).toBe("idle");
    await draw(<Status id="run_1" />);
    expect(place.textContent).toBe("ready");
  });

  it("draws only when what is selected is another", async () => {
    const made = await following();
    let drawn = 0;
    function Roles() {
      drawn += 1;
      return <p>{useRun(made.client, "run_1", ({ view }) => view?.messages.map(({ role }) => role))?.join(" ")}</p>;
    }
    function Length() {
      const same = useRun(made.client, "run_1", ({ view }) => view?.messages[0]?.text ?? "", (a, b) => a.length >> 8 === b.length >> 8);
      return <b>{same.length}</b>;
    }
    await draw([<Roles key="1" />, <Length key="2" />]);
    await frame(made);
    const before = drawn;
    const length = place.querySelector("b")?.textContent;
    await act(async () => (made.server.append(3), settle()));
    await frame(made);
    expect([drawn, place.querySelector("b")?.textContent]).toEqual([before, length]);
    made.server.write("message.started", { message_id: "msg_2", role: "assistant", agent: "a" });
    await act(settle);
    await frame(made);
    expect([drawn, place.querySelector("p")?.textContent]).toEqual([before + 1, "assistant assistant"]);
  });

  it("keeps what is selected while it is equal, also for selectors that are made anew", async () => {
    const made = await following();
    const seen: unknown[] = [];
    function Plan() {
      seen.push(useRun(made.client, "run_1", ({ view }) => ({ agent: view?.agent, plan: view?.plan })));
      // Never equal: it is asked once for each state all the same.
      useRun(made.client, "run_1", ({ view }) => [view], Object.is);
      return null;
    }
    await draw(<Plan />);
    await act(async () => (made.server.append(3), settle()));
    await frame(made);
    await draw(<Plan />);
    expect(seen.length).toBeGreaterThan(2);
    expect(new Set(seen).size).toBe(1);
  });

  it("renders on a server, and goes on from there in the page", async () => {
    const made = world();
    made.server.log();
    const Page = () => (
      <MidstreamProvider client={made.client}>
        <Inner />
      </MidstreamProvider>
    );
    const Inner = () => <p>{`${useRun("run_1").status} ${useConnection().status} ${useApprovals().length}`}</p>;
    const html = renderToString(<Page />);
    expect(html).toBe("<p>loading connecting 0</p>");
    await act(settle);
    expect(made.client.connection.status).toBe("ready");
    const page = document.createElement("main");
    page.innerHTML = html;
    // What the page has by now was not there on the server.
    await made.client.attach("run_1");
    const complaints = vi.fn();
    const hydrated = await act(async () => hydrateRoot(page, <Page />, { onRecoverableError: complaints }));
    await act(settle);
    await frame(made);
    expect(page.textContent).toBe("ready ready 0");
    expect(complaints).not.toHaveBeenCalled();
    await act(async () => hydrated.unmount());
  });
});

describe("useApprovals", () => {
  it("has what waits, with its answers", async () => {
    const made = await following();
    const Ask = () => {
      const approvals = useApprovals(made.client);
      return approvals.map((approval) => (
        <button key={approval.id} onClick={() => void approval.approve()}>{approval.label}</button>
      ));
    };
    await draw(<Ask />);
    expect(place.textContent).toBe("");
    await act(async () => (made.server.write("approval.required", ASKED), settle()));
    await frame(made);
    expect(place.textContent).toBe("Refund 9.9");
    await act(async () => (place.querySelector("button")?.click(), settle()));
    expect(made.server.performed[0]?.["payload"]).toMatchObject({ decision: "approve", args_digest: "d" });
  });
});

describe("useConnection", () => {
  it("tells of the connection, whole or a part of it", async () => {
    const made = world();
    const Status = () => <>{useConnection(made.client).status} {String(useConnection((state) => state.retryAt !== undefined))}</>;
    await draw(<MidstreamProvider client={made.client}><Status /></MidstreamProvider>);
    await act(settle);
    await frame(made);
    expect(place.textContent).toBe("ready false");
    await act(async () => made.server.socket.cut());
    await frame(made);
    expect(place.textContent).toBe("reconnecting true");
  });
});

describe("the client", () => {
  it("is another one when the provider has another", async () => {
    const [one, two] = [world({ clientId: "one" }), world({ clientId: "two" })];
    let change!: (client: Client) => void;
    const Name = () => <>{useClient().clientId} {useConnection().status}</>;
    function Page() {
      const [client, setClient] = useState(one.client);
      change = setClient;
      return <MidstreamProvider client={client}><Name /></MidstreamProvider>;
    }
    await draw(<Page />);
    await act(settle);
    await act(async () => change(two.client));
    await frame(two);
    expect(place.textContent).toBe("two ready");
  });

  it.each([() => useClient(), () => useApprovals(), () => useConnection(), () => useRun("run_1")])("is asked for, %s", (use) => {
    const Page = () => (use(), null);
    expect(() => renderToString(<Page />)).toThrow(/MidstreamProvider/);
  });
});

describe("useObjects", () => {
  const Chart = ({ data, object }: ObjectProps<{ title: string }>) => <b>{`${object.object_id}:${data.title.trim()} `}</b>;
  const Other = ({ object, error }: ObjectProps) => <i>{`${object.kind}${error instanceof Error ? "!" : ""} `}</i>;
  const RENDERERS = { chart: Chart };

  async function withObjects() {
    const made = await following();
    made.server.write("object.created", { object_id: "o1", kind: "chart", data: { title: "A" }, message_id: "msg_1" });
    made.server.write("object.created", { object_id: "o2", kind: "constructor", data: null, tool_call_id: "call_1" });
    made.server.write("object.created", { object_id: "o3", kind: "chart", data: { title: "C" }, tool_call_id: "call_1" });
    await settle();
    await made.clock.advance(16);
    return made;
  }

  it("draws each kind with its renderer, others with the fallback", async () => {
    const made = await withObjects();
    const All = () => useObjects(made.client, "run_1", RENDERERS, { fallback: Other });
    const Known = () => useObjects(made.run, RENDERERS);
    await draw([<All key="all" />, "| ", <Known key="known" />]);
    expect(place.textContent).toBe("o1:A constructor o3:C | o1:A o3:C ");
  });

  it("draws those of a message, or of a call", async () => {
    const made = await withObjects();
    const OfMessage = () => useObjects(made.client, "run_1", RENDERERS, { fallback: Other, messageId: "msg_1" });
    const OfCall = () => useObjects(made.client, "run_1", RENDERERS, { fallback: Other, toolCallId: "call_1" });
    await draw([<OfMessage key="message" />, "| ", <OfCall key="call" />]);
    expect(place.textContent).toBe("o1:A | constructor o3:C ");
  });

  it("keeps the element of an object that is replaced, and goes on after one that could not be drawn", async () => {
    const made = await withObjects();
    vi.spyOn(console, "error").mockImplementation(() => {});
    const All = () => useObjects(made.client, "run_1", RENDERERS, { fallback: Other });
    const replace = async (data: unknown) => {
      made.server.write("object.created", { object_id: "o3", kind: "chart", data });
      await act(settle);
      await frame(made);
    };
    await draw(<All />);
    const first = place.querySelector("b");
    await replace({ title: 5 });
    expect(place.textContent).toBe("o1:A constructor chart! ");
    expect(place.querySelector("b")).toBe(first);
    await replace({ title: "D" });
    expect(place.textContent).toBe("o1:A constructor o3:D ");
    vi.restoreAllMocks();
  });
});
