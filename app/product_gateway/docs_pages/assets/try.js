// Swagger UI over the spec, with nobody asked but this server: no validator, no address in the query.
"use strict";

// The examples of optional parameters are for reading: typed in beforehand, a made-up cursor would be refused, and the
// same Idempotency-Key would bring the same sync each time.
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

// The server is where its document is: also behind a proxy that publishes it under a prefix.
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
