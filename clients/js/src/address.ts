/** Where the server is. */

import { MidstreamError } from "./errors.js";

const PLAIN = "http:";
const SECURE = "https:";
const SPOKEN = new Map([[PLAIN, PLAIN], [SECURE, SECURE], ["ws:", PLAIN], ["wss:", SECURE]]);

/** The http(s) URL below which the server's paths are, ending in a slash. Throws `bad_address`. */
export function addressOf(given: string | URL): URL {
  const { document, location } = globalThis as Partial<typeof globalThis>;
  let url: URL;
  try {
    // Empty is where the page is, and not the page.
    url = new URL(given || ".", document?.baseURI ?? location?.href);
  } catch {
    throw bad(`${given} is no URL: give the server's, like https://agents.example`);
  }
  const protocol = SPOKEN.get(url.protocol);
  if (!protocol) throw bad(`${url.protocol} is not spoken here: give an http(s) or ws(s) URL`);
  if (url.username || url.password) throw bad("no password belongs in a URL: give getToken");
  url.protocol = protocol;
  url.search = url.hash = "";
  // Some give the WebSocket's own address: it names the server as well.
  url.pathname = url.pathname.replace(/\/v1(\/ws)?\/?$/, "").replace(/\/?$/, "/");
  return url;
}

function bad(text: string): MidstreamError {
  return new MidstreamError("bad_address", text);
}
