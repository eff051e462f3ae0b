/** The page of the panel. Text of models and tools only ever becomes text: there is no markup made of it. */

import type { FromPanel, ToPanel } from "../panel.js";

declare function acquireVsCodeApi(): { postMessage(message: FromPanel): void };

/** Of pixels: nearer to the end than this, a reader wants to see what comes. */
const NEAR_END_PX = 40;

const editor = acquireVsCodeApi();
const part = <Kind extends HTMLElement>(id: string) => document.getElementById(id) as Kind;
const run = part("run");
const text = part<HTMLTextAreaElement>("text");
const decide = part<HTMLButtonElement>("decide");
const stop = part<HTMLButtonElement>("stop");

window.addEventListener("message", ({ data }: MessageEvent<ToPanel>) => draw(data));
stop.addEventListener("click", () => editor.postMessage({ type: "stop" }));
decide.addEventListener("click", () => editor.postMessage({ type: "decide" }));
part("say").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
});
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
});
editor.postMessage({ type: "ready" });

function say(): void {
  const said = text.value.trim();
  if (said) editor.postMessage({ type: "say", text: said });
  text.value = "";
}

function draw({ status, running, waits, corrections, change, returned }: ToPanel): void {
  // Never over what was typed meanwhile.
  if (returned && !text.value) text.value = returned;
  setText(part("status"), status);
  setText(part("label"), running ? "Correct the agent" : "Start a run");
  setText(part("send"), running ? "Correct" : "Start");
  stop.disabled = !running;
  decide.hidden = waits === 0;
  setText(decide, waits === 1 ? "1 approval waits" : `${waits} approvals wait`);
  part("corrections").replaceChildren(...corrections.map(({ id, text: said }) => correction(id, said)));
  if (!change) return;
  const atEnd = run.scrollHeight - run.scrollTop - run.clientHeight < NEAR_END_PX;
  change.blocks.forEach(({ kind, text: said }, index) => {
    const at = change.keep + index;
    const element = run.children[at] ?? run.appendChild(document.createElement("p"));
    if (element.className !== kind) element.className = kind;
    setText(element, said);
  });
  while (run.children.length > change.keep + change.blocks.length) run.lastElementChild?.remove();
  if (atEnd) run.scrollTop = run.scrollHeight;
}

function correction(id: string, said: string): HTMLElement {
  const item = document.createElement("li");
  const revoke = document.createElement("button");
  revoke.type = "button";
  revoke.textContent = "Take back";
  revoke.addEventListener("click", () => editor.postMessage({ type: "revoke", id }));
  item.append(`Waits: ${said} `, revoke);
  return item;
}

/** Only what grew is added, so a selection in what stands there stays. */
function setText(element: Element, wanted: string): void {
  const node = element.firstChild;
  if (!(node instanceof Text)) element.textContent = wanted;
  else if (wanted.startsWith(node.data)) node.appendData(wanted.slice(node.length));
  else node.data = wanted;
}
