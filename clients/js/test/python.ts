/** The Python that has the server: of the checkout's environment, or the one that MIDSTREAM_PYTHON names. */

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

export const PYTHON =
  process.env["MIDSTREAM_PYTHON"] ?? fileURLToPath(new URL("../../../.venv/bin/python", import.meta.url));

// Failing, not skipping: a suite that ran nothing must not look like one that found nothing.
if (spawnSync(PYTHON, ["-c", "import midstream_protocol"]).status !== 0) {
  throw new Error(
    `${PYTHON} has no Midstream: run \`.ci/setup dev\` in the checkout, or name one with MIDSTREAM_PYTHON`,
  );
}
