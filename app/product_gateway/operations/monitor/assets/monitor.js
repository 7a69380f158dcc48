"use strict";
// Keeps the page up to date by the server's stream, or by asking again; sends what an operator confirms. What the
// server writes is put in place piece by piece, so that focus, selection and open details stay where they are.

const BASE = document.body.dataset.base;
const PAGE = document.body.dataset.page;
const MILLISECONDS_BETWEEN_LOOKS = 5000;
const byId = id => document.getElementById(id);

function morph(now, then) {
  if (now.isEqualNode(then)) return;
  if (now.nodeType !== then.nodeType || now.nodeName !== then.nodeName || now.id !== then.id) {
    now.replaceWith(then.cloneNode(true));
    return;
  }
  if (now.nodeType !== Node.ELEMENT_NODE) {
    now.nodeValue = then.nodeValue;
    return;
  }
  for (const { name } of [...now.attributes]) if (!then.hasAttribute(name) && name !== "open") now.removeAttribute(name);
  for (const { name, value } of then.attributes) {
    if (now.getAttribute(name) !== value && name !== "open") now.setAttribute(name, value);
  }
  if (now.matches("input, select") && now.ownerDocument.activeElement === now) return;
  morphChildren(now, then);
}

function morphChildren(now, then) {
  const known = new Map([...now.children].filter(each => each.id).map(each => [each.id, each]));
  let place = now.firstChild;
  for (const each of [...then.childNodes]) {
    const same = each.id && known.get(each.id);
    if (same) {
      if (same !== place) now.insertBefore(same, place); else place = place.nextSibling;
      morph(same, each);
    } else if (place && !place.id && !each.id) {
      const next = place.nextSibling;
      morph(place, each);
      place = next;
    } else {
      now.insertBefore(each.cloneNode(true), place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function put(id, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  if (byId(id)) morphChildren(byId(id), template.content);
}

// News for those who do not see the page: problems that were not there before.
let told = null;
function tellNews() {
  const problems = new Map([...document.querySelectorAll(".problems > li")].map(each => [each.id, each]));
  const fresh = told && [...problems].filter(([id]) => !told.has(id)).map(([, each]) =>
    `${each.querySelector("h2").textContent.trim()}. ${each.querySelector(".why").textContent}`);
  if (fresh && fresh.length) byId("news").textContent = fresh.join(" ");
  told = new Set(problems.keys());
}

function said(how) {
  byId("live").textContent = how;
  byId("live").className = how.startsWith("Live") ? "on" : "";
}

// The whole page again, as it is now.
let asking = null;
function ask() {
  asking ??= fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" })
    .then(answer => answer.status === 401 ? location.reload() : answer.ok ? answer.text() : null)
    .then(html => {
      if (!html) return false;
      const then = new DOMParser().parseFromString(html, "text/html");
      document.title = then.title;
      morphChildren(byId("main"), then.getElementById("main"));
      tellNews();
      byId("away").textContent = "";
      return true;
    })
    .catch(() => false)
    .finally(() => { asking = null; });
  return asking;
}

let polling = null;
async function poll() {
  clearTimeout(polling);
  if (!document.hidden) {
    const done = await ask();
    said(done ? "Updated every few seconds" : "The monitor does not answer; trying again");
  }
  polling = setTimeout(poll, MILLISECONDS_BETWEEN_LOOKS);
}

function follow() {
  if (!window.EventSource) return poll();
  const source = new EventSource(`${BASE}api/stream`);
  source.addEventListener("look", event => {
    clearTimeout(polling);
    const { parts } = JSON.parse(event.data);
    said("Live");
    if ("away" in parts) byId("away").textContent = parts.away && `${parts.away} What you see is as it was.`;
    if (PAGE !== "monitor") {
      if (Object.keys(parts).some(name => name !== "away")) ask();
      return;
    }
    for (const id of ["attention", "queue", "active", "workers", "freshness"]) if (id in parts) put(id, parts[id]);
    if ("title" in parts) document.title = new DOMParser().parseFromString(parts.title, "text/html").body.textContent;
    if ("attention" in parts) tellNews();
    if ("recent" in parts && byId("recent").dataset.mark !== parts.recent) {
      if (new URLSearchParams(location.search).size) ask();
      else ask().then(() => { byId("recent").dataset.mark = parts.recent; });
    }
  });
  source.onerror = () => {
    said("Connecting again");
    clearTimeout(polling);
    polling = setTimeout(poll, 1000);
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 6 * MILLISECONDS_BETWEEN_LOOKS);
  };
  return source;
}

async function send(method, url, headers = {}) {
  try {
    const answer = await fetch(url, { method, headers });
    const body = await answer.json();
    return answer.ok ? "" : body.error[0].detail;
  } catch {
    return "The monitor does not answer.";
  }
}

// Actions: asked for, confirmed, sent; what the server says against it is shown where it was asked for.
let wanted = null;
function confirm(button) {
  wanted = button.dataset;
  byId("question").textContent = wanted.question;
  byId("consequence").textContent = wanted.consequence;
  byId("yes").textContent = wanted.yes;
  byId("refusal").textContent = "";
  byId("confirm").showModal();
}

byId("yes").addEventListener("click", async event => {
  event.preventDefault();
  byId("yes").disabled = true;
  const refusal = await send("POST", wanted.act);
  byId("yes").disabled = false;
  byId("refusal").textContent = refusal;
  if (refusal) return;
  byId("confirm").close();
  byId("news").textContent = `Done: ${wanted.yes}.`;
  ask();
});

document.addEventListener("click", async event => {
  const button = event.target.closest("button");
  if (button?.dataset.act) confirm(button);
  if (button?.dataset.copy) byId("news").textContent = "Copied.";
  if (button?.id === "sign-out") {
    await send("DELETE", `${BASE}session`);
    location.reload();
  }
});

byId("sign-in")?.addEventListener("submit", async event => {
  event.preventDefault();
  const token = byId("token").value.trim();
  const refusal = await send("POST", `${BASE}session`, { Authorization: `Bearer ${token}` });
  byId("sign-in-refusal").textContent = refusal;
  if (!refusal) location.reload();
});

if (PAGE === "monitor" || PAGE === "sync") {
  tellNews();
  follow();
}
