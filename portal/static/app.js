// What the pages cannot do without script, and nothing else: copy, dialogs in place of their pages, the live light.
// Everything marked .needs-js depends on it; everything else works without.
"use strict";

// Copy: <button data-copy="#id"> copies the text of that element and says so on the button.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  const label = button.querySelector("span");
  const before = label ? label.textContent : "";
  let done = "Copied";
  try {
    // A space in front stays: it keeps a line with a secret out of the shell's history.
    await navigator.clipboard.writeText(source.textContent.trimEnd());
  } catch {
    // No permission, or plain HTTP: select it, so that the keyboard can copy.
    getSelection().selectAllChildren(source);
    done = "Selected";
  }
  if (label) {
    label.textContent = done;
    setTimeout(() => { label.textContent = before; }, 2000);
  }
  say(`${done}.`);
});

// Dialog: <a data-dialog="#id" href="…"> opens the dialog in place of the page it links to.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-dialog]");
  const dialog = link && document.querySelector(link.dataset.dialog);
  if (!dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  dialog.showModal();
});
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) event.target.closest("dialog")?.close();
});

// Theme: the choice shows at once and is kept by the form's own POST.
document.addEventListener("change", (event) => {
  if (event.target.name === "theme") event.target.form.requestSubmit();
});

// The live light: on while the stream stands, lost while it does not. Pause holds the page still.
let paused = false;
const light = (state, word) => document.querySelectorAll(".live").forEach((spot) => {
  spot.dataset.live = state;
  spot.textContent = word;
});
document.addEventListener("htmx:sse:after:connection", () => { if (!paused) light("on", "Live"); });
document.addEventListener("htmx:sse:error", () => light("lost", "Reconnecting"));
document.addEventListener("htmx:sse:before:message", (event) => { if (paused) event.preventDefault(); });
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-pause]");
  if (!button) return;
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  if (paused) light("lost", "Paused"); else location.reload();
});

function say(sentence) {
  const spot = document.getElementById("said");
  if (spot) spot.textContent = sentence;
}
