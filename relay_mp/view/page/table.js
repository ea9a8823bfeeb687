/**
 * The table under the timeline: the tree of scopes, or a list of the slowest, dearest, failed, found.
 *
 * Only rows in view have elements. Its column "when" is the timeline's part of time, so that both zoom and pan together.
 */
import {CATEGORIES, MARK} from "./rows.js";
import {rows, state, onFrame, onSelect, select, zoomTo, changed} from "./state.js";
import {time, some, money, node} from "./format.js";
import {reveal} from "./timeline.js";

const LINE = 24, MOST = 1000, MOST_FOUND = 100000;
const grid = document.getElementById("table"), body = document.getElementById("lines");
const folded = new Map(); // row → whether its children are hidden, where somebody has said so
let shown = {key: "", list: new Int32Array(0), depth: new Uint16Array(0)}, lines = [], current = -1;

const isUnfolded = (row, depth) => folded.has(row) ? !folded.get(row) : depth === 0;

/** Rows of the tree that are not hidden, with their depths. */
function tree() {
  const list = [], depths = [], stack = []; // of the rows that are yet to come at each depth
  for (let i = 0; i < rows.roots.size; i++) {
    for (let row = rows.roots.at[i]; row >= 0;) {
      list.push(row);
      depths.push(stack.length);
      const isIn = isUnfolded(row, stack.length) && rows.firstChild[row] >= 0;
      const after = stack.length ? rows.next[row] : -1;
      if (isIn) { stack.push(after); row = rows.firstChild[row]; } else row = after;
      while (row < 0 && stack.length) row = stack.pop();
    }
  }
  return [list, depths];
}

/** The rows of a list that are most by a measure. */
function most(measure) {
  const list = [];
  for (let row = 0; row < rows.size; row++) if (rows.kind[row] !== MARK && measure(row) > 0) list.push(row);
  const key = new Map(list.map(row => [row, measure(row)]));
  return list.sort((a, b) => key.get(b) - key.get(a)).slice(0, MOST);
}

const LISTS = {
  slowest: () => most(row => rows.duration(row, state.now)),
  dearest: () => most(row => rows.cost[row] || (rows.read[row] + rows.written[row]) * 1e-12),
  failed: () => Array.from(rows.failed.at.subarray(0, rows.failed.size)).sort((a, b) => a - b).slice(0, MOST_FOUND),
  found: () => Array.from((state.foundRows ?? []).slice(0, MOST_FOUND)),
};
const EMPTY = {
  tree: "There is nothing here yet.",
  slowest: "No scope has taken any time yet.",
  dearest: "No model call has said its tokens or its cost. Both come from the answers of LLM calls that a codec reads.",
  failed: "Nothing has failed.",
  found: "Nothing is found. Type into the search field above: a name, a text of an input or output, or “failed”.",
};

/** Whether what is listed is of another state than it was; lists of a living run are made anew once a second. */
function arrange() {
  const {tab} = state;
  if (!(tab in EMPTY)) return;
  const age = tab === "tree" || tab === "found" ? rows.version : Math.floor(performance.now() / 1000);
  const key = `${tab} ${folded.size} ${fold.count} ${tab === "found" ? state.searches : ""} ${rows.version === shown.version ? shown.age : age}`;
  if (key === shown.key) return;
  const [list, depths] = tab === "tree" ? tree() : [LISTS[tab]()];
  shown = {key, version: rows.version, age, list, depths, at: null};
}

/** The place of a row in the list, or -1. */
function placeOf(row) {
  shown.at ??= new Map(shown.list.map((each, place) => [each, place]));
  return shown.at.get(row) ?? -1;
}

function fold(row, hide) { folded.set(row, hide); fold.count++; changed(); }
fold.count = 0;

function makeLine() {
  const cells = Array.from({length: 7}, () => node("span", {role: "gridcell"}));
  const line = node("div", {role: "row", class: "line"}, ...cells);
  const twist = node("i", {class: "twist"}), dot = node("i", {class: "dot"}), name = node("b");
  const bar = node("i", {class: "bar"});
  cells[0].append(twist, dot, name);
  cells[1].append(bar);
  line.addEventListener("click", event => {
    if (event.target === twist) { fold(line.row, isUnfolded(line.row, line.depth)); return; }
    choose(line.place);
    grid.focus({preventScroll: true});
  });
  line.addEventListener("dblclick", () => zoomTo(line.row));
  Object.assign(line, {cells, twist, dot, name, bar});
  return line;
}

