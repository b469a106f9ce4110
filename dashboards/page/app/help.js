// The list of keys, and the keys themselves.
import { h } from "/app/dom.js";
import { t } from "/app/text.js";

const KEYS = [["j", "k"], ["/"], ["Esc"], ["l"], ["t"], ["c"], ["?"]];

export function showHelp() {
  document.querySelector("dialog")?.remove();
  const dialog = h("dialog", { class: "help", "aria-labelledby": "help-title" },
    h("h2", { id: "help-title", text: t("help.title") }),
    h("dl", null, KEYS.map((keys) => [
      h("dt", null, keys.map((key) => h("kbd", { text: key }))),
      h("dd", { text: t(`help.${keys[0]}`) }),
    ])),
    h("p", { class: "sub", text: t("help.readonly") }),
    h("form", { method: "dialog" }, h("button", { class: "plain", text: t("help.close"), autofocus: true })));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** actions by key; "/" focuses the search. Keys typed into a field are left alone, save Esc. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return; // its own keys are the browser's
    const typing = event.target.closest?.("input, select, textarea");
    if (typing && event.key !== "Escape") return;
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
