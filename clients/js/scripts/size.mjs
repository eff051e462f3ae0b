// How much a page loads for each entry of the package: bundled alone, minified and compressed. Needs dist/.
import { readFile } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";

const KB = 1024;

/**
 * Bytes of gzip that an entry may load at first: where it stands, and little room, so that it does not grow unseen. The
 * aim for `index.js` was 8 KB.
 */
const BUDGETS = { "index.js": 14 * KB, "react.js": 2 * KB };

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const readme = fileURLToPath(new URL("../README.md", import.meta.url));

/**
 * Bytes of gzip of a module of dist/ with all it imports: `{first, later}`, `later` being what it imports dynamically.
 * Modules named in `without` are passed over.
 */
async function sizeOf(entry, without = []) {
  const external = (id, importer) =>
    /^react/.test(id) || (importer !== undefined && without.some((name) => id.endsWith(`/${name}`)));
  const bundle = await rolldown({ input: dist + entry, platform: "browser", external, logLevel: "silent" });
  const { output } = await bundle.generate({ minify: true });
  await bundle.close();
  const chunks = new Map(output.filter(({ type }) => type === "chunk").map((chunk) => [chunk.fileName, chunk]));
  const first = new Set([...chunks.values()].filter(({ isEntry }) => isEntry).map(({ fileName }) => fileName));
  // A set that grows while it is gone through: what is imported by what is imported comes too.
  for (const name of first)
    chunks
      .get(name)
      .imports.filter((id) => chunks.has(id))
      .forEach((id) => first.add(id));
  const sizes = { first: 0, later: 0 };
  for (const [name, { code }] of chunks)
    sizes[first.has(name) ? "first" : "later"] += gzipSync(code, { level: 9 }).length;
  return sizes;
}

/** A line for each entry; throws if one is over its budget, or if the README says something else. */
export async function reportSizes() {
  const core = await sizeOf("index.js");
  const react = await sizeOf("react.js", ["index.js", "client.js", "run.js", "view.js"]);
  for (const [entry, { first }] of [
    ["index.js", core],
    ["react.js", react],
  ]) {
    console.log(`${entry}: ${first} bytes minified and gzip (budget ${BUDGETS[entry]})`);
    if (first > BUDGETS[entry])
      throw new Error(`${entry} is ${first - BUDGETS[entry]} bytes over its budget: see scripts/size.mjs`);
  }
  console.log(`the fallback to HTTP, loaded when it is first needed: ${core.later}`);

  const [told] = /^Minified and compressed with gzip.*?\n\n/ms.exec(await readFile(readme, "utf8")) ?? [""];
  const figures = [core.first, core.later, react.first].map((bytes) => `${Math.ceil(bytes / KB)} KB`);
  const missing = figures.filter((figure) => !told.includes(figure));
  if (missing.length > 0)
    throw new Error(`README.md, "Size": measured ${figures.join(", ")}; it says: ${told || "nothing"}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await reportSizes();
