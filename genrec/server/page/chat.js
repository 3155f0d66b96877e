// The conversation on the page. The service keeps it; the page keeps its id, and a message until it is answered.

import { get, post, setKey, stream } from "./api.js";
import { remember, rememberInTab } from "./memory.js";
import { element, failed, filterChips, finish, hintChips, known, markOpinions, said, thinking } from "./view.js";

const find = (id) => document.getElementById(id);
const current = rememberInTab("genrec.conversation"); // {id, person}
const pending = rememberInTab("genrec.pending"); // {conversation, client_id, text, about}
const theme = remember("localStorage", "genrec.theme");
const log = find("log");
let people = [];
let suggestions = [];
let busy = true; // until there is a conversation
let early = false; // a message was finished before that, and goes out then

const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

function status(text, bad = false) {
  find("status").hidden = !text;
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
}

function ready(now) {
  busy = !now;
  for (const id of ["send", "person", "fresh"]) find(id).disabled = !now;
}

// Where the cursor was on something that is gone, it goes on in the message field; a phone keeps its keyboard down.
function refocus() {
  const lost = document.activeElement === document.body || document.activeElement === null;
  if (lost && !matchMedia("(pointer: coarse)").matches) find("message").focus();
}

// Repeats a request until there is an answer: the service may be loading, busy, restarting or out of reach.
async function persist(request) {
  for (let delay = 0.3; ; delay = Math.min(delay * 1.7, 5)) {
    try {
      const answer = await request();
      status("");
      return answer;
    } catch (error) {
      if (error.status === 401) await askForKey();
      else if (error.status === 0) status("Connection lost. Trying again…");
      else if (error.status === 503) status(`${error.message} ${early && !error.broken ? "Your message goes out as soon as it is." : "Trying again…"}`, error.broken);
      else if (error.status === 429) status("Many people are asking. Waiting for a turn…");
      else if (error.status !== 409) throw error;
      if (error.status !== 401) await wait(error.status === 429 ? error.retryAfter : delay);
    }
  }
}

function askForKey() {
  const dialog = find("key-dialog");
  return new Promise((done) => {
    dialog.addEventListener("close", () => (setKey(find("key").value), done()), { once: true });
    dialog.showModal();
  });
}

function toEnd() {
  log.scrollTo({ top: log.scrollHeight });
}

// A long reply is read from its beginning: the message that it answers goes to the top.
function toAnswer() {
  const asked = [...log.querySelectorAll(".user")].at(-1);
  if (asked) log.scrollTo({ top: asked.offsetTop - log.offsetTop - 12 });
  else toEnd();
}

function show(state) {
  known(find("known"), state);
  filterChips(find("filters"), state.filters, removeFilter);
  markOpinions(log, state);
}

function hints() {
  const started = log.querySelector(".card") !== null;
  hintChips(find("hints"), started ? ["More", "Surprise me", "Something older", "Why?"] : [...suggestions.slice(0, 4), "Surprise me"], (hint) => say(hint));
}

async function begin() {
  const person = people.find(({ user_id }) => user_id === find("person").value);
  const wanted = { history: person ? person.history : [] };
  const made = await persist(() => post("/v1/conversations", wanted));
  current.set({ id: made.id, person: find("person").value });
  pending.set(null);
  status("");
  open(made);
}

function open(conversation) {
  const person = people.find(({ user_id }) => user_id === find("person").value);
  const hello = person
    ? `Hello. You are user ${person.user_id}; you took last: ${person.last_titles.join("; ")}. Ask me for something.`
    : "Hello. Tell me what you liked, or what you are in the mood for.";
  log.replaceChildren(element("div", { class: "message reply" }, element("p", { class: "words" }, hello)));
  for (const message of conversation.messages) {
    log.append(said(message.text));
    const { bubble } = thinking();
    if (message.turn) finish(bubble, message.turn, act);
    if (message.turn) log.append(bubble);
  }
  show(conversation.state);
  hints();
  toAnswer();
}

async function say(text, about = null) {
  if (busy || !text.trim()) return;
  busy = true;
  const client_id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  pending.set({ conversation: current.get().id, client_id, text, about });
  log.append(said(text));
  await deliver();
}

