/**
 * The rows as columns: typed arrays that the server's batches are copied into.
 *
 * A row is a scope or a mark. Times are microseconds since the first event of its run, so that two runs lie over each
 * other. Sums of a subtree (tokens, cost, errors) are kept up when a row ends: each end walks up its parents once.
 */
export const CATEGORIES = ["agent", "function", "tool", "llm", "retriever", "embedder", "reranker", "guardrail",
  "evaluator", "custom", "unknown", "mark"];
export const MARK = CATEGORIES.length - 1;
export const FAILED = 1, NO_START = 2;

const FROM_SERVER = {parent: Int32Array, track: Uint32Array, name: Uint32Array, kind: Uint8Array, flags: Uint8Array,
  start: Float64Array, end: Float64Array, read: Uint32Array, written: Uint32Array, cost: Float64Array};
const OWN = {lane: Uint16Array, firstChild: Int32Array, lastChild: Int32Array, next: Int32Array,
  tokensBelow: Float64Array, costBelow: Float64Array, errorsBelow: Uint32Array, counts: Uint8Array};
const MAX_LANES = 512;

/** @returns {Uint8Array} the bytes of a base64 text */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** Columns of base64 texts as typed arrays. */
export function decoded(columns, kinds = FROM_SERVER) {
  const found = {};
  for (const [name, text] of Object.entries(columns)) found[name] = new (kinds[name] ?? Uint32Array)(bytesOf(text).buffer);
  return found;
}

/** A list of row numbers that grows. */
export class List {
  constructor() { this.at = new Int32Array(16); this.size = 0; }
  push(row) {
    if (this.size === this.at.length) { const old = this.at; this.at = new Int32Array(old.length * 2); this.at.set(old); }
    this.at[this.size++] = row;
  }
}

/** All rows, and what is derived from them. */
export class Rows {
  constructor() { this.clear(); }

  clear() {
    this.size = 0;
    this.capacity = 0;
    this.names = [];
    this.tracks = []; // {run, pid, thread, lanes: [List], marks: List}
    this.roots = new List();
    this.failed = new List();
    this.links = new List(); // rows whose parent is on another track
    this.origins = []; // of each run, its first time
    this.last = 0;
    this.open = this.scopes = this.errors = this.tokens = this.spent = 0;
    this.version = (this.version ?? 0) + 1; // counts up with every change
    this.#grow(1024);
  }

