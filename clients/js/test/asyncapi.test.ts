// @vitest-environment node
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { expect, it } from "vitest";

interface Diagnostic {
  readonly code: string | number;
  readonly message: string;
  readonly path: readonly (string | number)[];
}

// Its own types need those of a package that it does not bring.
const { Parser } = createRequire(import.meta.url)("@asyncapi/parser") as {
  Parser: new () => { parse(text: string): Promise<{ diagnostics: readonly Diagnostic[] }> };
};

const read = (name: string): string =>
  readFileSync(new URL(`../../../protocol/schema/${name}`, import.meta.url), "utf8");

/** What is wrong with a document, without the advice to use a newer version of the format. */
const wrong = async (text: string): Promise<string[]> => {
  const { diagnostics } = await new Parser().parse(text);
  return diagnostics
    .filter(({ code }) => code !== "asyncapi-latest-version")
    .map(({ path, message }) => `${path.join("/")}: ${message}`);
};

it("the protocol's AsyncAPI document is one", { timeout: 60_000 }, async () => {
  const text = read("asyncapi.json");
  expect(await wrong(text)).toEqual([]);
  // It would be noticed: an operation that nobody does, a message that is not there.
  const document = JSON.parse(text);
  document.operations.runStart.action = "shout";
  document.channels.feed.messages.none = { $ref: "#/components/messages/none" };
  expect((await wrong(JSON.stringify(document))).length).toBeGreaterThan(1);
});
