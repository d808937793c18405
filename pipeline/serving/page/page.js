// The page of `tohum serve`: a conversation with a served model, and ratings of its answers where a person has consented.

import { Failure, ask, stream, useKey } from "./api.js";
import { Turn } from "./turn.js";
import { keep, preferred, remembered, say, speak } from "./words.js";

const USER = "tohum.user"; // random name of this browser, made with the first consent
const VARIED = 0.8; // temperature of answers that should differ; the first answer is the model's likeliest
const COMPLETION_TOKENS = 200;
const EARLIER = 100; // turns that are sent along; the server takes so many, and the model cuts them to its context
const at = id => document.getElementById(id);
let models = [];
let model = null; // the chosen one, as /v1/models describes it
let turns = [];
let ownName = null; // that of `user`, in a browser that keeps nothing too
let running = null; // {turn, controller} of the answer in progress

/** A random name for the journal; with it the browser can delete its messages there. */
function user() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  ownName = remembered(USER) ?? ownName ?? Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
  keep(USER, ownName);
  return ownName;
}

/** Does something that needs the server; asks for a key where one is missing, and then does it again. */
async function withKey(action) {
  for (let tried = false; ; tried = true) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof Failure) || error.status !== 401 || !(await keyGiven(tried))) throw error;
    }
  }
}

/** Asks for an API key, or for another one (wrong); false: none was given. */
function keyGiven(wrong) {
  const dialog = at("key-dialog");
  at("key").value = "";
  at("key-wrong").hidden = !wrong;
  dialog.showModal();
  return new Promise(resolve => {
    at("key-form").onsubmit = event => {
      event.preventDefault();
      useKey(at("key").value.trim());
      dialog.close("given");
    };
    at("key-cancel").onclick = () => dialog.close("none");
    dialog.onclose = () => resolve(dialog.returnValue === "given");
    dialog.returnValue = "none";
  });
}

/** Reads the served models anew and shows the chosen one. */
async function look() {
  const before = model;
  // a reward model scores the answer that a program brings: there is nothing to ask it here
  models = (await withKey(() => ask("/v1/models"))).data.filter(one => one.task !== "reward");
  model = models.find(one => one.id === before?.id) ?? models.find(one => one.ready) ?? models[0] ?? null;
  at("model").replaceChildren(...models.map(one => new Option(one.id, one.id, false, one.id === model?.id)));
  describe();
  if (before && model && before.id === model.id && before.version !== model.version) {
    say(at("status"), "swapped", { model: model.id, version: model.version ?? "-" });
  }
}

/** Shows name, version and review of the model, and the controls that it can use. */
function describe() {
  if (!model) say(at("about"), "about.none");
  else if (!model.ready) say(at("about"), "about.not ready", { fault: model.fault });
  else {
    const review = { champion: "about.champion", "not the champion": "about.other" }[model.review] ?? "about.unreviewed";
    say(at("about"), model.version ? review : "about.folder", { model: model.id, version: model.version, task: model.task });
  }
  const kind = { "/v1/classify": "classify", "/v1/completions": "complete" }[model?.endpoint] ?? "chat";
  say(at("question-label"), `ask.${kind}`);
  at("drafts-label").hidden = kind === "classify";
}

/** The body of a turn's request. */
function body(turn, varied, count) {
  const common = { model: turn.model.id, ...(turn.stored ? { store: true, user: user() } : {}) };
  if (turn.model.endpoint === "/v1/classify") return { ...common, input: turn.question };
  const sampled = { ...common, stream: true, n: count, temperature: varied ? VARIED : 0 };
  if (turn.model.endpoint === "/v1/completions") return { ...sampled, prompt: turn.question, max_tokens: COMPLETION_TOKENS };
  const messages = turns
    .slice(0, turns.indexOf(turn))
    .filter(one => one.reply && one.model.id === turn.model.id)
    .filter(one => one.stored || !turn.stored) // consent is for what follows it: text sent without stays out of the journal
    .slice(-EARLIER)
    .flatMap(one => [{ role: "user", content: one.question }, { role: "assistant", content: one.reply }]);
  return { ...sampled, messages: [...messages, { role: "user", content: turn.question }] };
}

/** Asks the model and shows its answers. */
async function run(turn, varied) {
  const count = at("drafts").checked && turn.model.endpoint !== "/v1/classify" ? 2 : 1;
  const controller = new AbortController();
  running = { turn, controller };
  turn.begin(count, at("store").checked);
  busy(true);
  say(at("status"), "answering");
  try {
    await withKey(() => answered(turn, body(turn, varied || count > 1, count), controller.signal));
    following(() => turn.end("done"));
    say(at("status"), turn.answers.some(one => one.finish === "length") ? "cut" : "answered");
  } catch (error) {
    const fault = error instanceof Failure ? error : new Failure(0, "fault.server", { detail: error.message });
    following(() => (error.name === "AbortError" ? turn.end("stopped") : turn.end("failed", fault)));
    say(at("status"), "");
    if (error.param === "store") {
      at("store").checked = false;
      consent();
    }
    if (!(error instanceof Failure) && error.name !== "AbortError") console.error(error);
  }
  running = null;
  busy(false);
  await look().catch(() => {}); // an unreachable server is said at the next question
}

