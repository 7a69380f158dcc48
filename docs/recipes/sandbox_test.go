// A client in Go, tested against a sandbox: needs product-gateway and Go 1.19. Run it with: go test sandbox_test.go
package client

import (
	"bufio"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

var sandbox struct {
	BaseURL   string `json:"baseUrl"`
	APIPrefix string
	Tokens    map[string]string
}

type answer struct {
	Data struct {
		Status     string
		NumRecords int
		Failure    struct{ Code string }
	}
	Error []struct{ Status, Title, Detail string }
}

func TestMain(m *testing.M) {
	// --until-eof: it ends with this program, whatever becomes of it
	command := exec.Command("product-gateway", "sandbox", "--port", "0", "--until-eof")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	check(err)
	output, err := command.StdoutPipe()
	check(err)
	check(command.Start())
	line, err := bufio.NewReader(output).ReadBytes('\n')
	check(err)
	check(json.Unmarshal(line, &sandbox))
	status := m.Run()
	input.Close()
	command.Wait()
	os.Exit(status)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// What is tested; in your project it is a package of its own.
func ask(t *testing.T, method, path, who, prefer string) (*http.Response, answer) {
	t.Helper()
	request, err := http.NewRequest(method, sandbox.BaseURL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+sandbox.Tokens[who])
	if prefer != "" {
		request.Header.Set("Prefer", prefer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body answer
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return response, body
}

func retryAfter(response *http.Response) int {
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return seconds
}

func ended(t *testing.T, path, who string) answer {
	t.Helper()
	response, body := ask(t, "GET", path, who, "")
	for retryAfter(response) > 0 {
		time.Sleep(time.Duration(retryAfter(response)) * time.Second)
		response, body = ask(t, "GET", path, who, "")
	}
	return body
}

func TestWaitsForASyncThatIsActive(t *testing.T) {
	path := sandbox.APIPrefix + "/sync/PRODUCT"
	accepted, _ := ask(t, "PUT", path, "byop", "sync=slow")
	if accepted.StatusCode != 202 {
		t.Fatal(accepted.Status)
	}
	refused, body := ask(t, "PUT", path, "byop", "")
	if refused.StatusCode != 429 || retryAfter(refused) < 1 || body.Error[0].Title != "Too Many Requests" {
		t.Fatal(refused.Status, refused.Header, body)
	}
	if body := ended(t, accepted.Header.Get("Location"), "byop"); body.Data.Status != "SUCCEEDED" {
		t.Fatal(body)
	}
	now, body := ask(t, "GET", path, "byop", "")
	if now.StatusCode != 200 || body.Data.NumRecords != 24 {
		t.Fatal(now.Status, body)
	}
}

func TestMeetsAGatewayThatIsAway(t *testing.T) {
	away, _ := ask(t, "GET", sandbox.APIPrefix+"/products", "byop", "code=503")
	if away.StatusCode != 503 || retryAfter(away) < 1 {
		t.Fatal(away.Status, away.Header)
	}
}

func TestSaysWhyASyncFailed(t *testing.T) {
	accepted, _ := ask(t, "PUT", sandbox.APIPrefix+"/sync/PRODUCT", "otherByop", "sync=failing")
	body := ended(t, accepted.Header.Get("Location"), "otherByop")
	if body.Data.Status != "FAILED" || body.Data.Failure.Code != "PRODUCT_SERVICE_ERROR" {
		t.Fatal(body)
	}
}
