#!/usr/bin/env bash
# A tour of the API with the client that openapi-generator's `bash` makes, and jq.
set -euo pipefail

# The answer's headers go to headers.txt. What begins with a dash, the client hands over to curl.
ask() { # TOKEN OPERATION PARAMETER…
  local token=$1
  shift
  bash client/product-gateway-client -s -D headers.txt --host "$GATEWAY" "$@" "Authorization:Bearer $token"
}
http_status() { sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p' headers.txt; }
retry_after() { tr -d '\r' < headers.txt | sed -n 's/^retry-after: //Ip'; }

sync=$(ask "$TOKEN" enqueueSync entityType=PRODUCT)
echo "$(http_status): $(jq -r .data.status <<< "$sync")"

error=$(ask "$TOKEN" enqueueSync entityType=PRODUCT)
jq -r --arg wait "$(retry_after)" \
  '.error[] | "\(.status): \(.title), retry after \($wait) s: \(.detail)"' <<< "$error"

id=$(jq -r .data.id <<< "$sync")
sync=$(ask "$TOKEN" getSync syncId="$id")
while seconds=$(retry_after); [ "$seconds" ]; do
  sleep "$seconds"
  sync=$(ask "$TOKEN" getSync syncId="$id")
done
echo "ended: $(jq -r .data.status <<< "$sync")"

status=$(ask "$TOKEN" getSyncStatus entityType=PRODUCT)
echo "$(http_status): $(jq -r .data.numRecords <<< "$status") records"

first=$(ask "$TOKEN" listProducts page_size=20)
second=$(ask "$TOKEN" listProducts page_size=20 cursor="$(jq -r .meta.nextCursor <<< "$first")")
jq -rn --argjson first "$first" --argjson second "$second" \
  '"pages: \($first.data | length) + \($second.data | length) products, the last is \($second.data[-1].id)"'

for token in "$EXPIRED_TOKEN" "$OTHER_PLATFORM_TOKEN"; do
  ask "$token" enqueueSync entityType=PRODUCT | jq -r '.error[] | "\(.status): \(.title): \(.detail)"'
done
