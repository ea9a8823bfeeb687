/**
 * The timeline: processes and threads, their scopes in lanes, and who started what in another process.
 *
 * The scopes of a lane begin one after another, so what is in view is found by binary search, and of those that share
 * a pixel one is drawn: a frame costs as many rectangles as there are pixels, whatever the number of scopes. Failed
 * and found scopes are drawn over them, so that none of these is hidden in a pixel.
 */
import {CATEGORIES, MARK} from "./rows.js";
import {rows, state, onFrame} from "./state.js";
import {time} from "./format.js";

const AXIS = 24, HEAD = 22, SUB = 16, MARKS = 12, LANE = 18, GAP = 8, FEW_LINKS = 60, MAX_LINKS = 300;
const canvas = document.getElementById("canvas"), pane = document.getElementById("timeline");
const context = canvas.getContext("2d", {alpha: false});
let width = 1, height = 1, scrolled = 0, colours = {}, layout = {version: -1, tracks: [], height: 0};
const widths = new Map();

new ResizeObserver(resize).observe(pane);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", resize);

function resize() {
  const scale = devicePixelRatio || 1;
  width = pane.clientWidth; height = pane.clientHeight;
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  const style = getComputedStyle(document.documentElement), read = name => style.getPropertyValue(`--${name}`).trim();
  for (const name of ["ground", "panel", "ink", "dim", "line", "accent", "failed", "on-failed", "on-bar", "faint"]) colours[name] = read(name);
  colours.kinds = CATEGORIES.map(read);
  draw();
}

/** Where each track stands: {track, y, marksY, lanesY, heads: [{y, text, level}]} */
function arrange() {
  if (layout.version === rows.version) return layout;
  const order = rows.tracks.map((track, index) => ({track, index})).filter(({track}) => track.lanes.length || track.marks.size);
  const firsts = new Map();
  for (const {track, index} of order) {
    const process = `${track.run} ${track.pid}`;
    if (!firsts.has(process)) firsts.set(process, index);
  }
  order.sort((a, b) => a.track.run - b.track.run ||
    firsts.get(`${a.track.run} ${a.track.pid}`) - firsts.get(`${b.track.run} ${b.track.pid}`) || a.index - b.index);
  const threads = new Map();
  for (const {track} of order) { const key = `${track.run} ${track.pid}`; threads.set(key, (threads.get(key) ?? 0) + 1); }
  let y = 4, run = -1, process = "";
  const tracks = [], heads = [], places = new Map();
  for (const {track, index} of order) {
    if (track.run !== run && state.runs.length > 1) { heads.push({y, text: `${"AB"[track.run] ?? track.run + 1}: ${state.runs[track.run].name}`, level: 0}); y += HEAD + 4; }
    run = track.run;
    const key = `${track.run} ${track.pid}`;
    if (key !== process) { heads.push({y, text: track.pid ? `process ${track.pid}` : "process unknown", level: 1}); y += HEAD; process = key; }
    if (threads.get(key) > 1) { heads.push({y, text: track.thread === track.pid ? "main thread" : `thread ${track.thread}`, level: 2}); y += SUB; }
    const place = {track, marksY: y, lanesY: y + (track.marks.size ? MARKS : 0)};
    y = place.lanesY + track.lanes.length * LANE + GAP;
    tracks.push(place);
    places.set(track, place);
  }
  layout = {version: rows.version, tracks, heads, places, height: y + AXIS};
  const spacer = document.getElementById("spacer");
  spacer.style.height = `${Math.max(layout.height - height, 0)}px`;
  return layout;
}

/** The top of a row's bar within the pane. */
const topOf = row => {
  const place = layout.places.get(rows.trackOf(row));
  return AXIS - scrolled + (rows.kind[row] === MARK ? place.marksY : place.lanesY + rows.lane[row] * LANE);
};
const xOf = us => (us - state.from) / (state.to - state.from) * width;
export const timeAt = x => state.from + x / width * (state.to - state.from);

/** The first of a lane's rows that ends after `from`. */
function firstAfter(list, from) {
  let low = 0, high = list.size;
  while (low < high) {
    const middle = (low + high) >> 1, row = list.at[middle];
    if (rows.end[row] < from) low = middle + 1; else high = middle;
  }
  return low;
}

