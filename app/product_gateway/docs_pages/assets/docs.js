// Render REFERENCE, a spec with code samples, with Redoc, in the colours of theme.css.
"use strict";
const reference = document.getElementById("reference");
const dark = matchMedia("(prefers-color-scheme: dark)");

// Name this server in samples and links: its address is the document's, also behind a proxy. A product service is at
// an address of the merchant.
const place = new URL(reference.dataset.document, location.href);
const server = new URL(".", place);
const address = server.href.replace(/\/$/, "");
const own = reference.dataset.server ? REFERENCE : JSON.parse(JSON.stringify(REFERENCE)
  .replaceAll(/(?:os\.environ\[\\"GATEWAY\\"\]|process\.env\.GATEWAY|System\.getenv\(\\"GATEWAY\\"\))(?: \+ \\")?/g,
    found => found.endsWith('"') && found.includes(" + ") ? `\\"${address}` : `\\"${address}\\"`)
  .replaceAll("$GATEWAY", address)
  .replaceAll("export GATEWAY=http://127.0.0.1:8080 TOKEN=", "export TOKEN=")
  .replaceAll("](/docs/", "](docs/"));
own.servers[0].url = reference.dataset.server ? `https://${reference.dataset.server}` : server.pathname.replace(/(.)\/$/, "$1");

function theme() {
  const token = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const [ink, soft, paper, panel, line, link, good, warn, bad] =
    ["ink", "soft", "paper", "panel", "line", "link", "good", "warn", "bad"].map(token);
  const mono = token("mono");
  const text = token("text");
  return {
    colors: {
      primary: { main: link, light: link },
      success: { main: good },
      warning: { main: warn, contrastText: paper },
      error: { main: bad },
      gray: { 50: panel, 100: line },
      border: { dark: line, light: panel },
      text: { primary: ink, secondary: soft },
      responses: {
        success: { color: good, backgroundColor: token("good-paper"), tabTextColor: "#7fd6a0" },
        error: { color: bad, backgroundColor: token("bad-paper"), tabTextColor: "#ff8f86" },
        redirect: { color: warn, backgroundColor: token("warn-paper"), tabTextColor: "#ffc36b" },
        info: { color: link, backgroundColor: token("run-paper"), tabTextColor: "#7cbcff" },
      },
      http: { get: "#15803d", put: "#a04a07", delete: "#b42318" },
    },
    schema: { nestedBackground: panel, linesColor: line, typeNameColor: soft, typeTitleColor: soft, requireLabelColor: bad, labelsTextSize: "0.9em" },
    typography: {
      fontSize: "15px",
      lineHeight: "1.6",
      fontFamily: text,
      headings: { fontFamily: text, fontWeight: "600" },
      code: { fontSize: "13px", fontFamily: mono, color: ink, backgroundColor: panel, wrap: true },
      links: { color: link, visited: link, hover: link },
    },
    sidebar: { backgroundColor: panel, textColor: ink, activeTextColor: link, width: "280px" },
    rightPanel: { backgroundColor: "#172033" },
    codeBlock: { backgroundColor: "#0e1526" },
    fab: { backgroundColor: panel, color: link },
  };
}

// Redoc has no theme that follows the system: draw again when that changes.
function draw() {
  const drawn = Object.assign(document.createElement("div"), { id: "redoc" });
  reference.replaceChildren(drawn);
  Redoc.init(own, {
    downloadUrls: [{ title: place.pathname.split("/").pop(), url: place.href }],
    expandResponses: "200,202",
    hideSchemaTitles: true,
    nativeScrollbars: true,
    requiredPropsFirst: true,
    scrollYOffset: ".bar",
    theme: theme(),
  }, drawn);
}

dark.addEventListener("change", draw);
new MutationObserver(() => improveCode(reference, ".redoc-markdown pre")).observe(reference, { childList: true, subtree: true });
draw();
