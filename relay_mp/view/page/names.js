/** By name and category: how often, how long, how dear, how often failed; with two runs, what has changed from A to B. */
import {CATEGORIES, MARK} from "./rows.js";
import {rows, state, onFrame} from "./state.js";
import {time, count, some, money, node} from "./format.js";
import {search} from "./search.js";

const MOST = 1000, NOTABLE = 1.1; // a tenth more or less is said
const place = document.getElementById("by-name");
let key = "", order = {column: "weight", isUp: false};

/** {name, kind, sides: [{count, total, median, p95, errors, tokens, cost}]} of each name. */
function groups(runs) {
  const found = new Map();
  for (let row = 0; row < rows.size; row++) {
    if (rows.kind[row] === MARK) continue;
    const id = rows.name[row] * 16 + rows.kind[row];
    let group = found.get(id);
    if (!group) found.set(id, group = {name: rows.nameOf(row), kind: CATEGORIES[rows.kind[row]], sides: Array.from({length: runs}, () => ({times: [], errors: 0, tokens: 0, cost: 0}))});
    const side = group.sides[Math.min(rows.runOf(row), runs - 1)];
    side.times.push(rows.duration(row, state.now));
    side.errors += rows.isFailed(row);
    side.tokens += rows.read[row] + rows.written[row];
    side.cost += rows.cost[row];
  }
  for (const {sides} of found.values()) for (const side of sides) {
    const times = Float64Array.from(side.times).sort();
    side.count = times.length;
    side.total = times.reduce((sum, each) => sum + each, 0);
    side.median = times[times.length >> 1] ?? 0;
    side.p95 = times[Math.min(Math.floor(times.length * 0.95), times.length - 1)] ?? 0;
    side.times = null;
  }
  return [...found.values()];
}

const ratio = (a, b) => (a > 0 ? b / a : b > 0 ? Infinity : 1);

/** What is worse and what is better in B, in words. */
function verdicts([a, b]) {
  const said = [];
  if (!a.count) return [["new in B", "note"]];
  if (!b.count) return [["only in A", "note"]];
  const slower = ratio(a.median, b.median), dearer = ratio(a.cost / a.count, b.cost / b.count), fails = b.errors / b.count - a.errors / a.count;
  if (slower >= NOTABLE) said.push([`${slower.toFixed(slower < 10 ? 1 : 0)}× slower`, "bad"]);
  else if (slower <= 1 / NOTABLE) said.push([`${(1 / slower).toFixed(1)}× faster`, "good"]);
  if (dearer >= NOTABLE) said.push([dearer === Infinity ? "has a cost now" : `${dearer.toFixed(1)}× dearer`, "bad"]);
  else if (dearer <= 1 / NOTABLE) said.push([`${(1 / dearer).toFixed(1)}× cheaper`, "good"]);
  if (fails > 0) said.push(["fails more often", "bad"]);
  else if (fails < 0) said.push(["fails less often", "good"]);
  return said.length ? said : [["the same", "dim"]];
}

/** Columns: [id, title, number of a group, text of a group] */
function columns(runs) {
  const each = (id, title, shown) => Array.from({length: runs}, (_, side) =>
    [`${id}${side}`, runs > 1 ? `${title} ${"AB"[side]}` : title, group => group.sides[side][id], group => (group.sides[side].count ? shown(group.sides[side][id]) : "")]);
  return [...each("count", "Count", count), ...(runs > 1 ? [] : each("total", "Total", time)), ...each("median", "Median", time), ...each("p95", "95 %", time),
    ...each("errors", "Failed", some), ...(runs > 1 ? [] : each("tokens", "Tokens", some)), ...each("cost", "Cost", money)];
}

/** What is most worth a look comes first: the time that all of a name took, or by which it has changed. */
const weight = ({sides: [a, b]}) => (b ? Math.abs(b.total - a.total) : a.total);

function write() {
  const runs = Math.min(Math.max(state.runs.length, 1), 2), all = columns(runs), list = groups(runs);
  const measure = all.find(([id]) => id === order.column)?.[2] ?? (order.column === "name" ? null : weight);
  list.sort((x, y) => (measure ? measure(y) - measure(x) : x.name.localeCompare(y.name)) * (order.isUp ? -1 : 1));
  const title = (id, label) => node("th", {scope: "col", "aria-sort": order.column === id ? (order.isUp !== (id === "name") ? "ascending" : "descending") : "none"},
    node("button", {type: "button", onclick: () => { order = {column: id, isUp: order.column === id && !order.isUp}; key = ""; draw(); }}, label, order.column === id ? (order.isUp !== (id === "name") ? " ↑" : " ↓") : ""));
  const head = node("tr", {}, title("name", "Name"), node("th", {scope: "col"}, "Category"), ...(runs > 1 ? [node("th", {scope: "col"}, "From A to B")] : []), ...all.map(([id, label]) => title(id, label)));
  const lines = list.slice(0, MOST).map(group => node("tr", {},
    node("th", {scope: "row"}, node("button", {type: "button", title: "Search for it", onclick: () => search(`name:${group.name.includes(" ") ? group.name.split(" ")[0] : group.name} cat:${group.kind}`)}, group.name)),
    node("td", {}, node("span", {class: `kind ${group.kind}`}, group.kind)),
    ...(runs > 1 ? [node("td", {}, ...verdicts(group.sides).map(([text, kind]) => node("span", {class: `verdict ${kind}`}, text)))] : []),
    ...all.map(([, , , text]) => node("td", {class: "number"}, text(group)))));
  const caption = runs > 1 ? `A: ${state.runs[0].name}. B: ${state.runs[1].name}. A tenth more or less is said.` : "Scopes by name and category.";
  place.replaceChildren(node("table", {}, node("caption", {}, list.length > MOST ? `${caption} The first ${MOST} of ${count(list.length)}.` : caption), node("thead", {}, head), node("tbody", {}, ...lines)));
}

function draw() {
  if (state.tab !== "names") return;
  const now = `${rows.version} ${state.runs.length} ${rows.open ? Math.floor(performance.now() / 1000) : ""}`;
  if (now === key) return;
  key = now;
  const focused = document.activeElement?.closest?.("#by-name thead button") ? order.column : null;
  write();
  if (focused) place.querySelector("th:not([aria-sort=none]) button")?.focus();
}
onFrame(draw);
