/**
 * The search: names, categories and processes here, payloads by the server; every word must match.
 *
 *   copytree cat:tool pid:4001 failed >100ms after:2s        a text with blanks or a keyword in it: in "quotes"
 */
import {CATEGORIES, FAILED, MARK, decoded} from "./rows.js";
import {rows, state, changed, select, isLive} from "./state.js";
import {count} from "./format.js";
import {reveal} from "./timeline.js";

const field = document.getElementById("query"), said = document.getElementById("matches");
const UNITS = {us: 1, "µs": 1, ms: 1e3, s: 1e6, min: 6e7, h: 3.6e9};
const KEYWORDS = {
  failed: row => (rows.flags[row] & FAILED) !== 0, error: row => (rows.flags[row] & FAILED) !== 0,
  open: row => rows.isOpen(row), mark: row => rows.kind[row] === MARK,
};
let timer = 0, running = 0, texts = new Map(), version = -1;

/** @returns {?number} microseconds of "100ms" */
function duration(text) {
  const found = /^(\d+(?:\.\d+)?)(us|µs|ms|s|min|h)?$/.exec(text);
  return found && found[1] * UNITS[found[2] ?? "s"];
}

/** @returns {{test: function(number): boolean, text: ?string}} what one word asks */
function read(word, isQuoted) {
  const [, key, value] = /^(name|cat|pid|after|before):(.+)$/.exec(word) ?? [], lower = (value ?? word).toLowerCase();
  const named = () => { const hits = rows.names.map(name => name.toLowerCase().includes(lower)); return row => hits[rows.name[row]]; };
  if (!isQuoted) {
    if (Object.hasOwn(KEYWORDS, lower)) return {test: KEYWORDS[lower]};
    const limit = duration(value ?? word.slice(1));
    if (limit != null && word[0] === ">") return {test: row => rows.kind[row] !== MARK && rows.duration(row, state.now) > limit};
    if (limit != null && word[0] === "<") return {test: row => rows.kind[row] !== MARK && rows.duration(row, state.now) < limit};
    if (limit != null && key === "after") return {test: row => rows.start[row] >= limit};
    if (limit != null && key === "before") return {test: row => rows.start[row] <= limit};
    if (key === "name") return {test: named()};
    if (key === "cat") return {test: row => CATEGORIES[rows.kind[row]] === lower};
    if (key === "pid") return {test: row => String(rows.trackOf(row).pid) === value};
  }
  const name = named(), category = CATEGORIES.indexOf(lower);
  return {test: row => name(row) || rows.kind[row] === category || String(rows.trackOf(row).pid) === word, text: word};
}

const words = query => [...query.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, word]) => read(quoted ?? word, quoted != null)).filter(each => each.text !== "");

/** Rows whose payloads have a text, by the server; a set of row numbers. */
async function inPayloads(text) {
  const known = texts.get(text);
  if (known && known.version === version) return known;
  const answer = await fetch(`search?text=${encodeURIComponent(text)}`).then(found => found.ok ? found.json() : null).catch(() => null);
  const usable = answer && answer.generation === state.generation;
  const found = {version, rows: new Set(usable ? decoded({row: answer.rows}).row : []), complete: !!answer?.complete};
  texts.set(text, found);
  return found;
}

async function run() {
  const mine = ++running, query = field.value.trim();
  if (version !== rows.version) texts = new Map();
  version = rows.version;
  state.query = query;
  if (!query) { state.found = state.foundRows = null; said.textContent = ""; changed(); return; }
  const asked = words(query);
  settle(asked, []);
  const found = await Promise.all(asked.map(each => each.text ? inPayloads(each.text) : null));
  if (mine === running) settle(asked, found);
}

/** Which rows match, by what is known so far. */
function settle(asked, payloads) {
  const mask = new Uint8Array(rows.size), list = [];
  for (let row = 0; row < rows.size; row++) {
    if (asked.every((each, i) => each.test(row) || payloads[i]?.rows.has(row))) { mask[row] = 1; list.push(row); }
  }
  state.found = mask;
  state.foundRows = Int32Array.from(list);
  state.searches = (state.searches ?? 0) + 1;
  const partly = payloads.some(found => found && !found.complete) ? ", not all payloads were looked at" : "";
  said.textContent = `${count(list.length)} found${partly}`;
  changed();
}

/** Selects the next or the previous row that is found. */
export function step(by) {
  const list = state.foundRows;
  if (!list?.length) return;
  let place = list.findIndex(row => row >= state.selected);
  if (place < 0) place = by > 0 ? -1 : list.length;
  else if (list[place] === state.selected) place += by;
  else if (by < 0) place -= 1;
  select(list[(place + list.length) % list.length]);
  reveal(state.selected);
}

export function search(query) { field.value = query; run(); }
/** Rows have come: what matches is looked for again, at most every two seconds. */
export function refresh() { if (state.query && rows.version !== version) run(); }

field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(run, 200); });
field.addEventListener("keydown", event => {
  if (event.key === "Enter") { event.preventDefault(); if (field.value.trim() !== state.query) run(); else step(event.shiftKey ? -1 : 1); }
  if (event.key === "Escape") { search(""); field.blur(); }
});
setInterval(() => { if (isLive() || state.runs.some(each => each.state === "reading")) refresh(); }, 2000);
