import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    // Two: the suites share a machine with servers and browsers.
    maxWorkers: 2,
  },
});
