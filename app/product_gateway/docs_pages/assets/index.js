// The commands name this server: its address is the page's, also behind a proxy.
"use strict";
const server = new URL(".", location.href).href.replace(/\/$/, "");
for (const each of document.querySelectorAll(".server")) each.textContent = server;
improveCode(document);