async function answered(turn, asked, signal) {
  if (turn.model.endpoint === "/v1/classify") {
    const [row] = (await ask(turn.model.endpoint, asked, signal)).data;
    turn.id = row.id;
    turn.score(row);
    return;
  }
  const { id, events } = await stream(turn.model.endpoint, asked, signal);
  turn.id = id;
  for await (const event of events) {
    following(() => {
      for (const { index, delta, text, finish_reason: finish } of event.choices) turn.add(index, delta?.content ?? text ?? "", finish);
    });
  }
}

/** Does something that makes the page longer; someone who reads its end still sees the end. */
function following(action) {
  const near = innerHeight + scrollY > document.body.scrollHeight - 80;
  action();
  if (near) scrollTo(0, document.body.scrollHeight);
}

/** Shows whether an answer is in progress. */
function busy(is) {
  const lost = [document.body, at("send"), at("stop")].includes(document.activeElement);
  at("stop").hidden = !is;
  at("send").hidden = is;
  if (lost) at(is ? "stop" : "question").focus();
}

const actions = {
  consented: () => at("store").checked,
  /** Sends a rating and shows it once it is kept. */
  async rate(turn, form, value) {
    try {
      await withKey(() => ask("/v1/ratings", { request: turn.id, form, value, user: user() }));
      turn.rate(form, value);
      say(at("status"), turn.rated);
    } catch (error) {
      say(at("status"), error.key ?? "fault.server", error.values ?? { detail: error.message });
    }
  },
  /** Sends the right label of a classified text. */
  async label(turn, value) {
    try {
      await withKey(() => ask("/v1/labels", { request: turn.id, label: value }));
      turn.given.label = value;
      say(at("status"), "rated");
    } catch (error) {
      say(at("status"), error.key ?? "fault.server", error.values ?? { detail: error.message });
    }
  },
  again(turn) {
    if (!running) run(turn, turn.state !== "failed");
  },
};

function send() {
  const question = at("question").value;
  if (running || !question.trim()) return;
  if (!model?.ready) {
    say(at("status"), "about.none");
    return;
  }
  const last = turns.at(-1);
  if (last) {
    last.last = false;
    last.show();
  }
  const turn = new Turn(question, model, actions);
  turns.push(turn);
  at("log").append(turn.element);
  at("question").value = "";
  scrollTo(0, document.body.scrollHeight);
  run(turn, false);
}

function stop() {
  running?.controller.abort();
}

/** Shows the meaning of the switch in its present position. */
function consent() {
  say(at("store-help"), at("store").checked ? "consent.on" : "consent.off");
  say(at("forget"), "consent.forget");
  at("forget").hidden = !at("store").checked && !remembered(USER) && !ownName;
  for (const turn of turns) if (turn !== running?.turn) turn.show();
}

/** Deletes what this browser sent, at the second press. */
async function forget() {
  const control = at("forget");
  if (control.dataset.said !== "consent.sure") {
    say(control, "consent.sure");
    return;
  }
  try {
    const { erased } = await withKey(() => ask("/v1/forget", { user: user() }));
    for (const turn of turns.filter(one => one.stored)) {
      Object.assign(turn, { stored: false, given: {}, rated: null });
      turn.show();
    }
    at("store").checked = false;
    keep(USER, null);
    ownName = null;
    say(at("status"), "consent.forgotten", { n: erased });
  } catch (error) {
    say(at("status"), error.key ?? "fault.server", error.values ?? { detail: error.message });
  }
  consent();
}

function listen() {
  at("composer").addEventListener("submit", event => (event.preventDefault(), send()));
  at("question").addEventListener("keydown", event => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", event => event.key === "Escape" && stop());
  at("stop").addEventListener("click", stop);
  at("store").addEventListener("change", consent);
  at("forget").addEventListener("click", forget);
  at("forget").addEventListener("blur", () => say(at("forget"), "consent.forget"));
  at("new").addEventListener("click", () => {
    stop();
    turns = [];
    at("log").replaceChildren();
    say(at("status"), "");
    at("question").focus();
  });
  at("model").addEventListener("change", () => {
    model = models.find(one => one.id === at("model").value);
    describe();
  });
  for (const control of document.querySelectorAll("[data-language]")) {
    control.addEventListener("click", () => choose(control.dataset.language, true));
  }
}

async function choose(name, remember) {
  await speak(name, remember);
  for (const control of document.querySelectorAll("[data-language]")) {
    control.setAttribute("aria-pressed", String(control.dataset.language === name));
  }
}

listen();
await choose(preferred(), false);
consent();
at("question").focus();
try {
  await look();
} catch (error) {
  say(at("about"), error.key ?? "fault.server", error.values ?? { detail: error.message });
}
