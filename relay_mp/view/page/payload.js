/**
 * What a scope took and gave, readable: messages as a conversation, JSON folded, text wrapped, images shown.
 *
 * Everything is put in as text; only images of data URLs become elements with a source.
 */
import {node} from "./format.js";

const LONG = 4000, MANY = 200, FOLDED_DEPTH = 2;
const IMAGE = /^data:image\/(png|jpeg|gif|webp|avif|bmp);base64,[A-Za-z0-9+/=]+$/;

/** A text; a long one begins folded, so that it does not push everything away. */
function text(value) {
  if (IMAGE.test(value)) return node("img", {src: value, alt: "image of the payload", loading: "lazy"});
  const shown = node("p", {class: "text"}, value.slice(0, LONG));
  if (value.length <= LONG) return shown;
  const more = node("button", {type: "button", onclick: () => { shown.textContent = value; more.remove(); }},
    `Show all ${value.length.toLocaleString("en")} characters`);
  return node("div", {}, shown, more);
}

const isPlain = value => value === null || typeof value !== "object";

/** JSON as a tree of folds. */
export function json(value, depth = 0) {
  if (typeof value === "string") return value.includes("\n") || value.length > 80 ? text(value) : node("span", {class: "string"}, value || "“”");
  if (isPlain(value)) return node("span", {class: "plain"}, String(value));
  const entries = Object.entries(value);
  if (!entries.length) return node("span", {class: "plain"}, Array.isArray(value) ? "[]" : "{}");
  const list = node("ul", {class: "json"});
  const add = (from) => {
    for (const [key, item] of entries.slice(from, from + MANY)) list.append(entry(key, item, depth));
    const left = entries.length - from - MANY;
    if (left > 0) { const more = node("li", {}, node("button", {type: "button", onclick: () => { more.remove(); add(from + MANY); }}, `${left} more`)); list.append(more); }
  };
  add(0);
  return list;
}

function entry(key, item, depth) {
  const name = node("span", {class: "key"}, key);
  if (isPlain(item) || !Object.keys(item).length) return node("li", {}, name, " ", json(item, depth + 1));
  const size = Object.keys(item).length, kind = Array.isArray(item) ? (size === 1 ? "item" : "items") : size === 1 ? "member" : "members";
  const fold = node("details", {open: depth < FOLDED_DEPTH && size <= 20}, node("summary", {}, name, node("span", {class: "dim"}, ` ${size} ${kind}`)));
  const fill = () => { if (fold.open && fold.childElementCount === 1) fold.append(json(item, depth + 1)); };
  fold.addEventListener("toggle", fill);
  fill();
  return node("li", {}, fold);
}

/** The messages of a request or a response of a model, if it has any, in any provider's spelling. */
function messagesOf(value) {
  if (!value || typeof value !== "object") return null;
  const inner = value.content && !Array.isArray(value.content) && typeof value.content === "object" ? value.content : value;
  const found = inner.messages ?? inner.choices?.map(choice => choice.message ?? choice.delta) ??
    (Array.isArray(inner.input) ? inner.input : null) ?? (Array.isArray(inner.output) ? inner.output : null) ??
    inner.contents ?? inner.candidates?.map(candidate => candidate.content) ?? (inner.role && inner.content ? [inner] : null) ??
    (Array.isArray(value) && value.length && value.every(item => item?.role) ? value : null);
  if (!Array.isArray(found) || !found.length || !found.every(item => item && typeof item === "object")) return null;
  const system = inner.system ?? inner.instructions;
  return system ? [{role: "system", content: system}, ...found] : found;
}

function part(value) {
  if (typeof value === "string") return text(value);
  const written = value?.text ?? value?.thinking ?? value?.refusal;
  if (typeof written === "string") return text(written);
  const source = value?.image_url?.url ?? value?.image_url ?? (value?.source?.data && `data:${value.source.media_type};base64,${value.source.data}`);
  if (typeof source === "string" && IMAGE.test(source)) return text(source);
  return json(value);
}

function call(tool) {
  const of = tool.function ?? tool;
  let given = of.arguments ?? of.input ?? of.args;
  if (typeof given === "string") { try { given = JSON.parse(given); } catch { /* it stays a text */ } }
  return node("div", {class: "call"}, node("b", {}, `calls ${of.name ?? "a tool"}`), given === undefined ? null : json(given, 1));
}

function message(item) {
  const parts = item.content ?? item.parts ?? item.output ?? item.summary;
  const box = node("div", {class: `message ${/^[a-z]+$/.test(item.role ?? "") ? item.role : ""}`}, node("h4", {}, item.role ?? item.type ?? "message"));
  for (const each of Array.isArray(parts) ? parts : parts == null ? [] : [parts]) {
    box.append(each?.type === "tool_use" || each?.functionCall ? call(each.functionCall ?? each) : part(each));
  }
  for (const tool of item.tool_calls ?? (item.type === "function_call" ? [item] : [])) box.append(call(tool));
  return box;
}

/** An input or an output, in the best form there is for it. */
export function payload(value) {
  const messages = messagesOf(value);
  if (!messages) return typeof value === "string" ? text(value) : json(value);
  return node("div", {}, ...messages.map(message), node("details", {}, node("summary", {}, "As JSON"), json(value)));
}
