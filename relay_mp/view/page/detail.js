/** One scope in full: its payloads, exception, process, parents. What it holds is asked of the server. */
import {CATEGORIES, MARK, NO_START} from "./rows.js";
import {rows, state, onFrame, onSelect, select, zoomTo, save} from "./state.js";
import {time, count, money, moment, node} from "./format.js";
import {payload, json} from "./payload.js";
import {reveal} from "./timeline.js";

const pane = document.getElementById("detail");
const OWN = /^(exception\.|otel\.|relay_mp\.origin$)/;
let shown = {row: -1}, asked = 0;

const section = (title, ...content) => node("section", {}, node("h3", {}, title), ...content);

function fact(list, name, ...value) {
  if (value[0] === "" || value[0] == null) return;
  list.append(node("div", {}, node("dt", {}, name), node("dd", {}, ...value)));
}

async function ask(row) {
  const mine = ++asked;
  const answer = await fetch(`scope/${row}?generation=${state.generation}`).catch(() => null);
  if (mine !== asked) return;
  if (!answer?.ok) { pane.replaceChildren(node("p", {class: "dim"}, answer ? (await answer.text()) : "The server does not answer: is `relay-mp view` still running?")); return; }
  const found = await answer.json();
  if (mine !== asked) return;
  shown = {row, ...found, wasOpen: rows.isOpen(row)};
  state.uuid = (found.closed ?? found.opened)?.uuid ?? "";
  save();
  write(row, found);
}

function write(row, {opened, closed, gone}) {
  const metadata = {...opened?.metadata, ...closed?.metadata}, isMark = rows.kind[row] === MARK;
  pane.replaceChildren(head(row), chain(row), buttons(row, {opened, closed}), facts(row, opened ?? closed, metadata));
  if (gone) pane.append(node("p", {class: "note"}, "Its payloads are no longer kept: a living session's newest 64 MiB are. A file written by an exporter has all."));
  const failed = exception(metadata);
  if (failed) pane.append(failed);
  if (opened?.data != null) pane.append(section(isMark ? "Data" : "Input", payload(opened.data)));
  if (closed?.data != null) pane.append(section("Output", payload(closed.data)));
  else if (rows.isOpen(row)) pane.append(section("Output", node("p", {class: "dim"}, state.runs[rows.runOf(row)]?.state === "live" ? "It is still open." : "It never ended.")));
  const profile = {...opened?.category_profile, ...closed?.category_profile};
  if (Object.keys(profile).length) pane.append(section("Profile", json(profile, 1)));
  const rest = Object.fromEntries(Object.entries(metadata).filter(([key]) => !OWN.test(key)));
  if (Object.keys(rest).length) pane.append(section("Metadata", json(rest)));
  pane.scrollTop = 0;
}

const head = row => node("h2", {},
  node("span", {}, rows.nameOf(row)),
  node("small", {class: `kind ${CATEGORIES[rows.kind[row]]}`}, CATEGORIES[rows.kind[row]]),
  rows.isFailed(row) ? node("small", {class: "kind bad"}, "failed") : null);

/** Its parents, outermost first. */
function chain(row) {
  const parents = rows.parents(row).reverse();
  if (!parents.length) return node("p", {class: "dim chain"}, "outermost");
  const few = parents.length > 8 ? [...parents.slice(0, 2), -1, ...parents.slice(-5)] : parents;
  return node("nav", {class: "chain", "aria-label": "Scopes around it"}, ...few.flatMap(each => [
    each < 0 ? "…" : node("button", {type: "button", onclick: () => { select(each); reveal(each); }}, rows.nameOf(each)), " › "]));
}

function buttons(row, events) {
  const say = (button, text) => { const was = button.textContent; button.textContent = text; setTimeout(() => { button.textContent = was; }, 1500); };
  const copy = (label, text) => node("button", {type: "button", onclick: async event => {
    const {target} = event;
    try { await navigator.clipboard.writeText(text()); say(target, "Copied"); } catch { say(target, "The browser refuses"); }
  }}, label);
  return node("div", {class: "buttons"},
    node("button", {type: "button", onclick: () => { zoomTo(row); reveal(row); }}, "Zoom to it"),
    copy("Copy JSON", () => JSON.stringify([events.opened, events.closed].filter(Boolean), null, 2)),
    copy("Copy link", () => location.href));
}

function facts(row, event, metadata) {
  const list = node("dl", {}), isMark = rows.kind[row] === MARK, {pid, thread, run} = rows.trackOf(row);
  if (!isMark) {
    fact(list, "Time", time(rows.duration(row, state.now)) + (rows.isOpen(row) ? ", still open" : ""));
    fact(list, "Self time", time(rows.selfTime(row, state.now)));
  }
  fact(list, isMark ? "At" : "Start", `+${time(rows.start[row])}${rows.flags[row] & NO_START ? " (its start was not seen)" : ""}`);
  fact(list, "", moment(rows.start[row] + rows.origins[run]));
  fact(list, "Process", pid ? `${pid}${thread && thread !== pid ? `, thread ${thread}` : ""}` : "not said");
  const tokens = rows.tokensBelow[row];
  if (tokens) fact(list, "Tokens", rows.read[row] + rows.written[row] ? `${count(rows.read[row])} read, ${count(rows.written[row])} written` : `${count(tokens)} within`);
  fact(list, "Cost", money(rows.costBelow[row]));
  fact(list, "Errors within", rows.errorsBelow[row] ? count(rows.errorsBelow[row]) : "");
  fact(list, "Status", metadata["otel.status_code"]);
  fact(list, "UUID", node("code", {}, event?.uuid ?? ""));
  return list;
}

function exception(metadata) {
  const type = metadata["exception.type"], said = metadata["exception.message"] ?? metadata["otel.status_description"];
  if (!type && metadata["otel.status_code"] !== "ERROR") return null;
  const stack = metadata["exception.stacktrace"];
  return node("section", {class: "exception"}, node("h3", {}, type ?? "Failed"), node("p", {class: "text"}, said ?? ""),
    stack ? node("details", {open: true}, node("summary", {}, "Stack"), node("pre", {tabindex: 0}, stack)) : null);
}

onSelect(row => {
  if (row < 0) { asked++; shown = {row}; pane.replaceChildren(node("p", {class: "dim"}, "Select a scope to see its input and output.")); return; }
  ask(row);
});
onFrame(() => { if (shown.row >= 0 && shown.wasOpen && !rows.isOpen(shown.row)) { shown.wasOpen = false; ask(shown.row); } });
