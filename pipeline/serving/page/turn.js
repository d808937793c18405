// One turn of the conversation: the question, its answers while they arrive, and what a person says about them.
// All text of people and of models is put in as text, never as HTML.

import { number, percent, say } from "./words.js";

/** A new element: a class, its words (a key, maybe with values) and its children. */
export function element(tag, { name = "", key = "", values = {}, children = [] } = {}) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (key) say(made, key, values);
  made.append(...children);
  return made;
}

export function button(key, pressed, action) {
  const made = element("button", { key });
  made.type = "button";
  if (pressed !== null) made.setAttribute("aria-pressed", String(pressed));
  made.addEventListener("click", action);
  return made;
}

/** A text of a person or a model. */
function text(name, content) {
  const made = element("p", { name: `text ${name}` });
  made.translate = false;
  made.dir = "auto";
  made.textContent = content;
  return made;
}

export class Turn {
  /** `actions`: rate(turn, form, value), label(turn, value), again(turn); each gives a promise. */
  constructor(question, model, actions) {
    Object.assign(this, { question, model, actions, answers: [], given: {}, id: null, stored: false, state: "new" });
    this.chosen = 0;
    this.last = true;
    this.list = element("div", { name: "answers" });
    this.note = element("p", { name: "note" });
    this.bar = element("div", { name: "actions" });
    const head = element("h2", { key: "you" });
    this.element = element("article", {
      name: "turn",
      children: [head, text("question", question), this.list, this.note, this.bar],
    });
  }

  /** The answer that the conversation goes on with. */
  get reply() {
    return this.given.correction ?? this.answers[this.chosen]?.said ?? "";
  }

  /** Begins anew with a number of empty answers. */
  begin(count, stored) {
    Object.assign(this, { answers: [], given: {}, id: null, stored, state: "running", chosen: 0, labels: null, rated: null });
    this.list.replaceChildren();
    this.list.classList.toggle("two", count > 1);
    for (let place = 0; place < count; place += 1) {
      const head = element("h2", count > 1 ? { key: "draft", values: { n: place + 1 } } : { key: "model's answer" });
      const shown = text("said", "");
      shown.setAttribute("aria-busy", "true");
      const bar = element("div", { name: "actions" });
      const box = element("section", { name: "answer", children: [head, shown, bar] });
      this.list.append(box);
      this.answers.push({ said: "", finish: null, shown, bar, box });
    }
    say(this.note, "");
    this.bar.replaceChildren();
  }

  /** Adds new text of an answer. */
  add(place, piece, finish) {
    const answer = this.answers[place];
    if (!answer) return;
    answer.said += piece;
    answer.shown.append(piece);
    if (finish) answer.finish = finish;
  }

  /** Shows labels with their probabilities, or a number, in place of a text. */
  score(row) {
    const [answer] = this.answers;
    const labels = row.labels ?? (row.label === undefined ? null : [row.label]);
    answer.said = labels ? labels.join(", ") : number(row.value);
    answer.shown.textContent = answer.said;
    if (labels && !labels.length) say(answer.shown, "no label");
    this.labels = Object.keys(row.probabilities ?? {});
    const rows = Object.entries(row.probabilities ?? {}).sort((one, other) => other[1] - one[1]);
    const table = element("table", { children: rows.map(([label, share]) => probability(label, share, labels)) });
    if (rows.length) answer.shown.after(table);
    answer.finish = "stop";
  }

  /** Ends the turn: done, stopped or failed (with words). */
  end(state, failure = null) {
    this.state = state;
    this.consented = this.stored; // at the time of asking
    if (state !== "done") this.stored = false; // what is not known to be kept cannot be rated
    for (const answer of this.answers) answer.shown.setAttribute("aria-busy", "false");
    this.failure = failure;
    this.show();
  }

