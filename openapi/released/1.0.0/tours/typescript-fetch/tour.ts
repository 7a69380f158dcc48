// A tour of the API with the client that openapi-generator's `typescript-fetch` makes.
import { setTimeout as sleep } from "node:timers/promises";
import {
  CatalogApi,
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
  const answer = await syncs.getSyncRaw({ syncId: sync.id });
  sync = (await answer.value()).data;
  await sleep(1000 * Number(answer.raw.headers.get("Retry-After") ?? 0));
}
console.log(`ended: ${sync.status}`);

const status = await syncs.getSyncStatus(product);
console.log(`200: ${status.data.numRecords} records`);

const pages: Product[][] = [];
let cursor: string | undefined;
do {
  const page = await catalog.listProducts({ pageSize: 20, cursor });
  pages.push(page.data);
  cursor = page.meta.nextCursor;
} while (cursor);
console.log(`pages: ${pages.map((page) => page.length).join(" + ")} products, the last is ${pages.at(-1)?.at(-1)?.id}`);

for (const token of [EXPIRED_TOKEN, OTHER_PLATFORM_TOKEN]) {
  const { errors } = await refused(new SyncApi(connect(token)).enqueueSync(product));
  for (const { status, title, detail } of errors) console.log(`${status}: ${title}: ${detail}`);
}
