// @vitest-environment happy-dom
/** The same hooks under Preact. */

import { type ComponentType, createElement as h, render } from "preact/compat";
import { act } from "preact/test-utils";
import { afterEach, expect, it, vi } from "vitest";
import type { Client } from "../src/index.js";
import type { ObjectProps } from "../src/react.js";
import { following, settle, world } from "./fake/world.js";

vi.mock("react", () => import("preact/compat"));

const { MidstreamProvider, useApprovals, useConnection, useObjects, useRun } = await import("../src/react.js");

const place = document.createElement("main");

/** Typed for React. */
const Provider = MidstreamProvider as unknown as ComponentType<{ client: Client }>;

const draw = (component: () => unknown, client: Client) =>
  act(async () => void render(h(Provider, { client }, h(component as ComponentType, {})), place));
const clear = () => act(() => void render(null, place));

afterEach(clear);

it("draws a run, once for a thousand deltas", async () => {
  const made = await following();
  let drawn = 0;
  await draw(() => {
    drawn += 1;
    const { status, view } = useRun("run_1");
    return `${status} ${view?.cursor.seq} ${useApprovals().length} ${useConnection((state) => state.status)}`;
  }, made.client);
  await act(async () => made.clock.advance(16));
  const before = drawn;
  await act(async () => {
    made.server.append(1_000);
    await settle();
  });
  await act(async () => made.clock.advance(16));
  expect(place.textContent).toBe("ready 1002 0 ready");
  expect(drawn).toBe(before + 1);
});

it("attaches and leaves", async () => {
  const made = world();
  made.server.log();
  await draw(() => useRun("run_1").status, made.client);
  await act(settle);
  expect(place.textContent).toBe("ready");
  await clear();
  await new Promise((done) => setTimeout(done, 1));
  expect(made.client.runs).toEqual([]);
});

it("draws objects, with the fallback where a renderer throws", async () => {
  const made = await following();
  made.server.write("object.created", { object_id: "o1", kind: "chart", data: null });
  made.server.write("object.created", { object_id: "o2", kind: "photo", data: null });
  await settle();
  const chart = () => {
    throw new Error("no data");
  };
  const fallback = ({ object, error }: ObjectProps) => `${object.kind} ${error} `;
  await draw(() => useObjects("run_1", { chart }, { fallback }), made.client);
  await act(async () => made.clock.advance(16));
  expect(place.textContent).toBe("chart Error: no data photo undefined ");
});
