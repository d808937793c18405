// The words of the page in one language: texts by key, filled in and put into elements as text, and numbers.

const LANGUAGES = ["en", "tr"];
const STORED = "tohum.language";
const said = new WeakMap(); // element -> [key, values] of what it says, for a change of language
let texts = {};

export let language = "en";

/** The language chosen before, else that of the browser, else English. */
export function preferred() {
  const wanted = [remembered(STORED), ...(navigator.languages ?? [navigator.language])];
  return wanted.map(name => (name ?? "").slice(0, 2).toLowerCase()).find(name => LANGUAGES.includes(name)) ?? "en";
}

/** Loads a language and says everything on the page in it. */
export async function speak(name, remember = false) {
  const response = await fetch(`/page/page.${name}.json`);
  texts = await response.json();
  language = name;
  document.documentElement.lang = name;
  if (remember) keep(STORED, name);
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-said]")) element.textContent = t(...said.get(element));
}

/** The text of a key with its fields `{name}` filled in; numbers as the language writes them. */
export function t(key, values = {}) {
  const text = texts[key];
  if (text === undefined) throw new Error(`no words for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? value.toLocaleString(language) : String(value ?? "");
  });
}

/** Makes an element say the text of a key, now and in a language chosen later; no key: nothing. */
export function say(element, key, values = {}) {
  if (!key) {
    delete element.dataset.said;
    element.textContent = "";
    return element;
  }
  said.set(element, [key, values]);
  element.dataset.said = key;
  element.textContent = t(key, values);
  return element;
}

/** A share as percent: 97.3% in English, %97,3 in Turkish. */
export function percent(share) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(share);
}

/** A number of a regression. */
export function number(value) {
  return new Intl.NumberFormat(language, { maximumSignificantDigits: 6 }).format(value);
}

/** A value that this browser has kept; null where it keeps nothing. */
export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a value in this browser, or removes it (null), where the browser allows it. */
export function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // a browser that keeps nothing forgets it with the page
  }
}
