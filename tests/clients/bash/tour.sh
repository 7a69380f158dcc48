#!/usr/bin/env bash
# A tour of the API with the client that openapi-generator's `bash` makes, and jq.
set -euo pipefail

files=$(mktemp -d)
trap 'rm -r "$files"' EXIT

# The answer's headers go to a file. What begins with a dash, the client hands over to curl.
ask() { # TOKEN OPERATION PARAMETER…
  local token=$1
  shift
  bash client/product-gateway-client -s -D "$files/headers.txt" --host "$GATEWAY" "$@" "Authorization:Bearer $token"
}
http_status() { sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p' "$files/headers.txt"; }
header() { tr -d '\r' < "$files/headers.txt" | sed -n "s/^$1: //Ip"; }

sync=$(ask "$TOKEN" enqueueSync entityType=PRODUCT)
echo "$(http_status): $(jq -r .data.status <<< "$sync")"

error=$(ask "$TOKEN" enqueueSync entityType=PRODUCT)
jq -r --arg wait "$(header retry-after)" \
  '.error[] | "\(.status): \(.title), retry after \($wait) s: \(.detail)"' <<< "$error"

id=$(jq -r .data.id <<< "$sync")
sync=$(ask "$TOKEN" getSync syncId="$id" Prefer:wait=20)
while seconds=$(header retry-after); [ "$seconds" ]; do
  [ "$(header preference-applied)" ] || sleep "$seconds" # the gateway has not waited
  sync=$(ask "$TOKEN" getSync syncId="$id" Prefer:wait=20)
done
echo "ended: $(jq -r .data.status <<< "$sync")"

status=$(ask "$TOKEN" getSyncStatus entityType=PRODUCT)
echo "$(http_status): $(jq -r .data.numRecords <<< "$status") records"

failed=$(ask "$TOKEN" listSyncs entityType=COLLECTION status=FAILED)
jq -r '.data[0].failure | "failed: \(.code): \(.detail)"' <<< "$failed"

partial=$(ask "$TOKEN" listSyncs entityType=COLLECTION status=SUCCEEDED)
problems=$(ask "$TOKEN" listSyncProblems syncId="$(jq -r '.data[0].id' <<< "$partial")")
jq -r '.data[0] | "problems: \(.count) \(.code): \(.samples[0].message)"' <<< "$problems"

page=$(ask "$TOKEN" listProducts page_size=20)
jq -c '.data[]' <<< "$page" > "$files/products.txt"
while cursor=$(jq -r '.meta.nextCursor // empty' <<< "$page"); [ "$cursor" ]; do
  page=$(ask "$TOKEN" listProducts page_size=20 cursor="$cursor")
  jq -c '.data[]' <<< "$page" >> "$files/products.txt"
done
jq -rs '"pages: \(length) products, the last is \(.[-1].id)"' "$files/products.txt"

feed=$(ask "$TOKEN" listChanges entityType=PRODUCT page_size=20)
jq -c '.data[]' <<< "$feed" > "$files/changes.txt"
while [ "$(jq .meta.hasMore <<< "$feed")" = true ]; do
  feed=$(ask "$TOKEN" listChanges entityType=PRODUCT page_size=20 cursor="$(jq -r .meta.nextCursor <<< "$feed")")
  jq -c '.data[]' <<< "$feed" >> "$files/changes.txt"
done
jq -rs --argjson generation "$(jq .meta.generation <<< "$feed")" '.[-1] as $last |
  "changes: \(length) up to generation \($generation), the last is \($last.change) \($last.product.title)"' "$files/changes.txt"

for token in "$EXPIRED_TOKEN" "$OTHER_PLATFORM_TOKEN"; do
  ask "$token" enqueueSync entityType=PRODUCT | jq -r '.error[] | "\(.status): \(.title): \(.detail)"'
done
