/**
 * What the page shows now: the rows, the part of time that is in view, what is selected and searched.
 *
 *   gesture, key, stream ──▶ state ──changed()──▶ one frame: timeline, table, header ──▶ URL
 *
 * All parts draw from here, so timeline and tree cannot differ. The URL's hash has what a link needs.
 */
import {Rows} from "./rows.js";

export const rows = new Rows();
export const state = {
  from: 0, to: 1e6, isFitted: true, // all of the time is in view, and stays so
  follows: false, selected: -1, query: "", found: null, foundRows: null, isSearched: true, tab: "tree", runs: [],
  generation: -1, now: 0, uuid: "",
};
const MIN_SPAN = 10, FOLLOWED_SPAN = 30e6;
const drawers = [];
let isDue = false, clock = 0, clockAt = 0;

export const isLive = () => state.runs.some(run => run.state === "live");

/** Registers what draws a part of the page. */
export const onFrame = draw => drawers.push(draw);

/** Something has changed: everything is drawn in the next frame. */
export function changed() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    tick();
    for (const draw of drawers) draw();
  });
}

/** The server's clock, in microseconds since the epoch. */
export function setClock(us) { clock = us; clockAt = performance.now(); }

/** Open scopes last until now; in a run that is over, until its last event. */
function tick() {
  state.now = rows.last;
  if (isLive() && rows.origins.length) {
    const origin = rows.origins[state.runs.findIndex(run => run.state === "live")] ?? rows.origins[0];
    state.now = Math.max(rows.last, clock + (performance.now() - clockAt) * 1e3 - origin);
  }
  const end = state.now * 1.01 + 1;
  if (state.isFitted && !(state.follows && end > FOLLOWED_SPAN)) [state.from, state.to] = [-end * 0.004, end];
  else if (state.follows) {
    const span = state.isFitted ? FOLLOWED_SPAN : state.to - state.from;
    [state.from, state.to] = [state.now - span * 0.97, state.now + span * 0.03];
  }
}

/** Shows this part of time. */
export function show(from, to) {
  const most = Math.max(state.now * 1.2, 1e3);
  const span = Math.min(Math.max(to - from, MIN_SPAN), most), middle = (from + to) / 2;
  state.from = Math.min(Math.max(middle - span / 2, -most / 5), Math.max(state.now - span * 0.2, 0));
  state.to = state.from + span;
  state.isFitted = false;
  changed();
}

/** Zooms around a time; following goes on. */
export function zoom(factor, around = (state.from + state.to) / 2) {
  const follows = state.follows;
  show(around - (around - state.from) * factor, around + (state.to - around) * factor);
  state.follows = follows;
}

/** Moves by a part of what is in view; following ends. */
export function pan(part) {
  const by = part * (state.to - state.from);
  state.follows = false;
  show(state.from + by, state.to + by);
}

export function fit() { state.isFitted = true; changed(); }

/** Puts a row's time in view, with some around it. */
export function zoomTo(row) {
  const span = Math.max(rows.duration(row, state.now), MIN_SPAN);
  state.follows = false;
  show(rows.start[row] - span * 0.1, rows.start[row] + span * 1.1);
}

const selectors = [];
export const onSelect = heard => selectors.push(heard);

/** @param {number} row or -1 */
export function select(row) {
  if (row === state.selected) return;
  state.selected = row;
  state.uuid = "";
  if (row >= 0 && (rows.start[row] > state.to || rows.start[row] + rows.duration(row, state.now) < state.from)) {
    const span = state.to - state.from;
    state.follows = false;
    show(rows.start[row] - span * 0.2, rows.start[row] + span * 0.8);
  }
  for (const heard of selectors) heard(row);
  changed();
}

// --- the URL

/** What the hash says: query, scope, from, to, tab. */
export const hash = () => new URLSearchParams(location.hash.slice(1));

let saving = 0;
/** Writes the hash, at most every 300 ms: browsers refuse more. */
export function save() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    const said = new URLSearchParams();
    if (state.query) said.set("q", state.query);
    if (state.uuid) said.set("scope", state.uuid);
    if (state.tab !== "tree") said.set("tab", state.tab);
    if (!state.isFitted && !state.follows) { said.set("from", Math.round(state.from)); said.set("to", Math.round(state.to)); }
    const text = said.toString();
    if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname);
  }, 300);
}
onFrame(save);
