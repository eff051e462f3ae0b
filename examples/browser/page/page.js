import { connect } from "@midstream/client";

const client = connect({ url: document.querySelector('meta[name="midstream"]').content });
const $ = (id) => document.getElementById(id);

/** The run that is shown. Its id is in the address, so a reloaded page goes on with it. */
let run;

function show(shown) {
  run = shown;
  location.hash = run.id;
  drawn.clear();
  $("messages").replaceChildren();
  run.subscribe(draw);
  draw();
}

// -- drawing: from the state that there is, whatever happened. Called at most once a frame.

/** By id: a view keeps what did not change, so only the message that grows is touched. */
const drawn = new Map();

function draw() {
  const { view, ended, error } = run;
  for (const message of view.messages) {
    const known = drawn.get(message.message_id);
    if (known?.message === message) continue;
    const element = known?.element ?? document.createElement("p");
    element.className = message.role;
    // Text, never markup: a model wrote it.
    element.textContent = message.text;
    if (!known) $("messages").append(element);
    drawn.set(message.message_id, { message, element });
  }
  $("status").textContent = error?.message ?? view.failure?.text ?? view.status_text ?? view.status;
  $("corrections").replaceChildren(
    ...view.corrections.map(({ text, state }) => {
      const item = document.createElement("li");
      item.textContent = `${text} (${state})`;
      return item;
    }),
  );
  const over = ended || error;
  $("send").textContent = over ? "Start" : "Correct";
  $("stop").hidden = over;
}

// -- approvals, of all runs that are followed

let asked;

function ask() {
  const [approval] = client.approvals;
  // Answered, also elsewhere: it is not among the open ones any more.
  if (approval?.id === asked?.id) return;
  asked = approval;
  if (!approval) return $("approval").close();
  $("label").textContent = `${approval.label}?`;
  $("risk").textContent = approval.risk;
  $("refused").textContent = "";
  $("args").replaceChildren(
    ...Object.entries(approval.args).map(([name, value]) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { name, value, type: typeof value === "number" ? "number" : "text", step: "any" });
      input.readOnly = !approval.editable;
      label.append(`${name} `, input);
      return label;
    }),
  );
  if (!$("approval").open) $("approval").showModal();
}

/** What was changed in the form. */
function changed(form) {
  const inputs = Object.entries(asked.args).map(([name, value]) => [name, value, form.elements.namedItem(name)]);
  return Object.fromEntries(
    inputs
      .filter(([, value, input]) => input.value !== String(value))
      .map(([name, value, input]) => [name, typeof value === "number" ? input.valueAsNumber : input.value]),
  );
}

$("approval").addEventListener("submit", async (event) => {
  event.preventDefault();
  const args = changed(event.target);
  try {
    if (event.submitter.value === "deny") await asked.deny();
    else if (Object.keys(args).length > 0) await asked.edit(args);
    else await asked.approve();
  } catch (error) {
    // It stays open if the arguments do not fit (`invalid_args`).
    $("refused").textContent = error.message;
  }
});
// Escape does not answer, so the question stays.
$("approval").addEventListener("close", () => asked && $("approval").showModal());

// -- steering

/** Does it, and says so if it was refused. A drop in between needs nothing: the client sends it again. */
async function attempt(doing) {
  $("problem").textContent = "";
  try {
    await doing();
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

$("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { text } = event.target.elements;
  await attempt(async () => {
    if (run && !run.ended && !run.error) await run.correct(text.value);
    else show(await client.start({ input: text.value }));
    text.value = "";
  });
});
$("stop").addEventListener("click", () => attempt(() => run.cancel()));

function drawClient() {
  const { status, error } = client.connection;
  $("connection").textContent = error ? `closed: ${error.message}` : status;
  ask();
}

client.subscribe(drawClient);
drawClient();
if (location.hash) attempt(async () => show(await client.attach(location.hash.slice(1))));
