// Swagger UI over the spec, with nobody asked but this server: no validator, no address in the query.
"use strict";
const place = document.getElementById("try");
SwaggerUIBundle({
  url: new URL(place.dataset.document, location.href).href,
  domNode: place,
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,
  queryConfigEnabled: false,
  validatorUrl: null,
  requestSnippetsEnabled: false,
  supportedSubmitMethods: ["get", "put", "delete"],
});