  /** Shows the buttons and notes that fit the state. */
  show() {
    this.note.classList.toggle("fault", this.state === "failed");
    if (this.state === "failed") say(this.note, this.failure.key, this.failure.values);
    else if (this.state === "stopped") say(this.note, this.consented ? "stopped stored" : "stopped");
    else if (this.state === "done") say(this.note, this.rated ?? (this.stored ? "kept" : "not kept"));
    this.answers.forEach((answer, place) => answer.bar.replaceChildren(...this.#ratings(answer, place)));
    const again = this.last && !["running", "new"].includes(this.state) && !(this.labels && this.state === "done");
    const buttons = [];
    if (again) buttons.push(button(this.state === "failed" ? "try again" : "regenerate", null, () => this.actions.again(this)));
    if (this.answers.length > 1 && this.state === "done" && this.stored) {
      buttons.push(button("tie", this.given.choice === "tie", () => this.actions.rate(this, "choice", "tie")));
    }
    const taken = Object.keys(this.given).filter(form => form !== "label");
    if (taken.length) buttons.push(button("undo", null, () => this.actions.rate(this, "undo", taken.at(-1))));
    this.bar.replaceChildren(...buttons);
  }

  /** Takes over a rating that the server has kept; value undefined: it was taken back. */
  rate(form, value) {
    if (form === "undo") {
      delete this.given[value];
      if (value === "choice") this.choose(-1);
    } else {
      delete this.given[form];
      this.given[form] = value; // the latest is the first to be taken back
    }
    if (form === "choice" && value !== "tie") this.choose(value);
    const text = this.given.correction ?? this.answers[this.chosen].said;
    if (this.answers.length === 1 && !this.labels?.length) this.answers[0].shown.textContent = text;
    this.rated = form === "undo" ? "undone" : "rated";
    this.show();
  }

  /** Goes on with an answer. */
  choose(place) {
    this.chosen = Math.max(0, place); // none chosen: the conversation goes on with the first
    this.answers.forEach((answer, number) => answer.box.classList.toggle("chosen", number === place));
  }

  #ratings(answer, place) {
    if (this.state !== "done") return [];
    const rate = (form, value) => () => this.actions.rate(this, form, value);
    if (this.answers.length > 1) {
      const choice = this.stored ? this.given.choice === place : this.chosen === place && answer.box.classList.contains("chosen");
      return [button("choose", choice, this.stored ? rate("choice", place) : () => (this.choose(place), this.show()))];
    }
    if (!this.stored) return [];
    if (this.labels) return this.labels.length ? [this.#label()] : [];
    return [
      button("up", this.given.thumb === "up", rate("thumb", "up")),
      button("down", this.given.thumb === "down", rate("thumb", "down")),
      button("correct", null, () => this.#edit(answer)),
    ];
  }

  /** A choice of the right label of a classified text. */
  #label() {
    const select = element("select", { children: [element("option", { key: "label.none" })] });
    select.append(...this.labels.map(label => new Option(label, label, false, this.given.label === label)));
    select.addEventListener("change", () => select.selectedIndex && this.actions.label(this, select.value));
    return element("label", { children: [element("span", { key: "label.right" }), " ", select] });
  }

  /** Lets a person write the answer as it should have been. */
  #edit(answer) {
    const area = element("textarea");
    area.value = this.reply;
    area.rows = Math.min(12, 2 + area.value.split("\n").length);
    const label = element("label", { children: [element("span", { key: "correction" }), area] });
    const done = () => this.show();
    const save = button("save", null, () => this.actions.rate(this, "correction", area.value));
    answer.bar.replaceChildren(label, save, button("cancel", null, done));
    area.addEventListener("keydown", event => event.key === "Escape" && (event.stopPropagation(), done()));
    area.focus();
  }
}

function probability(label, share, chosen) {
  const name = element("th");
  name.scope = "row";
  name.textContent = label;
  name.translate = false;
  const meter = element("meter");
  Object.assign(meter, { min: 0, max: 1, value: share });
  meter.setAttribute("aria-hidden", "true");
  const shown = element("td", { name: "number" });
  shown.textContent = percent(share);
  const row = element("tr", { children: [name, element("td", { children: [meter] }), shown] });
  row.className = chosen?.includes(label) ? "best" : "";
  return row;
}
