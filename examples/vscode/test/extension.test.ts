/** The extension in an editor that a test drives, before a real server. */

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRequire, Module } from "node:module";
import { fileURLToPath } from "node:url";
import { connect } from "@midstream/client";
import * as vscode from "vscode";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { activate } from "../src/extension.js";
import manifest from "../package.json" with { type: "json" };
import * as fake from "./fake/vscode.js";
import { contextOf, type Dialog, type FakePanel, person, reset, settings } from "./fake/vscode.js";
import { Server } from "./server.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const PATIENCE_MS = 30_000;
// A bundle asks for the editor's module as Node's own modules do, which the alias of the suite does not reach.
const load = Module as unknown as { _load(name: string, ...rest: unknown[]): unknown };
const { _load } = load;
load._load = (name, ...rest) => (name === "vscode" ? fake : _load(name, ...rest));
// What an editor of today has; Node 20 has none.
globalThis.WebSocket ??= WebSocket as unknown as typeof globalThis.WebSocket;

let place: string;
let folder: string;
let server: Server;
let context: ReturnType<typeof contextOf>;

beforeAll(async () => {
  place = await mkdtemp(join(tmpdir(), "midstream-vscode-"));
  server = await Server.up(place);
});

afterAll(async () => {
  await server.kill();
  await rm(place, { recursive: true });
});

beforeEach(async () => {
  folder = await mkdtemp(join(place, "workspace-"));
  reset(folder);
  settings.set("midstream.url", server.url);
  context = contextOf(ROOT);
  activate(context as unknown as vscode.ExtensionContext);
});

afterEach(() => context.deactivate());