function fillLine(line, place) {
  const row = shown.list[place], depth = shown.depths?.[place] ?? 0, isMark = rows.kind[row] === MARK;
  const hasChildren = shown.depths && rows.firstChild[row] >= 0;
  Object.assign(line, {row, place, depth});
  line.id = `line-${place}`;
  line.hidden = false;
  line.style.top = `${place * LINE}px`;
  line.setAttribute("aria-rowindex", place + 2);
  line.setAttribute("aria-selected", row === state.selected);
  line.setAttribute("aria-level", depth + 1);
  if (hasChildren) line.setAttribute("aria-expanded", isUnfolded(row, depth)); else line.removeAttribute("aria-expanded");
  line.classList.toggle("failed", rows.isFailed(row));
  line.classList.toggle("missed", !!state.found && !state.found[row]);
  line.cells[0].style.paddingLeft = `${6 + Math.min(depth, 40) * 14}px`;
  line.twist.textContent = hasChildren ? (isUnfolded(row, depth) ? "▾" : "▸") : "";
  line.dot.style.background = `var(--${CATEGORIES[rows.kind[row]]})`;
  line.dot.classList.toggle("mark", isMark);
  line.name.textContent = rows.nameOf(row);
  line.cells[0].title = `${rows.nameOf(row)} (${CATEGORIES[rows.kind[row]]})`;
  const span = state.to - state.from, from = Math.max((rows.start[row] - state.from) / span, -0.01);
  const to = Math.min((rows.start[row] + rows.duration(row, state.now) - state.from) / span, 1.01);
  line.bar.style.left = `${from * 100}%`;
  line.bar.style.width = `max(2px, ${(to - from) * 100}%)`;
  line.bar.hidden = to < 0 || from > 1;
  line.bar.style.background = rows.isFailed(row) ? "var(--failed)" : `var(--${CATEGORIES[rows.kind[row]]})`;
  const texts = isMark ? ["", "", "", "", ""] : [
    time(rows.duration(row, state.now)) + (rows.isOpen(row) ? " …" : ""), time(rows.selfTime(row, state.now)),
    some(rows.tokensBelow[row]), money(rows.costBelow[row]), some(rows.errorsBelow[row])];
  texts.forEach((text, i) => { line.cells[i + 2].textContent = text; });
}

function draw() {
  document.getElementById("by-name").hidden = state.tab !== "names";
  grid.hidden = state.tab === "names";
  if (grid.hidden) return;
  arrange();
  const {list} = shown, from = Math.max(Math.floor(grid.scrollTop / LINE) - 2, 0);
  const count = Math.min(Math.ceil(grid.clientHeight / LINE) + 4, list.length - from);
  while (lines.length < count) { const line = makeLine(); lines.push(line); body.append(line); }
  lines.forEach((line, i) => { if (i < count) fillLine(line, from + i); else { line.hidden = true; line.id = ""; } });
  body.style.height = `${list.length * LINE}px`;
  grid.setAttribute("aria-rowcount", list.length + 1);
  const place = state.selected < 0 ? -1 : placeOf(state.selected);
  if (place >= from && place < from + count) grid.setAttribute("aria-activedescendant", `line-${place}`);
  else grid.removeAttribute("aria-activedescendant");
  const empty = document.getElementById("empty");
  empty.hidden = list.length > 0 || state.tab === "tree";
  empty.textContent = list.length ? "" : EMPTY[state.tab];
}

/** Scrolls so that a place is in view. */
function scrollTo(place) {
  const top = place * LINE, room = grid.clientHeight - LINE * 2;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top > grid.scrollTop + room) grid.scrollTop = top - room;
}

function choose(place) {
  if (!shown.list.length) return;
  current = Math.min(Math.max(place, 0), shown.list.length - 1);
  select(shown.list[current]);
  reveal(state.selected);
  scrollTo(current);
}

/** What was selected elsewhere is shown here: its parents are unfolded. */
onSelect(row => {
  if (row < 0) return;
  if (state.tab === "tree") for (const parent of rows.parents(row)) if (folded.get(parent) !== false) fold(parent, false);
  arrange();
  const place = placeOf(row);
  if (place >= 0 && place !== current) scrollTo(place);
  current = place;
});

grid.addEventListener("scroll", draw, {passive: true});
grid.addEventListener("keydown", event => {
  const page = Math.max(Math.floor(grid.clientHeight / LINE) - 2, 1), row = state.selected;
  const moves = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity};
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) choose(current < 0 ? 0 : current + moves[event.key]);
  else if (event.key === "ArrowRight" && row >= 0 && shown.depths) {
    if (isUnfolded(row, shown.depths[current])) { if (rows.firstChild[row] >= 0) choose(current + 1); } else fold(row, false);
  } else if (event.key === "ArrowLeft" && row >= 0 && shown.depths) {
    if (rows.firstChild[row] >= 0 && isUnfolded(row, shown.depths[current])) fold(row, true);
    else if (rows.parent[row] >= 0) choose(placeOf(rows.parent[row]));
  } else if (event.key === "Enter" && row >= 0) zoomTo(row);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
onFrame(draw);
