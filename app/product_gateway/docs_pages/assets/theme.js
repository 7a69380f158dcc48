// Shared by every page: copy buttons, and code blocks that scroll by keyboard.
"use strict";

// navigator.clipboard exists only on https and localhost; execCommand works everywhere else.
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = Object.assign(document.createElement("textarea"), { value: text, readOnly: true });
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

document.addEventListener("click", async event => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await copyText(button.dataset.copy || button.parentElement.querySelector("pre, code").innerText);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

let blocks = 0;
// Make each code block below `root` reachable by keyboard, and add a copy button to those that match `copied`.
function improveCode(root, copied = "pre") {
  for (const pre of root.querySelectorAll("pre:not([tabindex], .version)")) {
    blocks += 1;
    pre.tabIndex = 0;
    pre.setAttribute("role", "region");
    pre.setAttribute("aria-label", `Code ${blocks}`);
    if (!pre.matches(copied)) continue;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Copy" });
    button.dataset.copy = "";
    const block = Object.assign(document.createElement("div"), { className: "code" });
    pre.replaceWith(block);
    block.append(pre, button);
  }
}