  #grow(capacity) {
    for (const [name, Kind] of Object.entries({...FROM_SERVER, ...OWN})) {
      const column = new Kind(capacity);
      if (this.size) column.set(this[name].subarray(0, this.size));
      this[name] = column;
    }
    this.capacity = capacity;
  }

  /** Takes what the server sent: see server.py. */
  take(batch) {
    if (batch.restart) this.clear();
    this.names.push(...batch.names);
    for (const [run, pid, thread] of batch.tracks) this.tracks.push({run, pid, thread, lanes: [], marks: new List()});
    if (batch.columns.start) this.#begin(decoded(batch.columns));
    if (batch.ended.row) this.#end(decoded(batch.ended));
    this.version++;
  }

  #begin(columns) {
    const first = this.size, count = columns.start.length;
    let capacity = this.capacity;
    while (capacity < first + count) capacity *= 2;
    if (capacity > this.capacity) this.#grow(capacity);
    for (const name of Object.keys(FROM_SERVER)) this[name].set(columns[name], first);
    this.size += count;
    for (let row = first; row < this.size; row++) this.#place(row);
  }

  #place(row) {
    const track = this.tracks[this.track[row]], parent = this.parent[row];
    const origin = this.origins[track.run] ??= this.start[row];
    this.start[row] -= origin;
    this.end[row] -= origin;
    this.firstChild[row] = this.lastChild[row] = this.next[row] = -1;
    if (parent < 0) this.roots.push(row);
    else {
      if (this.lastChild[parent] < 0) this.firstChild[parent] = row; else this.next[this.lastChild[parent]] = row;
      this.lastChild[parent] = row;
      if (this.track[parent] !== this.track[row]) this.links.push(row);
    }
    this.last = Math.max(this.last, this.start[row]);
    if (this.kind[row] === MARK) { track.marks.push(row); return; }
    this.scopes++;
    this.#lay(row, track, parent);
    if (this.isOpen(row)) this.open++; else this.#count(row);
  }

  /** The first lane below its parent's that is free at its start. */
  #lay(row, track, parent) {
    const start = this.start[row], lanes = track.lanes;
    let lane = parent >= 0 && this.track[parent] === this.track[row] && this.kind[parent] !== MARK ? this.lane[parent] + 1 : 0;
    for (; lane < lanes.length && lane < MAX_LANES; lane++) {
      const before = lanes[lane].at[lanes[lane].size - 1];
      if (this.end[before] <= start && this.start[before] <= start) break;
    }
    while (lanes.length <= lane) lanes.push(new List());
    lanes[lane].push(row);
    this.lane[row] = lane;
  }

  #end(ended) {
    const {row: rows} = ended;
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      if (!this.isOpen(row)) continue; // it came with its end
      this.flags[row] = ended.flags[i];
      this.end[row] = ended.end[i] - this.origins[this.tracks[this.track[row]].run];
      this.read[row] = ended.read[i];
      this.written[row] = ended.written[i];
      this.cost[row] = ended.cost[i];
      this.open--;
      this.#count(row);
    }
  }

  /** Adds a row that has ended to its parents' sums. */
  #count(row) {
    this.last = Math.max(this.last, this.end[row]);
    if (this.flags[row] & FAILED) {
      this.failed.push(row);
      this.errors++;
      for (let at = row; at >= 0; at = this.parent[at]) this.errorsBelow[at]++;
    }
    if (!this.#uses(row) || this.tokensBelow[row] || this.costBelow[row]) return;
    this.#add(row, 1);
    // Of nested LLM scopes, which describe one call, the inner counts.
    for (let at = this.parent[row]; at >= 0; at = this.parent[at]) if (this.counts[at]) this.#add(at, -1);
  }

  #uses(row) { return this.read[row] || this.written[row] || this.cost[row]; }

  /** Adds what a call used to it and its parents, or takes it back. */
  #add(row, sign) {
    const tokens = sign * (this.read[row] + this.written[row]), cost = sign * this.cost[row];
    this.counts[row] = sign > 0 ? 1 : 0;
    this.tokens += tokens;
    this.spent += cost;
    for (let at = row; at >= 0; at = this.parent[at]) {
      this.tokensBelow[at] += tokens;
      this.costBelow[at] += cost;
    }
  }

  isOpen(row) { return this.end[row] !== this.end[row]; }
  isFailed(row) { return (this.flags[row] & FAILED) !== 0; }
  nameOf(row) { return this.names[this.name[row]]; }
  trackOf(row) { return this.tracks[this.track[row]]; }
  runOf(row) { return this.trackOf(row).run; }
  duration(row, now) { return (this.isOpen(row) ? Math.max(now, this.start[row]) : this.end[row]) - this.start[row]; }

  /** Its children, marks too, in the order in which they began. */
  * children(row) {
    for (let child = this.firstChild[row]; child >= 0; child = this.next[child]) yield child;
  }

  /** Its parents, the nearest first. */
  parents(row) {
    const found = [];
    for (let at = this.parent[row]; at >= 0; at = this.parent[at]) found.push(at);
    return found;
  }

  /** Its time without that in which a child was running; children may overlap. */
  selfTime(row, now) {
    let own = this.duration(row, now), until = this.start[row];
    const end = until + own;
    for (const child of this.children(row)) {
      const from = Math.max(this.start[child], until);
      const to = Math.min(this.start[child] + this.duration(child, now), end);
      if (to > from) { own -= to - from; until = to; }
    }
    return own;
  }
}
