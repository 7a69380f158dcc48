// Render REFERENCE, the spec with code samples, with Redoc.
"use strict";
const system = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const mono = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace';
// Derive the server's URL from this page's: a proxy may publish it under a prefix.
REFERENCE.servers[0].url = new URL(".", location.href).pathname.replace(/(.)\/$/, "$1");
REFERENCE.info.description = REFERENCE.info.description.replaceAll("](/docs/", "](docs/");
Redoc.init(REFERENCE, {
  downloadUrls: [{ title: "openapi.yaml", url: "openapi.yaml" }],
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
}, document.getElementById("reference"));
