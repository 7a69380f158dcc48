// A client in JavaScript, tested against a sandbox: needs product-gateway and Node 20. Run it with: node --test
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

let process, sandbox;

before(async () => {
  // --until-eof: it ends with this program, whatever becomes of it
  process = spawn("product-gateway", ["sandbox", "--port", "0", "--until-eof"], { stdio: ["pipe", "pipe", "inherit"] });
  const [line] = await new Promise((resolve, reject) => {
    process.once("error", reject);
    createInterface(process.stdout).once("line", (...said) => resolve(said)).once("close", () => reject(new Error("it did not start")));
  });
  sandbox = JSON.parse(line);
});

after(() => process.stdin.end());

// What is tested; in your project it is imported.
function ask(method, path, { prefer, who = "byop" } = {}) {
  const headers = { Authorization: `Bearer ${sandbox.tokens[who]}`, ...(prefer && { Prefer: prefer }) };
  return fetch(new URL(path, sandbox.baseUrl), { method, headers });
}

async function ended(path, options) {
  let answer = await ask("GET", path, options);
  while (answer.headers.has("retry-after")) {
    await sleep(1000 * answer.headers.get("retry-after"));
    answer = await ask("GET", path, options);
  }
  return (await answer.json()).data;
}

test("waits for a sync that is active", async () => {
  const path = `${sandbox.apiPrefix}/sync/PRODUCT`;
  const accepted = await ask("PUT", path, { prefer: "sync=slow" });
  assert.equal(accepted.status, 202);

  const refused = await ask("PUT", path);
  assert.equal(refused.status, 429);
  assert.ok(refused.headers.get("retry-after") >= 1);
  assert.equal((await refused.json()).error[0].title, "Too Many Requests");

  assert.equal((await ended(accepted.headers.get("location"))).status, "SUCCEEDED");
  const now = await ask("GET", path);
  assert.equal(now.status, 200);
  assert.equal((await now.json()).data.numRecords, 24);
});

test("meets a gateway that is away", async () => {
  const away = await ask("GET", `${sandbox.apiPrefix}/products`, { prefer: "code=503" });
  assert.equal(away.status, 503);
  assert.ok(away.headers.get("retry-after") >= 1);
});

test("says why a sync failed", async () => {
  const who = "otherByop";
  const accepted = await ask("PUT", `${sandbox.apiPrefix}/sync/PRODUCT`, { prefer: "sync=failing", who });
  const sync = await ended(accepted.headers.get("location"), { who });
  assert.equal(sync.status, "FAILED");
  assert.equal(sync.failure.code, "PRODUCT_SERVICE_ERROR");
});