/** The next of a lane's rows that begins at `from` or later; it is mostly near. */
function nextFrom(list, index, from) {
  let step = 1;
  while (index + step < list.size && rows.start[list.at[index + step]] < from) step *= 2;
  let low = index + (step >> 1), high = Math.min(index + step, list.size);
  while (low < high) { const middle = (low + high) >> 1; if (rows.start[list.at[middle]] < from) low = middle + 1; else high = middle; }
  return Math.max(low, index + 1);
}

const buckets = CATEGORIES.map(() => []);
const labels = [];

/** Collects the rectangles of a lane, by colour. */
function lane(list, y, h, scale) {
  const {from, to, now} = state, {start, kind} = rows;
  for (let i = firstAfter(list, from); i < list.size;) {
    const row = list.at[i], begins = start[row];
    if (begins > to) break;
    const x = (begins - from) * scale, w = rows.duration(row, now) * scale;
    if (w < 2) {
      const pixel = Math.floor(x), bucket = buckets[kind[row]], size = bucket.length;
      // Beside one of the same colour: that one is made wider.
      if (size && bucket[size - 4] + bucket[size - 2] === pixel && bucket[size - 3] === y) bucket[size - 2]++;
      else bucket.push(pixel, y, 1, h);
      i = nextFrom(list, i, from + (pixel + 1) / scale);
    } else {
      const left = Math.max(x, -2), right = Math.min(x + w, width + 2);
      buckets[kind[row]].push(left, y, Math.max(right - left - 0.5, 1), h);
      if (w > 26) labels.push(row, left, y, right - left);
      i++;
    }
  }
}

function fill(alpha) {
  context.globalAlpha = alpha;
  buckets.forEach((rectangles, kind) => {
    if (!rectangles.length) return;
    context.fillStyle = colours.kinds[kind];
    context.beginPath();
    for (let i = 0; i < rectangles.length; i += 4) context.rect(rectangles[i], rectangles[i + 1], rectangles[i + 2], rectangles[i + 3]);
    context.fill();
    rectangles.length = 0;
  });
  context.globalAlpha = 1;
}

/** Rows of any lanes, over what is drawn: `paint(row, x, y, width)` for those in view, one a pixel. */
function over(list, size, paint) {
  const scale = width / (state.to - state.from);
  const seen = new Set();
  for (let i = 0; i < size; i++) {
    const row = list[i], begins = rows.start[row], length = rows.duration(row, state.now);
    if (begins > state.to || begins + length < state.from) continue;
    const y = topOf(row);
    if (y < AXIS - LANE || y > height) continue;
    const x = Math.max((begins - state.from) * scale, -2), w = Math.max(Math.min((begins + length - state.from) * scale, width + 2) - x, 2);
    const pixel = Math.floor(x) * 65536 + Math.floor(y);
    if (w <= 2 && seen.has(pixel)) continue;
    if (w <= 2) seen.add(pixel);
    paint(row, x, y, w);
  }
}

function text(row, x, y, w) {
  const label = rows.isFailed(row) ? `! ${rows.nameOf(row)}` : rows.nameOf(row), room = w - 9;
  let size = widths.get(label);
  if (size === undefined) { size = context.measureText(label).width; if (widths.size < 20000) widths.set(label, size); }
  if (size <= room) context.fillText(label, x + 5, y + 9);
  else { const letters = Math.floor(label.length * room / size) - 1; if (letters > 1) context.fillText(`${label.slice(0, letters)}…`, x + 5, y + 9); }
}

