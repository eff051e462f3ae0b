/** Bundles the extension (Node, with `vscode` from the editor) and the script of its panel (a browser's). */

import { build } from "esbuild";

const shared = { bundle: true, sourcemap: true, logLevel: "warning", target: "es2023" };

await build({
  ...shared,
  entryPoints: ["src/extension.ts"],
  outfile: "dist/extension.js",
  platform: "node",
  format: "cjs",
  external: ["vscode"],
});
await build({ ...shared, entryPoints: ["src/webview/panel.ts"], outfile: "dist/panel.js", format: "iife" });
