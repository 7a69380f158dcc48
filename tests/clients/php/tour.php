<?php
// A tour of the API with the client that openapi-generator's `php` makes.

declare(strict_types=1);

use ProductGateway\Api\CatalogApi;
use ProductGateway\Api\SyncApi;
use ProductGateway\ApiException;
use ProductGateway\Configuration;
use ProductGateway\Model\EntityType;
use ProductGateway\Model\Error;
use ProductGateway\Model\ErrorResponse;
use ProductGateway\Model\Sync;
use ProductGateway\Model\SyncStatus;

require __DIR__ . '/autoload.php';

function connect(string $token): Configuration
{
    return (new Configuration())->setHost(getenv('GATEWAY'))->setAccessToken($token);
}

/** What the answer says, as the type that the spec gives it. */
function firstError(ApiException $failed): Error
{
    $body = $failed->getResponseObject();
    assert($body instanceof ErrorResponse);
    return $body->getError()[0];
}

/** The headers with names in lower case: the client has a plain map, but names have no case. */
function headers(ApiException|array $answer): array
{
    return array_change_key_case($answer instanceof ApiException ? $answer->getResponseHeaders() : $answer);
}

/** The newest sync of collections with this status. */
function newest(SyncApi $syncs, string $status): Sync
{
    return $syncs->listSyncs(entity_type: EntityType::COLLECTION, status: $status)->getData()[0];
}

$configuration = connect(getenv('TOKEN'));
$syncs = new SyncApi(config: $configuration);
$catalog = new CatalogApi(config: $configuration);

[$body, $status] = $syncs->enqueueSyncWithHttpInfo(EntityType::PRODUCT);
$sync = $body->getData();
echo "$status: {$sync->getStatus()}\n";

try {
    $syncs->enqueueSync(EntityType::PRODUCT);
} catch (ApiException $failed) {
    $error = firstError($failed);
    $seconds = headers($failed)['retry-after'][0];
    echo "{$error->getStatus()}: {$error->getTitle()}, retry after $seconds s: {$error->getDetail()}\n";
}

while (in_array($sync->getStatus(), [SyncStatus::QUEUED, SyncStatus::IN_PROGRESS], true)) {
    [$body, , $headers] = $syncs->getSyncWithHttpInfo($sync->getId(), prefer: 'wait=20');
    $sync = $body->getData();
    $headers = headers($headers);
    if (!isset($headers['preference-applied'])) { // the gateway has not waited
        sleep((int) ($headers['retry-after'][0] ?? 0));
    }
}
echo "ended: {$sync->getStatus()}\n";

[$body, $status] = $syncs->getSyncStatusWithHttpInfo(EntityType::PRODUCT);
printf("$status: %.0f records\n", $body->getData()->getNumRecords());

$failure = newest($syncs, SyncStatus::FAILED)->getFailure();
echo "failed: {$failure->getCode()}: {$failure->getDetail()}\n";

$group = $syncs->listSyncProblems(newest($syncs, SyncStatus::SUCCEEDED)->getId())->getData()[0];
echo "problems: {$group->getCount()} {$group->getCode()}: {$group->getSamples()[0]->getMessage()}\n";

$products = [];
$cursor = null;
do {
    $page = $catalog->listProducts(cursor: $cursor, page_size: 20);
    array_push($products, ...$page->getData());
    $cursor = $page->getMeta()->getNextCursor();
} while ($cursor !== null);
$last = end($products);
echo 'pages: ' . count($products) . " products, the last is {$last->getId()}\n";

$changes = [];
$cursor = null;
do {
    $feed = $catalog->listChanges(EntityType::PRODUCT, cursor: $cursor, page_size: 20);
    array_push($changes, ...$feed->getData());
    $cursor = $feed->getMeta()->getNextCursor();
} while ($feed->getMeta()->getHasMore());
$last = end($changes);
echo 'changes: ' . count($changes) . " up to generation {$feed->getMeta()->getGeneration()}, ",
    "the last is {$last->getChange()} {$last->getProduct()->getTitle()}\n";

foreach ([getenv('EXPIRED_TOKEN'), getenv('OTHER_PLATFORM_TOKEN')] as $token) {
    try {
        (new SyncApi(config: connect($token)))->enqueueSync(EntityType::PRODUCT);
    } catch (ApiException $failed) {
        $error = firstError($failed);
        echo "{$error->getStatus()}: {$error->getTitle()}: {$error->getDetail()}\n";
    }
}
