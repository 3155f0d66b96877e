// Elements of the page. What a catalogue or a person wrote goes in as text, never as HTML.

import { picture } from "./api.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A poster: the picture where there is one, else the title's first letters on a colour of its own.
function poster(item) {
  const frame = element("div", { class: "poster", "aria-hidden": "true" });
  let hue = 0;
  for (const letter of item.title) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  frame.style.setProperty("--hue", hue);
  const words = item.title.replace(/[^\p{L}\p{N} ]/gu, "").split(" ").filter((word) => !/^(the|a|an|of)$/i.test(word));
  frame.append(words.slice(0, 2).map((word) => [...word][0] ?? "").join("").toUpperCase() || "?");
  if (item.image) {
    picture(`/v1/items/${encodeURIComponent(item.item_id)}/image`).then(
      (address) => frame.replaceChildren(element("img", { src: address, alt: "" })),
      () => {},
    );
  }
  return frame;
}

// Drawn, because not every machine has a font with these signs.
const THUMB = "M7 21H4V10h3m0 11V10l4-7c1.5 0 2.5 1 2.2 2.6L12.6 9H18c1.5 0 2.4 1.2 2 2.6l-2 7.4c-.3 1.2-1.2 2-2.400 2H7";
const OPINIONS = [
  ["liked", THUMB, "Like"],
  ["disliked", THUMB, "Dislike"],
  ["seen", "M4 13l5 5L20 6", "Seen"],
];

function sign(path) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  drawing.append(line);
  return drawing;
}

// A card. `act(kind, item)` is called for opinions and for "why"; it resolves to the opinion that now holds.
export function card(item, number, act) {
  const buttons = OPINIONS.map(([kind, path, word]) => {
    const button = element("button", { type: "button", class: "opinion", "data-kind": kind, "aria-pressed": "false" });
    button.append(sign(path), element("span", { class: "hidden" }, `${word}: ${item.title}`));
    button.title = word;
    button.addEventListener("click", () => act(button.getAttribute("aria-pressed") === "true" ? "cleared" : kind, item));
    return button;
  });
  return element(
    "article",
    { class: "card", "data-item": item.item_id },
    poster(item),
    element(
      "div",
      { class: "about" },
      element("h3", { title: item.title }, `${number}. `, element("span", { class: "title" }, item.title)),
      item.line ? element("p", { class: "facts" }, item.line) : null,
    ),
    element(
      "div",
      { class: "actions" },
      ...buttons,
      element(
        "button",
        { type: "button", class: "why", onclick: () => act("why", item) },
        "Why this?",
        element("span", { class: "hidden" }, ` ${item.title}`),
      ),
    ),
  );
}

// Marks on all cards what the conversation knows about their items.
export function markOpinions(root, state) {
  const opinion = new Map();
  for (const kind of ["liked", "disliked", "seen"]) for (const { item_id } of state[kind]) opinion.set(item_id, kind);
  for (const shown of root.querySelectorAll(".card")) {
    const kind = opinion.get(shown.dataset.item) ?? "";
    shown.dataset.opinion = kind;
    for (const button of shown.querySelectorAll(".opinion")) {
      button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    }
  }
}

export function said(text) {
  return element("div", { class: "message user" }, element("span", { class: "hidden" }, "You: "), element("p", {}, text));
}

export function thinking() {
  const words = element("p", { class: "words" });
  const bubble = element("div", { class: "message reply waiting", "aria-busy": "true" }, words);
  return { bubble, words };
}

// A reply that did not come, and why.
export function failed(bubble, why) {
  bubble.classList.remove("waiting");
  bubble.classList.add("failed");
  bubble.removeAttribute("aria-busy");
  bubble.replaceChildren(element("p", { class: "words" }, why));
}

// The whole reply: words with titles set off, cards, and what was understood.
export function finish(bubble, turn, act) {
  const words = element("p", { class: "words" });
  const cards = turn.items.length > 0;
  for (const segment of turn.segments) {
    // The list that follows the first line stands on the cards.
    const end = cards ? segment.text.indexOf("\n") : -1;
    const text = end < 0 ? segment.text : segment.text.slice(0, end);
    words.append(segment.item_id ? element("strong", {}, text) : text);
    if (end >= 0) break;
  }
  bubble.replaceChildren(words);
  if (cards) {
    bubble.append(element("div", { class: "cards" }, ...turn.items.map((item, index) => card(item, index + 1, act))));
  }
  if (turn.trace.length > 0) {
    const steps = turn.trace.map((step) => element("li", {}, step));
    bubble.append(element("details", { class: "trace" }, element("summary", {}, "How I understood this"), element("ul", {}, ...steps)));
  }
  bubble.classList.remove("waiting");
  bubble.removeAttribute("aria-busy");
}

export function known(target, state) {
  const rows = [
    ["You had used", state.history.slice(-5)],
    ["Liked", state.liked],
    ["Not liked", state.disliked],
    ["Seen", state.seen],
  ].filter(([, items]) => items.length > 0);
  const lists = rows.map(([name, items]) =>
    element("section", {}, element("h2", {}, name), element("ul", {}, ...items.map((item) => element("li", {}, item.text)))),
  );
  target.replaceChildren(...(lists.length ? lists : [element("p", {}, "Nothing yet. Tell me what you liked.")]));
}

export function filterChips(target, labels, remove) {
  target.replaceChildren(
    ...labels.map((label) =>
      element("button", { type: "button", class: "chip filter", "aria-label": `Remove filter: ${label}`, onclick: () => remove(label) }, label, element("span", { "aria-hidden": "true" }, " ×")),
    ),
  );
}

export function hintChips(target, hints, say) {
  target.replaceChildren(...hints.map((hint) => element("button", { type: "button", class: "chip", onclick: () => say(hint) }, hint)));
}
