import { defineConfig } from "vitest/config";

const client = new URL("../js/src/index.ts", import.meta.url).pathname;

export default defineConfig({
  // Wherever the server is mounted, the page finds its parts beside it.
  base: "./",
  resolve: {
    alias: {
      "@midstream/client": client,
      "react-dom": "preact/compat",
      react: "preact/compat",
    },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../../server/midstream/console",
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    // Two pages: the console, and the protocol's at /docs.
    rolldownOptions: { input: ["index.html", "docs.html"] },
  },
  // `npm run dev` shows the page beside a server that was started by itself.
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8484", ws: true } } },
  test: { environment: "happy-dom" },
});
