// Render REFERENCE, a spec with code samples, with Redoc.
"use strict";
const system = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const mono = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace';
const place = document.getElementById("reference");
const address = new URL(place.dataset.document, location.href);
// A product service is at an address of the merchant. Otherwise derive the server's URL from the document's: a proxy
// may publish it under a prefix.
const own = new URL(".", address).pathname.replace(/(.)\/$/, "$1");
REFERENCE.servers[0].url = place.dataset.server ? `https://${place.dataset.server}` : own;
REFERENCE.info.description = REFERENCE.info.description.replaceAll("](/docs/", "](docs/");
Redoc.init(REFERENCE, {
  downloadUrls: [{ title: address.pathname.split("/").pop(), url: address.href }],
  expandResponses: "200,202",
  hideSchemaTitles: true,
  nativeScrollbars: true,
  requiredPropsFirst: true,
  scrollYOffset: ".bar",
  theme: {
    colors: {
      primary: { main: "#0b5cad" },
      success: { main: "#15803d" },
      error: { main: "#b42318" },
      text: { primary: "#1c2430", secondary: "#4b5666" },
      http: { get: "#15803d", put: "#b45309", delete: "#b42318" },
    },
    typography: {
      fontSize: "15px",
      lineHeight: "1.6",
      fontFamily: system,
      headings: { fontFamily: system, fontWeight: "600" },
      code: { fontSize: "13px", fontFamily: mono, color: "#9f1239", backgroundColor: "#f3f5f8", wrap: true },
      links: { color: "#0b5cad", visited: "#0b5cad" },
    },
    sidebar: { backgroundColor: "#f6f8fb", textColor: "#1c2430", activeTextColor: "#0b5cad", width: "280px" },
    rightPanel: { backgroundColor: "#172033" },
    codeBlock: { backgroundColor: "#0e1526" },
  },
}, place);
