/** The README's code compiles, as a reader would copy it. */

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const here = fileURLToPath(new URL("..", import.meta.url));
const FOLDER = `${here}node_modules/.cache/midstream-readme/`;

// Snippets that import nothing go on from the first one.
const BEFORE = `import { type Client, connect, type Run } from "@midstream/client";
declare const client: Client;
declare const run: Run;
`;

test("every block of the README compiles", () => {
  const blocks = [...readFileSync(`${here}README.md`, "utf8").matchAll(/^```(tsx?)\n(.*?)^```$/gms)];
  expect(blocks.length).toBeGreaterThan(5);
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  const files = blocks.map(([, language, code = ""], at) => {
    const name = `block_${at + 1}.${language}`;
    const usesRun = /\brun\./.test(code) && !/const run\b/.test(code);
    const before = code.includes("import ")
      ? usesRun
        ? 'declare const run: import("@midstream/client").Run;\n'
        : ""
      : BEFORE;
    writeFileSync(FOLDER + name, before + code);
    return name;
  });
  const compilerOptions = {
    rootDir: here,
    moduleResolution: "bundler",
    module: "esnext",
    noUnusedLocals: false,
    paths: { "@midstream/client": [`${here}src/index.ts`], "@midstream/client/react": [`${here}src/react.ts`] },
  };
  writeFileSync(
    `${FOLDER}tsconfig.json`,
    JSON.stringify({ extends: `${here}tsconfig.json`, compilerOptions, include: files }),
  );
  const compiled = spawnSync(process.execPath, [`${here}node_modules/typescript/bin/tsc`, "-p", FOLDER], {
    encoding: "utf8",
  });
  expect(compiled.stdout + compiled.stderr).toBe("");
}, 60_000);
