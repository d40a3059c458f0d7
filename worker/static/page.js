// Keeps a page fresh and sends the few changes a person may ask for. Everything is legible without it.
"use strict";

const EVERY_MS = 5000;
const main = document.getElementById("main");
const fresh = document.getElementById("fresh");
let busy = false;
let silentSince = null;

function say(text, isProblem) {
  if (fresh.textContent !== text) fresh.textContent = text;
  fresh.classList.toggle("problem", isProblem);
}

function clock() {
  return new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

// What must survive an exchange of the page's content: the focus, and which details are open.
function remember() {
  const active = document.activeElement;
  const address = active && main.contains(active) && (active.dataset.post || active.getAttribute("href"));
  const open = new Map();
  for (const part of main.querySelectorAll("details[data-key]")) open.set(part.dataset.key, part.open);
  return { address, open };
}

function restore(kept) {
  for (const part of main.querySelectorAll("details[data-key]")) {
    if (kept.open.has(part.dataset.key)) part.open = kept.open.get(part.dataset.key);
  }
  if (!kept.address) return;
  const again = [...main.querySelectorAll("a[href], button[data-post]")]
    .find((item) => (item.dataset.post || item.getAttribute("href")) === kept.address);
  if (again) again.focus({ preventScroll: true });
}

async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status >= 500) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.getElementById("main");
    if (next && next.innerHTML !== main.dataset.shown) {
      const kept = remember();
      main.innerHTML = next.innerHTML;
      main.dataset.shown = next.innerHTML;
      document.title = page.title;
      restore(kept);
    }
    silentSince = null;
    say("live", false);
  } catch {
    silentSince = silentSince || clock();
    say(`no answer since ${silentSince}; what is shown is from before`, true);
  }
}

async function tick() {
  const selecting = !document.getSelection().isCollapsed;
  if (!busy && !document.hidden && !selecting) await refresh();
  setTimeout(tick, EVERY_MS);
}

async function change(button) {
  if (button.dataset.question && !window.confirm(button.dataset.question)) return;
  busy = true;
  button.disabled = true;
  try {
    const answer = await fetch(button.dataset.post, { method: "POST", headers: { "X-Secondread": "1" } });
    const said = await answer.json();
    await refresh();
    say(said.message || said.detail, !answer.ok);
  } catch {
    say("the change could not be sent; is secondread running?", true);
    button.disabled = false;
  } finally {
    busy = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) change(button);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !busy && main.hasAttribute("data-live")) refresh();
});
if (main.hasAttribute("data-live")) {
  say("live", false);
  setTimeout(tick, EVERY_MS);
}