async function until<Found>(what: string, look: () => Found | Promise<Found>): Promise<NonNullable<Found>> {
  const began = Date.now();
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() - began > PATIENCE_MS) {
      throw new Error(`${what}: not seen. The panel: ${person.panels[0]?.text}; dialogs: ${JSON.stringify(person.shown)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const command = (name: string) => vscode.commands.executeCommand(`midstream.${name}`);
const reads = (text: string) => until(`“${text}”`, () => person.panels[0]?.text.includes(text));
const isApproval = ({ kind, modal }: Dialog) => kind === "warning" && modal;
const greeting = () => readFile(join(folder, "greeting.txt"), "utf8");

/** Types the same into every line; decides approvals as told. */
function willAnswer({ input = "Greet the world.", approvals }: { input?: string; approvals: (string | undefined)[] }) {
  person.answer = (dialog) => {
    if (dialog.kind === "input") return input;
    return isApproval(dialog) ? approvals.shift() : undefined;
  };
}

async function started(): Promise<FakePanel> {
  await command("start");
  const panel = await until("a panel", () => person.panels[0]);
  panel.send({ type: "ready" });
  return panel;
}

test("start, approve two edits, correct, stop", async () => {
  willAnswer({ approvals: ["Approve", "Approve"] });
  const panel = await started();
  await reads("Hello, world.");

  const approvals = person.shown.filter(isApproval);
  expect(approvals.map(({ text }) => text)).toEqual(["Edit greeting.txt", "Edit greeting.txt"]);
  expect(approvals[0]?.detail).toBe("Risk: medium. The difference is shown in the editor.");
  // The return key of somebody who is typing must decide nothing.
  expect(approvals[0]?.buttons).toEqual(["Look closer", "Approve", "Deny"]);
  const differences = person.executed.filter(({ command }) => command === "vscode.diff");
  expect(differences.map(({ args }) => (args[0] as vscode.Uri).scheme)).toEqual(["midstream-proposed", "file"]);
  expect(await greeting()).toBe("Hello, world.\n");

  await reads("While I go on");
  panel.send({ type: "say", text: "And greet the moon." });
  await until("a waiting correction", () => panel.posted.some(({ corrections }) => corrections.length > 0));
  panel.send({ type: "stop" });
  await reads("The run was stopped.");
  // What was never heard comes back.
  await until("the text", () => panel.posted.some(({ returned }) => returned === "And greet the moon."));
});

test("what is denied is not done, and why is told", async () => {
  willAnswer({ approvals: ["Deny"], input: "Not today." });
  await started();
  await reads("Edit greeting.txt (failed)");
  await expect(greeting()).rejects.toThrow();
  expect(person.shown.some(({ kind, detail }) => kind === "input" && detail?.startsWith("Why not?"))).toBe(true);
  await command("stop");
});

test("a dialog that is closed decides nothing, and comes back when it is asked for", async () => {
  willAnswer({ approvals: [undefined, "Approve"] });
  await started();
  const bar = person.bars[0];
  await until("the bar", () => bar?.text === "$(bell) Midstream: 1 waiting");
  await until("the dialog", () => person.shown.some(isApproval));
  expect(bar?.command).toBe("midstream.decide");
  await expect(greeting()).rejects.toThrow();
  await command("decide");
  await until("the file", () => greeting().catch(() => ""));
  await command("stop");
});

test("an answer that came first stands, and is told of", async () => {
  let decided = (_choice: string | undefined) => {};
  person.answer = (dialog) => {
    if (dialog.kind === "input") return "Greet the world.";
    return isApproval(dialog) ? new Promise((resolve) => (decided = resolve)) : undefined;
  };
  await started();
  await until("the dialog", () => person.shown.some(isApproval));
  const other = connect({ url: server.url, WebSocket });
  const { items } = await other.rest.runs({ status: "waiting" });
  const run = await other.attach(items[0]!.run_id);
  const approval = await until("the approval", () => run.approvals[0]);
  await approval.deny("No.");
  other.close();
  decided("Approve");
  await until("the news", () => person.shown.some(({ text }) => text.startsWith("Answered already: denied by")));
  await expect(greeting()).rejects.toThrow();
  await command("stop");
});

test("a server that was killed, and a window that was loaded again, go on", async () => {
  willAnswer({ approvals: [] });
  await started();
  await until("the dialog", () => person.shown.some(isApproval));
  const bar = person.bars[0];
  await server.kill();
  await until("the bar", () => bar?.tooltip.startsWith("Coming back"));
  await server.up();
  await until("the bar", () => bar?.tooltip.startsWith("Connected"));

  context.deactivate();
  person.shown = [];
  willAnswer({ approvals: ["Approve"] });
  activate(context as unknown as vscode.ExtensionContext);
  await until("the file", () => greeting().catch(() => ""));
  await command("stop");
});

test("a refused command gives back what was typed", async () => {
  settings.set("midstream.agent", "nobody");
  await command("show");
  const panel = person.panels[0]!;
  panel.send({ type: "ready" });
  panel.send({ type: "say", text: "Greet the world." });
  await until("the text", () => panel.posted.some(({ returned }) => returned === "Greet the world."));
  expect(person.shown.filter(({ kind }) => kind === "error")).toHaveLength(1);
});

test("a token is asked for, kept as a secret, and sent", async () => {
  await mkdir(join(place, "secret"));
  const secret = await Server.up(join(place, "secret"), { token: "s3cret" });
  try {
    settings.set("midstream.url", secret.url);
    willAnswer({ approvals: [] });
    await command("start");
    const bar = person.bars[0];
    await until("the bar", () => bar?.command === "midstream.setToken");
    willAnswer({ approvals: [], input: "s3cret" });
    await command("setToken");
    expect(context.secrets.get("midstream.token")).toBe("s3cret");
    await command("start");
    await until("the bar", () => bar?.tooltip.startsWith("Connected"));
    await command("stop");
  } finally {
    await secret.kill();
  }
});

test("the bundle begins, and every command that the editor offers is there", async () => {
  context.deactivate();
  const offered = manifest.contributes.commands.map(({ command }) => command);
  const bundle = createRequire(import.meta.url)(join(ROOT, manifest.main)) as { activate: typeof activate };
  bundle.activate(context as unknown as vscode.ExtensionContext);
  expect(await vscode.commands.getCommands()).toEqual(offered);
  await command("show");
  expect(person.panels).toHaveLength(1);
});

test("its page allows its own script and style, and nothing else", async () => {
  await command("show");
  const { webview, options } = person.panels[0]!;
  const policy = /content="(default-src[^"]*)"/.exec(webview.html)?.[1] ?? "";
  const nonce = /script-src 'nonce-([\w-]{20,})'/.exec(policy)?.[1];
  expect(policy).toBe(`default-src 'none'; style-src https://webview.test; script-src 'nonce-${nonce}'`);
  expect(webview.html.match(/<script/g)).toHaveLength(1);
  expect(webview.html).toContain(`<script nonce="${nonce}"`);
  const roots = (options as { localResourceRoots: vscode.Uri[] }).localResourceRoots;
  expect(roots.map(({ path }) => path)).toEqual([join(ROOT, "dist"), join(ROOT, "media")]);
});