// Sends the pending message until it is answered. The same id is never answered twice.
async function deliver() {
  const message = pending.get();
  const { bubble, words } = thinking();
  ready(false);
  log.append(bubble);
  toEnd();
  try {
    const body = { text: message.text, client_id: message.client_id, ...(message.about ? { about: message.about } : {}) };
    const answer = await persist(async () => {
      words.textContent = "";
      for await (const [event, data] of stream(`/v1/conversations/${message.conversation}/messages`, body)) {
        if (event === "turn") return data;
        if (event === "words") await write(words, data.text);
      }
    });
    finish(bubble, answer.turn, act);
    show(answer.state);
  } catch (error) {
    failed(bubble, error.status === 404 ? "This conversation is not kept any more. Begin a new one." : error.message);
    if (!find("message").value) find("message").value = message.about ? "" : message.text; // nothing is typed twice
  }
  pending.set(null);
  ready(true);
  hints();
  toAnswer();
  refocus();
}

const hurried = matchMedia("(prefers-reduced-motion: reduce)");

// One word at a time, at reading speed; a list is left to the cards.
async function write(words, text) {
  if (words.dataset.full) return;
  const end = text.indexOf("\n");
  words.append(end < 0 ? text : text.slice(0, end));
  if (end >= 0) words.dataset.full = "yes";
  toEnd();
  if (!hurried.matches) await wait(0.02);
}

async function act(kind, item) {
  if (kind === "why") return say("Why this one?", item.item_id);
  return change("feedback", { item_id: item.item_id, kind });
}

async function removeFilter(label) {
  await change("filters", { remove: label });
  refocus();
}

// Tells the service something beside the conversation; what it then knows is shown, and so is a refusal.
async function change(what, body) {
  try {
    show(await persist(() => post(`/v1/conversations/${current.get().id}/${what}`, body)));
  } catch (error) {
    status(error.status === 404 ? "This conversation is not kept any more. Begin a new one." : error.message, true);
  }
}

function listPeople(chosen) {
  const options = people.map(({ user_id, last_titles }) => element("option", { value: user_id }, `User ${user_id}: ${last_titles.at(-1)}`));
  find("person").replaceChildren(element("option", { value: "" }, "New visitor"), ...options);
  find("person").value = people.some(({ user_id }) => user_id === chosen) ? chosen : "";
}

function paint(value) {
  if (value) document.documentElement.dataset.theme = value;
}

async function start() {
  paint(theme.get());
  const info = await persist(async () => {
    const found = await get("/v1/page");
    const broken = !found.ready && Boolean(found.detail);
    if (!found.ready) throw Object.assign(new Error(found.detail || "The model is being loaded."), { status: 503, broken });
    return found;
  });
  ({ people, suggestions } = info);
  document.title = `${info.model} – genrec`;
  const kept = current.get();
  listPeople(kept?.person ?? "");
  find("person").addEventListener("change", begin);
  find("fresh").addEventListener("click", begin);
  const found = kept && (await persist(() => get(`/v1/conversations/${kept.id}`).catch((error) => (error.status === 404 ? null : Promise.reject(error)))));
  if (found) open(found);
  else await begin();
  if (pending.get()?.conversation === current.get().id) {
    if (!found?.messages.some(({ client_id }) => client_id === pending.get().client_id)) log.append(said(pending.get().text));
    if (found?.messages.some(({ client_id, turn }) => client_id === pending.get().client_id && turn)) pending.set(null);
    else await deliver();
  }
  ready(true);
  document.body.dataset.ready = "yes";
  if (early) find("composer").requestSubmit();
}

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (busy) {
    early = !document.body.dataset.ready;
    return;
  }
  early = false;
  const text = find("message").value;
  find("message").value = "";
  say(text);
});
find("message").addEventListener("input", () => (early = false)); // it is being changed: not finished
find("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("composer").requestSubmit();
  }
});
find("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  theme.set(dark ? "light" : "dark");
  paint(theme.get());
});
if (matchMedia("(max-width: 60rem)").matches) find("memory").open = false;
start().catch((error) => status(error.message, true));
