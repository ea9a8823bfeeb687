/**
 * "Open in Perfetto": the one thing that asks another server, and only after a question.
 *
 * The trace goes from this tab to that one by postMessage, as Perfetto documents it, and not over the network.
 */
import {state} from "./state.js";

const PERFETTO = "https://ui.perfetto.dev", ASK_MS = 100, GIVE_UP_MS = 60000;

document.getElementById("perfetto").addEventListener("click", async () => {
  if (!confirm("This loads the page ui.perfetto.dev from the internet. The trace itself stays in this browser: one tab hands it to the other. Without it: relay-mp export FILE --to perfetto.")) return;
  const tab = open(PERFETTO), until = performance.now() + GIVE_UP_MS;
  if (!tab) { alert("The browser did not open a tab. Allow it for this page, and try again."); return; }
  const answer = await fetch("trace/0");
  const buffer = await answer.arrayBuffer();
  const asking = setInterval(() => { if (performance.now() < until && !tab.closed) tab.postMessage("PING", PERFETTO); else clearInterval(asking); }, ASK_MS);
  addEventListener("message", function heard(event) {
    if (event.origin !== PERFETTO || event.source !== tab || event.data !== "PONG") return;
    clearInterval(asking);
    removeEventListener("message", heard);
    tab.postMessage({perfetto: {buffer, title: state.runs[0].name}}, PERFETTO);
  });
});
