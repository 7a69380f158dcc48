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
    $seconds = $failed->getResponseHeaders()['retry-after'][0];
    echo "{$error->getStatus()}: {$error->getTitle()}, retry after $seconds s: {$error->getDetail()}\n";
}

while (in_array($sync->getStatus(), [SyncStatus::QUEUED, SyncStatus::IN_PROGRESS], true)) {
    [$body, , $headers] = $syncs->getSyncWithHttpInfo($sync->getId());
    $sync = $body->getData();
    sleep((int) ($headers['retry-after'][0] ?? 0));
}
echo "ended: {$sync->getStatus()}\n";

[$body, $status] = $syncs->getSyncStatusWithHttpInfo(EntityType::PRODUCT);
echo "$status: {$body->getData()->getNumRecords()} records\n";

$pages = [];
$cursor = null;
do {
    $page = $catalog->listProducts(cursor: $cursor, page_size: 20);
    $pages[] = $page->getData();
    $cursor = $page->getMeta()->getNextCursor();
} while ($cursor !== null);
$last = end($pages[count($pages) - 1]);
echo 'pages: ' . implode(' + ', array_map('count', $pages)) . " products, the last is {$last->getId()}\n";

foreach ([getenv('EXPIRED_TOKEN'), getenv('OTHER_PLATFORM_TOKEN')] as $token) {
    try {
        (new SyncApi(config: connect($token)))->enqueueSync(EntityType::PRODUCT);
    } catch (ApiException $failed) {
        $error = firstError($failed);
        echo "{$error->getStatus()}: {$error->getTitle()}: {$error->getDetail()}\n";
    }
}
