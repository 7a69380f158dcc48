// A tour of the API with the client that openapi-generator's `java` makes for the JDK's own HTTP client.

import example.productgateway.ApiClient;
import example.productgateway.ApiException;
import example.productgateway.ApiResponse;
import example.productgateway.api.CatalogApi;
import example.productgateway.api.CatalogApi.APIListProductsRequest;
import example.productgateway.api.SyncApi;
import example.productgateway.api.SyncApi.APIEnqueueSyncRequest;
import example.productgateway.api.SyncApi.APIGetSyncRequest;
import example.productgateway.api.SyncApi.APIGetSyncStatusRequest;
import example.productgateway.model.EntityType;
import example.productgateway.model.Error;
import example.productgateway.model.ErrorResponse;
import example.productgateway.model.ProductListResponse;
import example.productgateway.model.Sync;
import example.productgateway.model.SyncResponse;
import example.productgateway.model.SyncStatus;
import java.util.EnumSet;

class Tour {
  static final APIEnqueueSyncRequest PRODUCTS =
      APIEnqueueSyncRequest.newBuilder().entityType(EntityType.PRODUCT).build();

  static ApiClient connect(String token) {
    ApiClient client = new ApiClient();
    client.updateBaseUri(System.getenv("GATEWAY"));
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + token));
    return client;
  }

  /** What the answer says, as the type that the spec gives it. */
  static Error firstError(ApiException failed) throws Exception {
    var json = ApiClient.createDefaultObjectMapper();
    return json.readValue(failed.getResponseBody(), ErrorResponse.class).getError().get(0);
  }

  public static void main(String[] arguments) throws Exception {
    ApiClient client = connect(System.getenv("TOKEN"));
    SyncApi syncs = new SyncApi(client);
    CatalogApi catalog = new CatalogApi(client);

    ApiResponse<SyncResponse> enqueued = syncs.enqueueSyncWithHttpInfo(PRODUCTS);
    Sync sync = enqueued.getData().getData();
    System.out.println(enqueued.getStatusCode() + ": " + sync.getStatus());

    try {
      syncs.enqueueSync(PRODUCTS);
    } catch (ApiException failed) {
      Error error = firstError(failed);
      long seconds = failed.getResponseHeaders().firstValueAsLong("Retry-After").getAsLong();
      System.out.printf(
          "%s: %s, retry after %d s: %s%n", error.getStatus(), error.getTitle(), seconds, error.getDetail());
    }

    var wanted = APIGetSyncRequest.newBuilder().syncId(sync.getId()).build();
    while (EnumSet.of(SyncStatus.QUEUED, SyncStatus.IN_PROGRESS).contains(sync.getStatus())) {
      ApiResponse<SyncResponse> answer = syncs.getSyncWithHttpInfo(wanted);
      sync = answer.getData().getData();
      if (answer.getHeaders().containsKey("retry-after")) {
        Thread.sleep(1000 * Long.parseLong(answer.getHeaders().get("retry-after").get(0)));
      }
    }
    System.out.println("ended: " + sync.getStatus());

    var status = syncs.getSyncStatus(APIGetSyncStatusRequest.newBuilder().entityType(EntityType.PRODUCT).build());
    System.out.println("200: " + status.getData().getNumRecords() + " records");

    var page = APIListProductsRequest.newBuilder().pageSize(20);
    ProductListResponse first = catalog.listProducts(page.build());
    ProductListResponse second = catalog.listProducts(page.cursor(first.getMeta().getNextCursor()).build());
    String last = second.getData().get(second.getData().size() - 1).getId();
    System.out.printf(
        "pages: %d + %d products, the last is %s%n", first.getData().size(), second.getData().size(), last);

    for (String variable : new String[] {"EXPIRED_TOKEN", "OTHER_PLATFORM_TOKEN"}) {
      try {
        new SyncApi(connect(System.getenv(variable))).enqueueSync(PRODUCTS);
      } catch (ApiException failed) {
        Error error = firstError(failed);
        System.out.printf("%s: %s: %s%n", error.getStatus(), error.getTitle(), error.getDetail());
      }
    }
  }
}