/** Round times in view, about one each 110 pixels. */
function ticks() {
  const rough = (state.to - state.from) / Math.max(width / 110, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(factor => factor * power >= rough) * power, found = [];
  for (let at = Math.ceil(state.from / step) * step; at < state.to; at += step) found.push(at);
  return {step, found};
}

function axis({step, found}) {
  context.fillStyle = colours.panel;
  context.fillRect(0, 0, width, AXIS);
  context.font = "11px system-ui, sans-serif";
  for (const at of found) {
    context.fillStyle = colours.line;
    context.fillRect(Math.round(xOf(at)), AXIS - 6, 1, 6);
    context.fillStyle = colours.dim;
    context.fillText(Math.abs(at) < step / 2 ? "0" : tick(at, step), Math.round(xOf(at)) + 4, 12);
  }
  context.fillStyle = colours.line;
  context.fillRect(0, AXIS - 1, width, 1);
}

const tick = (us, step) => {
  const [size, unit] = step >= 1e6 || Math.abs(us) >= 1e7 && step >= 1e4 ? [1e6, "s"] : step >= 1e3 ? [1e3, "ms"] : [1, "µs"];
  return `${(us / size).toLocaleString("en", {maximumFractionDigits: Math.max(0, Math.round(Math.log10(size / step) + 0.4))})} ${unit}`;
};

/** From a parent to a child in another process or thread, at the child's start. */
function link(row) {
  const parent = rows.parent[row], x = xOf(rows.start[row]), y1 = topOf(parent) + LANE - 3, y2 = topOf(row) + LANE / 2 - 1;
  const bend = Math.min(14, width / 20);
  context.beginPath();
  context.moveTo(x - bend, y1);
  context.bezierCurveTo(x - bend, y1 + (y2 - y1) * 0.5, x - bend, y2, x, y2);
  context.stroke();
  context.beginPath();
  context.moveTo(x, y2); context.lineTo(x - 5, y2 - 3); context.lineTo(x - 5, y2 + 3);
  context.fill();
}

/** All links in view where they are few; always those of the selected scope. */
function links() {
  const some = [], {from, to, selected} = state;
  for (let i = 0; i < rows.links.size && some.length <= FEW_LINKS; i++) {
    const row = rows.links.at[i];
    if (rows.start[row] >= from && rows.start[row] <= to) some.push(row);
  }
  context.strokeStyle = context.fillStyle = colours.dim;
  context.globalAlpha = 0.35;
  context.lineWidth = 1;
  if (some.length <= FEW_LINKS) some.forEach(link);
  context.globalAlpha = 1;
  if (selected < 0) return;
  context.strokeStyle = context.fillStyle = colours.accent;
  context.lineWidth = 2;
  const isLinked = row => rows.parent[row] >= 0 && rows.track[rows.parent[row]] !== rows.track[row];
  [selected, ...rows.parents(selected)].filter(isLinked).forEach(link);
  context.lineWidth = 1;
  let left = MAX_LINKS;
  for (const child of rows.children(selected)) if (isLinked(child) && rows.start[child] >= from && rows.start[child] <= to && left-- > 0) link(child);
}

function heads() {
  for (const head of layout.heads) {
    const y = head.y + AXIS - scrolled;
    if (y < -HEAD || y > height) continue;
    context.fillStyle = head.level === 2 ? colours.dim : colours.ink;
    context.font = `${head.level < 2 ? "600 " : ""}${head.level ? 11 : 12}px system-ui, sans-serif`;
    if (head.level < 2) { context.fillStyle = colours.line; context.fillRect(0, y, width, 1); context.fillStyle = colours.ink; }
    context.fillText(head.text, 8, y + (head.level === 2 ? 9 : 12));
  }
}

/** Draws all; called once a frame. */
export function draw() {
  const begun = performance.now();
  arrange();
  scrolled = pane.scrollTop; // once: to read it costs a look at the page's layout
  const scale = width / (state.to - state.from), top = scrolled - AXIS;
  context.fillStyle = colours.ground;
  context.fillRect(0, 0, width, height);
  context.textBaseline = "middle";
  const lines = ticks();
  context.fillStyle = colours.faint;
  for (const at of lines.found) context.fillRect(Math.round(xOf(at)), AXIS, 1, height);
  labels.length = 0;
  for (const place of layout.tracks) {
    const {track} = place;
    if (track.marks.size) marks(track.marks, place.marksY - top, scale);
    for (let l = 0; l < track.lanes.length; l++) {
      const y = place.lanesY + l * LANE - top;
      if (y > AXIS - LANE && y < height) lane(track.lanes[l], y, LANE - 2, scale);
    }
  }
  fill(state.found ? 0.25 : 1);
  if (state.foundRows) { over(state.foundRows, state.foundRows.length, (row, x, y, w) => buckets[rows.kind[row]].push(x, y, w, LANE - 2)); fill(1); }
  context.fillStyle = colours.failed;
  context.beginPath();
  over(rows.failed.at, rows.failed.size, (row, x, y, w) => { if (!state.found || state.found[row]) context.rect(x, y, w, LANE - 2); });
  context.fill();
  context.font = "11px system-ui, sans-serif";
  for (let i = 0; i < labels.length; i += 4) {
    const row = labels[i], isDim = state.found && !state.found[row];
    context.fillStyle = isDim ? colours.dim : rows.isFailed(row) ? colours["on-failed"] : colours["on-bar"];
    text(row, labels[i + 1], labels[i + 2], labels[i + 3]);
  }
  links();
  outline();
  heads();
  axis(lines);
  state.drawn = performance.now() - begun;
}

/** Marks as diamonds, one a pixel. */
function marks(list, y, scale) {
  if (y < AXIS - MARKS || y > height) return;
  let last = -9;
  context.fillStyle = colours.kinds[MARK];
  context.beginPath();
  let low = 0, high = list.size;
  while (low < high) { const middle = (low + high) >> 1; if (rows.start[list.at[middle]] < state.from) low = middle + 1; else high = middle; }
  for (let i = low; i < list.size; i = nextFrom(list, i, state.from + (last + 4) / scale)) {
    const row = list.at[i];
    if (rows.start[row] > state.to) break;
    const x = (rows.start[row] - state.from) * scale;
    last = x;
    if (state.found && !state.found[row]) continue;
    context.moveTo(x, y); context.lineTo(x + 4, y + 4); context.lineTo(x, y + 8); context.lineTo(x - 4, y + 4);
  }
  context.fill();
}

function outline() {
  const row = state.selected;
  if (row < 0 || !layout.places.has(rows.trackOf(row))) return;
  context.strokeStyle = colours.ink;
  const frame = (each, line) => {
    const x = Math.max(xOf(rows.start[each]), -4), end = Math.min(xOf(rows.start[each] + rows.duration(each, state.now)), width + 4);
    context.lineWidth = line;
    context.strokeRect(x - 1, topOf(each) - 1, Math.max(end - x + 1, 4), rows.kind[each] === MARK ? 10 : LANE);
  };
  for (const parent of rows.parents(row)) frame(parent, 1);
  frame(row, 2.5);
}

/** The row at a point of the pane, or -1. */
export function rowAt(x, y) {
  const at = timeAt(x), slack = 3 / width * (state.to - state.from), inside = y - AXIS + scrolled;
  for (const {track, marksY, lanesY} of layout.tracks) {
    if (inside < marksY || inside >= lanesY + track.lanes.length * LANE) continue;
    const list = inside < lanesY ? track.marks : track.lanes[Math.floor((inside - lanesY) / LANE)];
    let best = -1, distance = slack * (inside < lanesY ? 2 : 1);
    for (let i = firstAfter(list, at - 3 * slack); i < list.size && rows.start[list.at[i]] <= at + 3 * slack; i++) {
      const row = list.at[i], end = rows.start[row] + rows.duration(row, state.now);
      const off = Math.max(rows.start[row] - at, at - end, 0);
      if (off <= distance) { best = row; distance = off; if (!off && !rows.isFailed(row)) break; }
    }
    return best;
  }
  return -1;
}

/** Scrolls so that a row is in view. */
export function reveal(row) {
  arrange();
  if (row < 0 || !layout.places.has(rows.trackOf(row))) return;
  const y = topOf(row);
  if (y < AXIS + 4 || y > height - LANE) pane.scrollTop += y - height / 2;
}

/** What a pointer over a row is told. */
export const hint = row => `${rows.nameOf(row)} · ${CATEGORIES[rows.kind[row]]}` +
  (rows.kind[row] === MARK ? "" : ` · ${rows.isOpen(row) ? "open for " : ""}${time(rows.duration(row, state.now))}`) +
  (rows.isFailed(row) ? " · failed" : "");

onFrame(draw);
