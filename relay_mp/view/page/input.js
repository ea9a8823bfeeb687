/** Mouse, touch and keys on the timeline, and the keys of the whole page. */
import {rows, state, select, show, zoom, pan, fit, zoomTo, changed} from "./state.js";
import {rowAt, timeAt, reveal, hint} from "./timeline.js";
import {step} from "./search.js";

const pane = document.getElementById("timeline"), canvas = document.getElementById("canvas"), tip = document.getElementById("tip");
const pointers = new Map();
let begun = null;

const at = event => { const box = pane.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

pane.addEventListener("wheel", event => {
  const width = pane.clientWidth;
  if (event.ctrlKey || event.metaKey) zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.006), timeAt(at(event)[0]));
  else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / width);
  else if (pane.scrollHeight <= pane.clientHeight + 1) zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.006), timeAt(at(event)[0]));
  else return; // the pane scrolls by itself
  event.preventDefault();
}, {passive: false});

canvas.addEventListener("pointerdown", event => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  begun = {at: at(event), from: state.from, to: state.to, top: pane.scrollTop, isDrag: false, spread: spread()};
  tip.hidden = true;
});

/** Of two fingers: how far apart, and where between. */
function spread() {
  if (pointers.size < 2) return null;
  const [[x1], [x2]] = [...pointers.values()];
  return {length: Math.max(Math.abs(x1 - x2), 20), middle: (x1 + x2) / 2};
}

canvas.addEventListener("pointermove", event => {
  const [x, y] = at(event);
  if (!pointers.has(event.pointerId)) { point(x, y); return; }
  pointers.set(event.pointerId, [x, y]);
  const span = begun.to - begun.from, width = pane.clientWidth;
  if (begun.spread && pointers.size > 1) {
    const now = spread(), under = begun.from + begun.spread.middle / width * span, wide = span * begun.spread.length / now.length;
    begun.isDrag = true;
    state.follows = false;
    show(under - now.middle / width * wide, under + (1 - now.middle / width) * wide);
    return;
  }
  const by = x - begun.at[0];
  if (!begun.isDrag && Math.hypot(by, y - begun.at[1]) < 4) return;
  begun.isDrag = true;
  state.follows = false;
  pane.scrollTop = begun.top - (y - begun.at[1]);
  show(begun.from - by / width * span, begun.to - by / width * span);
});

for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, event => {
  if (!pointers.delete(event.pointerId)) return;
  if (kind === "pointerup" && begun && !begun.isDrag) { select(rowAt(...at(event))); pane.focus({preventScroll: true}); }
  if (pointers.size) begun = {...begun, at: [...pointers.values()][0], from: state.from, to: state.to, top: pane.scrollTop, spread: null, isDrag: true};
});
canvas.addEventListener("dblclick", event => { const row = rowAt(...at(event)); if (row >= 0) zoomTo(row); else fit(); });
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
pane.addEventListener("scroll", changed, {passive: true});

/** Says what is under the pointer. */
function point(x, y) {
  const row = rowAt(x, y);
  canvas.style.cursor = row >= 0 ? "pointer" : "grab";
  tip.hidden = row < 0;
  if (row < 0) return;
  tip.textContent = hint(row);
  const box = pane.getBoundingClientRect();
  tip.style.left = `${Math.min(box.left + x + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${box.top + y + 18}px`;
}

/** The next scope of the same lane, the parent, or the first child. */
function neighbour(key) {
  const row = state.selected;
  if (row < 0) return rows.size ? (rows.roots.size ? rows.roots.at[0] : 0) : -1;
  if (key === "ArrowUp") return rows.parent[row];
  if (key === "ArrowDown") return rows.firstChild[row];
  const {lanes, marks} = rows.trackOf(row), lane = lanes[rows.lane[row]]?.at.includes(row) ? lanes[rows.lane[row]] : marks;
  const place = lane.at.subarray(0, lane.size).indexOf(row) + (key === "ArrowRight" ? 1 : -1);
  return place >= 0 && place < lane.size ? lane.at[place] : -1;
}

pane.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key.startsWith("Arrow")) {
    const row = neighbour(event.key);
    if (row >= 0) { select(row); reveal(row); }
  } else if (event.key === "Enter" && state.selected >= 0) zoomTo(state.selected);
  else return;
  event.preventDefault();
});

const KEYS = {
  "+": () => zoom(1 / 1.5), "=": () => zoom(1 / 1.5), w: () => zoom(1 / 1.5), "-": () => zoom(1.5), s: () => zoom(1.5),
  a: () => pan(-0.2), d: () => pan(0.2), 0: fit, n: () => step(1), p: () => step(-1),
  f: () => document.getElementById("follow").click(), "/": () => document.getElementById("query").focus(),
  "?": () => document.getElementById("help").showModal(), Escape: () => select(-1),
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, dialog[open]")) return;
  const act = KEYS[event.key];
  if (!act) return;
  act();
  event.preventDefault();
});
