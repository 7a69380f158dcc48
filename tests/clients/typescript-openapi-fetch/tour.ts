// A tour of the API with openapi-fetch, on the types that openapi-typescript makes.
import { setTimeout as sleep } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./client/product-gateway.js";

type Sync = components["schemas"]["Sync"];
type Product = components["schemas"]["Product"];
type Change = components["schemas"]["Change"];

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
  const answer = await gateway.GET("/product-gateway/v1/syncs/{syncId}", {
    params: { path: { syncId: sync.id }, header: { Prefer: "wait=20" } },
  });
  if (!answer.data) throw new Error(answer.error.error[0]?.detail);
  sync = answer.data.data;
  const { headers } = answer.response;
  if (!headers.has("Preference-Applied")) await sleep(1000 * Number(headers.get("Retry-After") ?? 0));
}
console.log(`ended: ${sync.status}`);

const status = await gateway.GET("/product-gateway/v1/sync/{entityType}", product);
console.log(`${status.response.status}: ${status.data?.data.numRecords} records`);

async function newest(status: "FAILED" | "SUCCEEDED"): Promise<Sync> {
  const page = await gateway.GET("/product-gateway/v1/syncs", {
    params: { query: { entityType: "COLLECTION", status } },
  });
  if (!page.data) throw new Error(page.error.error[0]?.detail);
  return page.data.data[0]!;
}
const { failure } = await newest("FAILED");
console.log(`failed: ${failure?.code}: ${failure?.detail}`);

const problems = await gateway.GET("/product-gateway/v1/syncs/{syncId}/problems", {
  params: { path: { syncId: (await newest("SUCCEEDED")).id } },
});
if (!problems.data) throw new Error(problems.error.error[0]?.detail);
const group = problems.data.data[0]!;
console.log(`problems: ${group.count} ${group.code}: ${group.samples[0]?.message}`);

const products: Product[] = [];
let cursor: string | undefined;
do {
  const page = await gateway.GET("/product-gateway/v1/products", { params: { query: { page_size: 20, cursor } } });
  if (!page.data) throw new Error(page.error.error[0]?.detail);
  products.push(...page.data.data);
  cursor = page.data.meta.nextCursor;
} while (cursor);
console.log(`pages: ${products.length} products, the last is ${products.at(-1)?.id}`);

const changes: Change[] = [];
let place: string | undefined;
let feed: components["schemas"]["ChangeListResponse"];
do {
  const path = { entityType: "PRODUCT" } as const;
  const page = await gateway.GET("/product-gateway/v1/changes/{entityType}", {
    params: { path, query: { page_size: 20, cursor: place } },
  });
  if (!page.data) throw new Error(page.error.error[0]?.detail);
  feed = page.data;
  changes.push(...feed.data);
  place = feed.meta.nextCursor;
} while (feed.meta.hasMore);
const last = changes.at(-1);
const copied = `${changes.length} up to generation ${feed.meta.generation}`;
console.log(`changes: ${copied}, the last is ${last?.change} ${last?.product?.title}`);

for (const token of [EXPIRED_TOKEN, OTHER_PLATFORM_TOKEN]) {
  const { error } = await connect(token).PUT("/product-gateway/v1/sync/{entityType}", product);
  for (const { status, title, detail } of error?.error ?? []) console.log(`${status}: ${title}: ${detail}`);
}
