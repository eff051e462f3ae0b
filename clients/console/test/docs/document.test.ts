// @vitest-environment node
import { readFileSync } from "node:fs";

import { describe, expect, it } from "vitest";

import { matches, read, type AsyncApi, type Field } from "../../src/docs/document.js";

const api = JSON.parse(
  readFileSync(new URL("../../../../protocol/schema/asyncapi.json", import.meta.url), "utf8"),
) as AsyncApi;
const pages = read(api);
const messages = pages.groups.flatMap((group) => group.messages);
const byPlace = new Map(messages.map((message) => [message.place, message]));
const typeText = (field: Field | undefined): string => (field?.type ?? []).map(({ text }) => text).join("");

describe("the protocol's document, read for the page", () => {
  it("has every message once, in the group of its kind", () => {
    expect(messages.map(({ place }) => place).sort()).toEqual(
      Object.keys(api.components.messages)
        .map((name) => `message.${name}`)
        .sort(),
    );
    expect(pages.groups.map(({ title }) => title)).toEqual([
      "Commands",
      "Frames",
      "Events",
      "Starting by HTTP",
      "Webhooks",
    ]);
  });

  it("has every structure once: as a message's fields, or by itself", () => {
    const own = pages.structures.map(({ title }) => title);
    expect(own).toContain("Todo");
    expect(own).not.toContain("RunStart");
    expect(own).not.toContain("RunStartCommand");
    expect(new Set(own).size).toBe(own.length);
  });

  it("links only to places that there are", () => {
    const places = new Set([...byPlace.keys(), ...pages.structures.map(({ place }) => place)]);
    const fields = [
      ...messages.flatMap((message) => message.fields),
      ...pages.structures.flatMap((structure) => structure.fields),
      ...pages.groups.flatMap((group) => group.envelope),
    ];
    const linked = fields.flatMap(({ type }) => type).flatMap(({ place }) => (place === undefined ? [] : [place]));
    expect(linked.length).toBeGreaterThan(20);
    expect(linked.filter((place) => !places.has(place))).toEqual([]);
    expect(messages.filter(({ answeredBy }) => answeredBy !== "" && !byPlace.has(`message.${answeredBy}`))).toEqual([]);
  });

  it("tells required from optional, and types in words", () => {
    const start = byPlace.get("message.run.start");
    const field = (name: string): Field | undefined => start?.fields.find((each) => each.name === name);
    expect(start?.answeredBy).toBe("receipt");
    expect(byPlace.get("message.ping")?.answeredBy).toBe("pong");
    expect(typeText(field("if_busy"))).toBe('"correct" | "parallel" | "queue" | "reject"');
    expect(typeText(field("run_id"))).toBe("string (an id)");
    expect(typeText(field("client_tools"))).toMatch(/^list of ClientTool \| string/);
    expect(field("input")?.required).toBe(false);
    expect(byPlace.get("message.run.correct")?.fields.find(({ name }) => name === "text")?.required).toBe(true);
    // A webhook's own payload is its event's.
    const told = byPlace.get("message.webhook.run.completed")?.fields;
    expect(told?.find(({ name }) => name === "payload")?.type).toEqual([
      { text: "RunCompleted", place: "message.run.completed" },
    ]);
    expect(told?.find(({ name }) => name === "seq")).toBeDefined();
  });

  it("counts what each side says on a channel, and knows how it is asked", () => {
    const channel = (key: string) => pages.channels.find(({ place }) => place === `channel.${key}`);
    const counted = (title: string) => pages.groups.find((group) => group.title === title)!.messages.length;
    expect(channel("socket")?.toServer).toBe(counted("Commands"));
    expect(channel("runEvents")?.address).toBe("GET /v1/runs/{run_id}/events");
    expect(channel("runEvents")?.query.map(({ name }) => name)).toContain("since_seq");
    expect(channel("runCommands")?.address).toBe("POST /v1/runs/{run_id}/commands");
    expect(channel("webhooks")?.address).toBe("");
  });

  it("finds by name, by summary and by a field, all words at once", () => {
    const found = (query: string): string[] =>
      messages.filter((message) => matches(message, query)).map(({ title }) => title);
    expect(found("RUN.START")).toContain("run.start");
    expect(found("args_digest respond")).toEqual(["approval.respond"]);
    expect(found("nothing like it")).toEqual([]);
    expect(found("")).toHaveLength(messages.length);
  });

  it("passes over parts that it does not know", () => {
    const other = { ...api, extensions: [], components: { ...api.components, traits: {} } };
    expect(read(other).groups).toHaveLength(pages.groups.length);
  });
});
