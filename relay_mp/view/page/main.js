/**
 * The page: the stream comes in, the parts draw themselves.
 *
 *   server ──events──▶ rows ──▶ timeline, table, names     state (time in view, selection, search) ◀── input
 */
import {rows, state, onFrame, changed, hash, isLive, select, setClock, show} from "./state.js";
import {count, money} from "./format.js";
import {search} from "./search.js";
import {draw as drawTimeline, reveal} from "./timeline.js";
import "./table.js";
import "./names.js";
import "./detail.js";
import "./input.js";
import "./perfetto.js";

const element = id => document.getElementById(id);
const wanted = hash();
let isRestored = false, ingested = 0;

// --- the stream

const stream = new EventSource("events");
stream.addEventListener("rows", event => {
  const begun = performance.now(), batch = JSON.parse(event.data);
  if (batch.restart && state.generation >= 0) select(-1);
  state.generation = batch.generation;
  rows.take(batch);
  ingested += performance.now() - begun;
  changed();
});
stream.addEventListener("status", event => {
  const {runs, now} = JSON.parse(event.data), was = isLive();
  state.runs = runs;
  setClock(now);
  if (!was && isLive() && !isRestored) state.follows = true;
  if (!isLive()) state.follows = false;
  state.isBroken = false;
  if (runs.every(run => run.state !== "reading")) restore();
  changed();
});
stream.addEventListener("error", () => { state.isBroken = true; changed(); });
setInterval(() => { if (isLive() && !document.hidden) changed(); }, 100); // open scopes grow

/** What the link says, once the rows are there. */
async function restore() {
  if (isRestored) return;
  isRestored = true;
  if (wanted.get("tab")) tab(wanted.get("tab"));
  if (wanted.get("from")) { state.follows = false; changed(); show(+wanted.get("from"), +wanted.get("to")); }
  if (wanted.get("q")) search(wanted.get("q"));
  if (!wanted.get("scope")) return;
  const found = await fetch(`row/${encodeURIComponent(wanted.get("scope"))}`).then(answer => answer.json()).catch(() => null);
  if (found?.row != null && found.generation === state.generation) { select(found.row); reveal(found.row); }
}

// --- what is said of the runs

const STATES = {complete: () => "complete", live: () => "live", ended: () => "session ended", failed: run => `stopped: ${run.problem}`,
  reading: run => `reading, ${Math.floor(run.progress * 100)} %`};

/** Losses, and what is not shown: each with what it means. */
function notices() {
  const found = [];
  if (state.isBroken) found.push("The server does not answer. What is shown is what it had sent. Is `relay-mp view` still running?");
  for (const run of state.runs) {
    const of = state.runs.length > 1 ? `${run.name}: ` : "";
    if (run.lost) found.push(`${of}${count(run.lost)} events were lost in the program; the marks “relay_mp.loss” say where.`);
    if (run.missed) found.push(`${of}this viewer was too slow for ${count(run.missed)} events. The program and its exporters have them.`);
    if (run.unreadable) found.push(`${of}${count(run.unreadable)} lines hold no event and are left out.`);
    if (run.dropped) found.push(`${of}only the newest scopes are kept; ${count(run.dropped)} older ones are not shown.`);
    if (run.state === "ended") found.push(`${of}the session has ended. What is shown stays until you close the page.`);
  }
  return found.join("\n");
}

function write(id, text) { if (element(id).textContent !== text) element(id).textContent = text; }

onFrame(() => {
  const {runs} = state;
  write("title", runs.map(run => run.name).join(" and ") || "relay_mp");
  document.title = `${runs.map(run => run.name).join(" and ")} · relay_mp`;
  write("states", runs.map(run => STATES[run.state](run)).filter((text, i, all) => all.indexOf(text) === i).join(", "));
  element("states").className = `state ${isLive() ? "live" : runs.some(run => run.state === "failed") ? "bad" : ""}`;
  for (const [id, value] of [["scopes", rows.scopes], ["open", rows.open], ["processes", new Set(rows.tracks.map(track => `${track.run} ${track.pid}`)).size], ["tokens", rows.tokens]]) write(id, count(value));
  write("errors", count(rows.errors));
  element("errors").parentElement.classList.toggle("bad", rows.errors > 0);
  write("cost", money(rows.spent) || "–");
  element("follow").hidden = !isLive();
  element("follow").setAttribute("aria-pressed", state.follows);
  write("notices", notices());
  element("notices").hidden = !element("notices").textContent;
  write("tab-names", runs.length > 1 ? "Compare" : "By name");
  write("tab-failed", rows.errors ? `Failed (${count(rows.errors)})` : "Failed");
  write("tab-found", state.foundRows ? `Found (${count(state.foundRows.length)})` : "Found");
  const nothing = !rows.size && runs.length > 0 && runs.every(run => run.state !== "reading");
  element("nothing").hidden = !nothing;
  if (nothing) write("nothing-why", isLive() ? "The session runs, and no scope is open. The next one will show here as soon as it begins." : runs.some(run => run.state === "failed") ? runs.map(run => run.problem).join(" ") : "The file has no events. An exporter writes them: relay_mp.AtofExporter, or `relay-mp run --jsonl`.");
});

// --- buttons and tabs

element("fit").addEventListener("click", () => { state.isFitted = true; state.follows = false; changed(); });
element("follow").addEventListener("click", () => { state.follows = !state.follows; if (state.follows) state.isFitted = true; changed(); });
element("help-open").addEventListener("click", () => element("help").showModal());
element("help-close").addEventListener("click", () => element("help").close());
element("download").addEventListener("click", () => state.runs.forEach((run, number) => {
  const link = document.createElement("a");
  link.href = `download/${number}`;
  link.download = "";
  link.click();
}));

const tabs = [...document.querySelectorAll("[role=tab]")];
function tab(name) {
  const chosen = tabs.find(each => each.dataset.tab === name) ?? tabs[0];
  state.tab = chosen.dataset.tab;
  for (const each of tabs) { each.setAttribute("aria-selected", each === chosen); each.tabIndex = each === chosen ? 0 : -1; }
  element("panel").setAttribute("aria-labelledby", chosen.id);
  changed();
}
tabs.forEach((each, i) => {
  each.addEventListener("click", () => tab(each.dataset.tab));
  each.addEventListener("keydown", event => {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!by) return;
    const next = tabs[(i + by + tabs.length) % tabs.length];
    tab(next.dataset.tab);
    next.focus();
    event.preventDefault();
  });
});
tab("tree");

/** For tests and measurements. */
globalThis.relay = {rows, state, draw: drawTimeline, select, show, ingested: () => ingested};
