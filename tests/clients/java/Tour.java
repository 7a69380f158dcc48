// A tour of the API with the client that openapi-generator's `java` makes for the JDK's own HTTP client.

import example.productgateway.ApiClient;
import example.productgateway.ApiException;
import example.productgateway.ApiResponse;
import example.productgateway.api.CatalogApi;
import example.productgateway.api.CatalogApi.APIListChangesRequest;
import example.productgateway.api.CatalogApi.APIListProductsRequest;
import example.productgateway.api.SyncApi;
import example.productgateway.api.SyncApi.APIEnqueueSyncRequest;
import example.productgateway.api.SyncApi.APIGetSyncRequest;
import example.productgateway.api.SyncApi.APIGetSyncStatusRequest;
import example.productgateway.api.SyncApi.APIListSyncProblemsRequest;
import example.productgateway.api.SyncApi.APIListSyncsRequest;
import example.productgateway.model.Change;
import example.productgateway.model.ChangeListResponse;
import example.productgateway.model.EntityType;
import example.productgateway.model.Error;
import example.productgateway.model.ErrorResponse;
import example.productgateway.model.Product;
import example.productgateway.model.ProductListResponse;
import example.productgateway.model.Sync;
import example.productgateway.model.SyncResponse;
import example.productgateway.model.SyncStatus;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

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

  /** The newest sync of collections with this status. */
  static Sync newest(SyncApi syncs, SyncStatus status) throws Exception {
    var wanted = APIListSyncsRequest.newBuilder().entityType(EntityType.COLLECTION).status(status).build();
    return syncs.listSyncs(wanted).getData().get(0);
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

    var wanted = APIGetSyncRequest.newBuilder().syncId(sync.getId()).prefer("wait=20").build();
    while (EnumSet.of(SyncStatus.QUEUED, SyncStatus.IN_PROGRESS).contains(sync.getStatus())) {
      ApiResponse<SyncResponse> answer = syncs.getSyncWithHttpInfo(wanted);
      sync = answer.getData().getData();
      Map<String, List<String>> headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
      headers.putAll(answer.getHeaders()); // a plain map, but names of headers have no case
      if (headers.containsKey("Retry-After") && !headers.containsKey("Preference-Applied")) {
        Thread.sleep(1000 * Long.parseLong(headers.get("Retry-After").get(0)));
      }
    }
    System.out.println("ended: " + sync.getStatus());

    var status = syncs.getSyncStatus(APIGetSyncStatusRequest.newBuilder().entityType(EntityType.PRODUCT).build());
    System.out.println("200: " + status.getData().getNumRecords() + " records");

    var failure = newest(syncs, SyncStatus.FAILED).getFailure();
    System.out.printf("failed: %s: %s%n", failure.getCode(), failure.getDetail());

    var partial = newest(syncs, SyncStatus.SUCCEEDED).getId();
    var problems = syncs.listSyncProblems(APIListSyncProblemsRequest.newBuilder().syncId(partial).build());
    var group = problems.getData().get(0);
    System.out.printf(
        "problems: %d %s: %s%n", group.getCount(), group.getCode(), group.getSamples().get(0).getMessage());

    var page = APIListProductsRequest.newBuilder().pageSize(20);
    ProductListResponse list = catalog.listProducts(page.build());
    List<Product> products = new ArrayList<>(list.getData());
    while (list.getMeta().getNextCursor() != null) {
      list = catalog.listProducts(page.cursor(list.getMeta().getNextCursor()).build());
      products.addAll(list.getData());
    }
    String last = products.get(products.size() - 1).getId();
    System.out.printf("pages: %d products, the last is %s%n", products.size(), last);

    var feed = APIListChangesRequest.newBuilder().entityType(EntityType.PRODUCT).pageSize(20);
    ChangeListResponse answer = catalog.listChanges(feed.build());
    List<Change> changes = new ArrayList<>(answer.getData());
    while (answer.getMeta().getHasMore()) {
      answer = catalog.listChanges(feed.cursor(answer.getMeta().getNextCursor()).build());
      changes.addAll(answer.getData());
    }
    Change newest = changes.get(changes.size() - 1);
    System.out.printf(
        "changes: %d up to generation %d, the last is %s %s%n",
        changes.size(), answer.getMeta().getGeneration(), newest.getChange(), newest.getProduct().getTitle());

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
