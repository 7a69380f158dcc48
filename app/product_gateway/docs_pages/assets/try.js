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
      spec: { wrapActions: { updateJsonSpec: (update) => (found) => update(withThisServer(withoutOptionalExamples(found))) } },
    },
  }],
});
