// A tour of the API with the client that openapi-generator's `typescript-fetch` makes.
import { setTimeout as sleep } from "node:timers/promises";
import {
  CatalogApi,
  type Change,
  Configuration,
  EntityType,
  ErrorResponseFromJSON,
  type Product,
  ResponseError,
  SyncApi,
  SyncStatus,
} from "./client/index.js";

const { GATEWAY, TOKEN, EXPIRED_TOKEN, OTHER_PLATFORM_TOKEN } = process.env;
const connect = (accessToken = "") => new Configuration({ basePath: GATEWAY, accessToken });
const syncs = new SyncApi(connect(TOKEN));
const catalog = new CatalogApi(connect(TOKEN));
const product = { entityType: EntityType.Product };

/** The error body of an answer, with its types, and the answer's Retry-After. */
async function refused(asked: Promise<unknown>) {
  try {
    await asked;
  } catch (failed) {
    if (!(failed instanceof ResponseError)) throw failed;
    const { error } = ErrorResponseFromJSON(await failed.response.json());
    return { errors: error, retryAfter: failed.response.headers.get("Retry-After") };
  }
  throw new Error("this was expected to be refused");
}

let { data: sync } = await syncs.enqueueSync(product);
console.log(`202: ${sync.status}`);

const again = await refused(syncs.enqueueSync(product));
for (const { status, title, detail } of again.errors) {
  console.log(`${status}: ${title}, retry after ${again.retryAfter} s: ${detail}`);
}

while (sync.status === SyncStatus.Queued || sync.status === SyncStatus.InProgress) {
  const answer = await syncs.getSyncRaw({ syncId: sync.id, prefer: "wait=20" });
  sync = (await answer.value()).data;
  const { headers } = answer.raw;
  if (!headers.has("Preference-Applied")) await sleep(1000 * Number(headers.get("Retry-After") ?? 0));
}
console.log(`ended: ${sync.status}`);

const status = await syncs.getSyncStatus(product);
console.log(`200: ${status.data.numRecords} records`);

const newest = async (status: SyncStatus) =>
  (await syncs.listSyncs({ entityType: EntityType.Collection, status })).data[0]!;
const { failure } = await newest(SyncStatus.Failed);
console.log(`failed: ${failure?.code}: ${failure?.detail}`);

const problems = await syncs.listSyncProblems({ syncId: (await newest(SyncStatus.Succeeded)).id });
const group = problems.data[0]!;
console.log(`problems: ${group.count} ${group.code}: ${group.samples[0]?.message}`);

const products: Product[] = [];
let cursor: string | undefined;
do {
  const page = await catalog.listProducts({ pageSize: 20, cursor });
  products.push(...page.data);
  cursor = page.meta.nextCursor;
} while (cursor);
console.log(`pages: ${products.length} products, the last is ${products.at(-1)?.id}`);

const changes: Change[] = [];
let feed = await catalog.listChanges({ ...product, pageSize: 20 });
changes.push(...feed.data);
while (feed.meta.hasMore) {
  feed = await catalog.listChanges({ ...product, pageSize: 20, cursor: feed.meta.nextCursor });
  changes.push(...feed.data);
}
const last = changes.at(-1);
const copied = `${changes.length} up to generation ${feed.meta.generation}`;
console.log(`changes: ${copied}, the last is ${last?.change} ${last?.product?.title}`);

for (const token of [EXPIRED_TOKEN, OTHER_PLATFORM_TOKEN]) {
  const { errors } = await refused(new SyncApi(connect(token)).enqueueSync(product));
  for (const { status, title, detail } of errors) console.log(`${status}: ${title}: ${detail}`);
}
