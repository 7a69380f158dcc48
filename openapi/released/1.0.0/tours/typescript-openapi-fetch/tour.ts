// A tour of the API with openapi-fetch, on the types that openapi-typescript makes.
import { setTimeout as sleep } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./client/product-gateway.js";

type Sync = components["schemas"]["Sync"];
type Product = components["schemas"]["Product"];

const { GATEWAY, TOKEN, EXPIRED_TOKEN, OTHER_PLATFORM_TOKEN } = process.env;
const connect = (token?: string) =>
  createClient<paths>({ baseUrl: GATEWAY, headers: { Authorization: `Bearer ${token}` } });
const gateway = connect(TOKEN);
const product = { params: { path: { entityType: "PRODUCT" } } } as const;

const enqueued = await gateway.PUT("/product-gateway/v1/sync/{entityType}", product);
if (!enqueued.data) throw new Error(enqueued.error.error[0]?.detail);
let sync: Sync = enqueued.data.data;
console.log(`${enqueued.response.status}: ${sync.status}`);

const refused = await gateway.PUT("/product-gateway/v1/sync/{entityType}", product);
for (const { status, title, detail } of refused.error?.error ?? []) {
  console.log(`${status}: ${title}, retry after ${refused.response.headers.get("Retry-After")} s: ${detail}`);
}

while (sync.status === "QUEUED" || sync.status === "IN_PROGRESS") {
  const answer = await gateway.GET("/product-gateway/v1/syncs/{syncId}", { params: { path: { syncId: sync.id } } });
  if (!answer.data) throw new Error(answer.error.error[0]?.detail);
  sync = answer.data.data;
  await sleep(1000 * Number(answer.response.headers.get("Retry-After") ?? 0));
}
console.log(`ended: ${sync.status}`);

const status = await gateway.GET("/product-gateway/v1/sync/{entityType}", product);
console.log(`${status.response.status}: ${status.data?.data.numRecords} records`);

const pages: Product[][] = [];
let cursor: string | undefined;
do {
  const page = await gateway.GET("/product-gateway/v1/products", { params: { query: { page_size: 20, cursor } } });
  if (!page.data) throw new Error(page.error.error[0]?.detail);
  pages.push(page.data.data);
  cursor = page.data.meta.nextCursor;
} while (cursor);
console.log(`pages: ${pages.map((page) => page.length).join(" + ")} products, the last is ${pages.at(-1)?.at(-1)?.id}`);

for (const token of [EXPIRED_TOKEN, OTHER_PLATFORM_TOKEN]) {
  const { error } = await connect(token).PUT("/product-gateway/v1/sync/{entityType}", product);
  for (const { status, title, detail } of error?.error ?? []) console.log(`${status}: ${title}: ${detail}`);
}
