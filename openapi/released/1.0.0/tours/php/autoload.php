<?php
// What Composer's vendor/autoload.php is elsewhere: Guzzle from Debian's packages, and the generated classes.

require_once 'GuzzleHttp/autoload.php';

spl_autoload_register(function (string $class): void {
    $file = __DIR__ . '/client/lib/' . str_replace('\\', '/', substr($class, strlen('ProductGateway\\'))) . '.php';
    if (str_starts_with($class, 'ProductGateway\\') && is_file($file)) {
        require $file;
    }
});
