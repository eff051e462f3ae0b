// The package as others get it: what `npm pack` makes is linted, measured, installed into an empty project, compiled
// there under strict TypeScript in each way that a program can be set up, and run. Needs dist/ (`npm run build`).
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { scriptedServer } from "./scripted_server.mjs";
import { reportSizes } from "./size.mjs";

const here = fileURLToPath(new URL("..", import.meta.url));
const empty = await mkdtemp(join(tmpdir(), "midstream-client-"));

function run(program, args, cwd = empty) {
  try {
    return execFileSync(program, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Error(`${[program, ...args].join(" ")} failed\n${error.stdout ?? ""}${error.stderr ?? ""}`);
  }
}

const node = (script, ...args) => run(process.execPath, [join(here, "node_modules", script), ...args]);

async function lint(tarball) {
  const { messages, pkg } = await publint({ pkgDir: here, strict: true });
  if (messages.length > 0) throw new Error(messages.map((message) => formatMessage(message, pkg)).join("\n"));
  // Programs in CommonJS come by `import()` or `require(esm)`: the package is ESM alone.
  node("@arethetypeswrong/cli/dist/index.js", tarball, "--profile", "esm-only", "--quiet");
}

/** Where the program is run: name, program, arguments. Node 20 has a WebSocket, but hides it. */
const RUNTIMES = [
  ["node", process.execPath, ...(globalThis.WebSocket ? [] : ["--experimental-websocket"])],
  ["deno", process.env.MIDSTREAM_DENO ?? "deno", "run", "--allow-net", "--allow-env"],
  ["bun", process.env.MIDSTREAM_BUN ?? "bun"],
];

const isThere = (program) => spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;

/** Not `run`: the server that the program speaks to lives in this process, which must not wait. */
async function runLater(program, args) {
  const { stdout } = await promisify(execFile)(program, args, { cwd: empty, timeout: 30_000 });
  return stdout;
}

/** How programs are set up that must compile against the package: `lib` and `types` are all they know of the world. */
const SETUPS = [
  { module: "nodenext", moduleResolution: "nodenext", lib: ["es2023", "dom"], types: [] },
  { module: "esnext", moduleResolution: "bundler", lib: ["es2023", "dom"], types: [] },
  { module: "nodenext", moduleResolution: "nodenext", lib: ["es2023"], types: ["node"] },
];

const STRICT = {
  target: "es2022",
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
};

/** Links what a program would install beside the package, from this one's own dependencies. */
async function link(...names) {
  for (const name of names) {
    await mkdir(dirname(join(empty, "node_modules", name)), { recursive: true });
    await symlink(join(here, "node_modules", name), join(empty, "node_modules", name), "dir");
  }
}

async function compile(setup, file, outDir) {
  await writeFile(
    join(empty, "tsconfig.json"),
    JSON.stringify({ compilerOptions: { ...STRICT, ...setup, jsx: "react-jsx", outDir }, files: [file] }),
  );
  node("typescript/bin/tsc", "-p", empty);
}

const server = await scriptedServer();
try {
  const [{ filename, unpackedSize, files }] = JSON.parse(
    run("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", empty], here),
  );
  const tarball = join(empty, filename);
  console.log(`${filename}: ${files.length} files, ${unpackedSize} bytes`);
  await lint(tarball);

  await writeFile(join(empty, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
  run("npm", ["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", tarball]);
  await cp(join(here, "scripts/consumer"), empty, { recursive: true });
  await link("@types/node", "undici-types");
  await mkdir(join(empty, "out"));
  await writeFile(join(empty, "server.ts"), `export const url = ${JSON.stringify(server.url)};\n`);
  for (const setup of SETUPS) await compile(setup, "program.ts", "out");
  for (const [name, program, ...args] of RUNTIMES) {
    if (isThere(program)) console.log(`${name}: ${(await runLater(program, [...args, "out/program.js"])).trim()}`);
    else console.log(`${name}: skipped, there is no \`${program}\` (MIDSTREAM_${name.toUpperCase()} names one)`);
  }
  await link("react", "react-dom", "@types/react", "csstype");
  for (const setup of SETUPS.slice(0, 2)) await compile(setup, "component.tsx", "out");
  run(process.execPath, ["out/component.js"]);
} finally {
  server.close();
  await rm(empty, { recursive: true, force: true });
}
await reportSizes();
