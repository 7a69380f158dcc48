// Render the spec with Swagger UI, which contacts this server only: no validator, no URL in the query.
"use strict";

// Remove the examples of optional parameters, which Swagger UI would send: an invalid cursor, and the same
// Idempotency-Key each time.
const withoutOptionalExamples = (document) => {
  const { parameters, schemas } = document.components;
  for (const parameter of Object.values(parameters).filter((each) => !each.required)) {
    delete parameter.example;
    if (parameter.schema.$ref) delete schemas[parameter.schema.$ref.split("/").pop()].example;
  }
  return document;
};

// List what an API client calls, without this server's own pages.
const withoutPages = (document) => {
  for (const [path, { get }] of Object.entries(document.paths)) {
    if (path.startsWith("/docs/") || get?.responses["200"]?.content?.["text/html"]) delete document.paths[path];
  }
  return document;
};

// Swagger UI's style sheet has dark colours for this class.
const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

const place = document.getElementById("try");
const address = new URL(place.dataset.document, location.href);

// Derive the server's URL from the document's: a proxy may publish it under a prefix.
const withThisServer = (document) => {
  document.servers[0].url = new URL(".", address).pathname.replace(/(.)\/$/, "$1");
  return document;
};

SwaggerUIBundle({
  url: address.href,
  domNode: place,
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  queryConfigEnabled: false,
  validatorUrl: null,
  supportedSubmitMethods: ["get", "put", "delete"],
  plugins: [{
    statePlugins: {
      spec: { wrapActions: { updateJsonSpec: (update) => (found) => update(withThisServer(withoutPages(withoutOptionalExamples(found)))) } },
    },
  }],
});

// What Swagger UI draws: its select of servers has no label, and code blocks do not scroll by keyboard.
const improve = () => {
  document.getElementById("servers")?.setAttribute("aria-label", "Server");
  improveCode(place, ".none");
};
new MutationObserver(improve).observe(place, { childList: true, subtree: true });
