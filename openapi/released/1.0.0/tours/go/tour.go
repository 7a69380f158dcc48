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
		answer, response, err := client.SyncAPI.GetSync(ctx, sync.GetId()).Execute()
		must(err)
		sync = answer.GetData()
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // none where the sync has ended
		time.Sleep(time.Duration(seconds) * time.Second)
	}
	fmt.Printf("ended: %s\n", sync.GetStatus())

	status, response, err := client.SyncAPI.GetSyncStatus(ctx, gateway.PRODUCT).Execute()
	must(err)
	data := status.GetData()
	fmt.Printf("%d: %v records\n", response.StatusCode, data.GetNumRecords())

	first, _, err := client.CatalogAPI.ListProducts(ctx).PageSize(20).Execute()
	must(err)
	meta := first.GetMeta()
	second, _, err := client.CatalogAPI.ListProducts(ctx).PageSize(20).Cursor(meta.GetNextCursor()).Execute()
	must(err)
	last := second.GetData()[len(second.GetData())-1]
	fmt.Printf("pages: %d + %d products, the last is %s\n", len(first.GetData()), len(second.GetData()), last.GetId())

	for _, token := range []string{os.Getenv("EXPIRED_TOKEN"), os.Getenv("OTHER_PLATFORM_TOKEN")} {
		_, _, err = client.SyncAPI.EnqueueSync(with(token), gateway.PRODUCT).Execute()
		refused := firstError(err)
		fmt.Printf("%s: %s: %s\n", refused.GetStatus(), refused.GetTitle(), refused.GetDetail())
	}
}
