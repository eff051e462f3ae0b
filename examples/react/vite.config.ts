import { defineConfig } from "vite";

export default defineConfig({
  // The client is a folder of this checkout, which has a React of its own for its tests. Installed from a package: not needed.
  resolve: { dedupe: ["react", "react-dom"] },
  // `npm run dev` serves the page; its server is the one of desk.py.
  server: { proxy: { "/agents": { target: "http://127.0.0.1:8484", ws: true } } },
});
