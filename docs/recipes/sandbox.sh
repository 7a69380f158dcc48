#!/bin/sh
# A client of curl and sh, tested against a sandbox: needs product-gateway and curl. Run it with: sh sandbox.sh
set -eu
folder=$(mktemp -d)
product-gateway sandbox --port 0 > "$folder/sandbox.json" &
process=$!
trap 'kill $process; wait $process || true; rm -r "$folder"' EXIT

text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$2"; }
header() { tr -d '\r' < "$folder/headers" | sed -n "s/^$1: //Ip"; }
fail() { echo "$1:"; cat "$folder/headers" "$folder/body"; exit 1; }

tries=0
until [ -s "$folder/sandbox.json" ]; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || { echo "the sandbox did not start"; exit 1; }
  sleep 0.1
done
url=$(text baseUrl "$folder/sandbox.json")
api=$(text apiPrefix "$folder/sandbox.json")

# What is tested: ask WHO WISH METHOD PATH leaves headers and body in files, and says the status.
ask() {
  curl -s -D "$folder/headers" -o "$folder/body" -w '%{http_code}' -X "$3" -H "Prefer: $2" \
    -H "Authorization: Bearer $(text "$1" "$folder/sandbox.json")" "$url$4"
}
ended() {
  ask "$1" "" GET "$2" > "$folder/status"
  while wait=$(header retry-after); [ "$wait" ]; do
    sleep "$wait"
    ask "$1" "" GET "$2" > "$folder/status"
  done
}

# It waits for a sync that is active.
[ "$(ask byop sync=slow PUT "$api/sync/PRODUCT")" = 202 ] || fail "not enqueued"
sync=$(header location)
[ "$(ask byop "" PUT "$api/sync/PRODUCT")" = 429 ] || fail "not refused"
[ "$(header retry-after)" -ge 1 ] || fail "no Retry-After"
ended byop "$sync"
grep -q '"status":"SUCCEEDED"' "$folder/body" || fail "not succeeded"
[ "$(ask byop "" GET "$api/sync/PRODUCT")" = 200 ] || fail "no status"
grep -q '"numRecords":24' "$folder/body" || fail "not all records"

# It meets a gateway that is away.
[ "$(ask byop code=503 GET "$api/products")" = 503 ] || fail "not away"
[ "$(header retry-after)" -ge 1 ] || fail "no Retry-After"

# It learns why a sync failed.
[ "$(ask otherByop sync=failing PUT "$api/sync/PRODUCT")" = 202 ] || fail "not enqueued"
ended otherByop "$(header location)"
grep -q '"code":"PRODUCT_SERVICE_ERROR"' "$folder/body" || fail "no reason"
echo "3 passed"
