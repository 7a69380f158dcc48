// A tour of the API with the client that openapi-generator's `go` makes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	gateway "shop.example/clients/productgateway"
)

// firstError is what the answer says, as the type that the spec gives it.
func firstError(err error) gateway.Error {
	var failed *gateway.GenericOpenAPIError
	if errors.As(err, &failed) {
		if body, ok := failed.Model().(gateway.ErrorResponse); ok {
			return body.GetError()[0]
		}
	}
	log.Fatalf("this was expected to be refused: %v", err)
	return gateway.Error{}
}

func with(token string) context.Context {
	return context.WithValue(context.Background(), gateway.ContextAccessToken, token)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// newest is the newest sync of collections with this status.
func newest(ctx context.Context, client *gateway.APIClient, status gateway.SyncStatus) gateway.Sync {
	page, _, err := client.SyncAPI.ListSyncs(ctx).EntityType(gateway.COLLECTION).Status(status).Execute()
	must(err)
	return page.GetData()[0]
}

func main() {
	configuration := gateway.NewConfiguration()
	configuration.Servers = gateway.ServerConfigurations{{URL: os.Getenv("GATEWAY")}}
	client := gateway.NewAPIClient(configuration)
	ctx := with(os.Getenv("TOKEN"))

	enqueued, response, err := client.SyncAPI.EnqueueSync(ctx, gateway.PRODUCT).Execute()
	must(err)
	sync := enqueued.GetData()
	fmt.Printf("%d: %s\n", response.StatusCode, sync.GetStatus())

	_, response, err = client.SyncAPI.EnqueueSync(ctx, gateway.PRODUCT).Execute()
	refused := firstError(err)
	fmt.Printf("%s: %s, retry after %s s: %s\n",
		refused.GetStatus(), refused.GetTitle(), response.Header.Get("Retry-After"), refused.GetDetail())

	for sync.GetStatus() == gateway.QUEUED || sync.GetStatus() == gateway.IN_PROGRESS {
		answer, response, err := client.SyncAPI.GetSync(ctx, sync.GetId()).Prefer("wait=20").Execute()
		must(err)
		sync = answer.GetData()
		if response.Header.Get("Preference-Applied") == "" { // the gateway has not waited
			seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // none where the sync has ended
			time.Sleep(time.Duration(seconds) * time.Second)
		}
	}
	fmt.Printf("ended: %s\n", sync.GetStatus())

	status, response, err := client.SyncAPI.GetSyncStatus(ctx, gateway.PRODUCT).Execute()
	must(err)
	data := status.GetData()
	fmt.Printf("%d: %.0f records\n", response.StatusCode, data.GetNumRecords())

	failed := newest(ctx, client, gateway.FAILED)
	failure := failed.GetFailure()
	fmt.Printf("failed: %s: %s\n", failure.GetCode(), failure.GetDetail())

	partial := newest(ctx, client, gateway.SUCCEEDED)
	problems, _, err := client.SyncAPI.ListSyncProblems(ctx, partial.GetId()).Execute()
	must(err)
	group := problems.GetData()[0]
	fmt.Printf("problems: %d %s: %s\n", group.GetCount(), group.GetCode(), group.Samples[0].GetMessage())

	var products []gateway.Product
	pages := client.CatalogAPI.ListProducts(ctx).PageSize(20)
	for {
		page, _, err := pages.Execute()
		must(err)
		products = append(products, page.GetData()...)
		meta := page.GetMeta()
		if !meta.HasNextCursor() {
			break
		}
		pages = pages.Cursor(meta.GetNextCursor())
	}
	fmt.Printf("pages: %d products, the last is %s\n", len(products), products[len(products)-1].GetId())

	feed, _, err := client.CatalogAPI.ListChanges(ctx, gateway.PRODUCT).PageSize(20).Execute()
	must(err)
	changes := feed.GetData()
	for feed.Meta.GetHasMore() {
		feed, _, err = client.CatalogAPI.ListChanges(ctx, gateway.PRODUCT).PageSize(20).Cursor(feed.Meta.GetNextCursor()).Execute()
		must(err)
		changes = append(changes, feed.GetData()...)
	}
	last := changes[len(changes)-1]
	changed := last.GetProduct()
	fmt.Printf("changes: %d up to generation %d, the last is %s %s\n",
		len(changes), feed.Meta.GetGeneration(), last.GetChange(), changed.GetTitle())

	for _, token := range []string{os.Getenv("EXPIRED_TOKEN"), os.Getenv("OTHER_PLATFORM_TOKEN")} {
		_, _, err = client.SyncAPI.EnqueueSync(with(token), gateway.PRODUCT).Execute()
		refused := firstError(err)
		fmt.Printf("%s: %s: %s\n", refused.GetStatus(), refused.GetTitle(), refused.GetDetail())
	}
}
