/** Times, counts and money as people read them. */

/** @param {number} us microseconds */
export function time(us) {
  const size = Math.abs(us);
  if (size < 1e3) return `${Math.round(us)} µs`;
  if (size < 1e6) return `${(us / 1e3).toFixed(size < 1e4 ? 2 : 1)} ms`;
  if (size < 6e7) return `${(us / 1e6).toFixed(2)} s`;
  const seconds = Math.round(us / 1e6), minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const count = number => number.toLocaleString("en");
export const some = number => (number ? count(number) : "");

/** @param {number} dollars */
export function money(dollars) {
  if (!dollars) return "";
  return dollars < 0.0001 ? "<$0.0001" : `$${dollars.toFixed(dollars < 1 ? 4 : 2)}`;
}

/** @param {number} us microseconds since the epoch */
export const moment = us => new Date(us / 1e3).toISOString().replace("T", " ").replace("Z", " UTC");

/** A node with attributes and children; text is text, never HTML. */
export function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(child => child != null));
  return made;
}
