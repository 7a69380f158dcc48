// A client in Java, tested against a sandbox: needs product-gateway and JDK 17. Run it with: java SandboxTest.java
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class SandboxTest {
  private static final HttpClient HTTP = HttpClient.newHttpClient();
  private static String said;

  public static void main(String[] arguments) throws Exception {
    // --until-eof: it ends with this program, whatever becomes of it
    Process process = new ProcessBuilder("product-gateway", "sandbox", "--port", "0", "--until-eof")
        .redirectError(ProcessBuilder.Redirect.INHERIT).start();
    try (BufferedReader lines = new BufferedReader(new InputStreamReader(process.getInputStream()))) {
      said = lines.readLine();
      waitsForASyncThatIsActive();
      meetsAGatewayThatIsAway();
      saysWhyASyncFailed();
    } finally {
      process.getOutputStream().close();
    }
    System.out.println("3 passed");
  }

  static void waitsForASyncThatIsActive() throws Exception {
    String path = text(said, "apiPrefix") + "/sync/PRODUCT";
    HttpResponse<String> accepted = ask("PUT", path, "byop", "sync=slow");
    check(accepted.statusCode() == 202, accepted);

    HttpResponse<String> refused = ask("PUT", path, "byop", null);
    check(refused.statusCode() == 429, refused);
    check(refused.headers().firstValueAsLong("Retry-After").getAsLong() >= 1, refused);
    check(text(refused.body(), "title").equals("Too Many Requests"), refused);

    HttpResponse<String> ended = ended(accepted.headers().firstValue("Location").get(), "byop");
    check(text(ended.body(), "status").equals("SUCCEEDED"), ended);
    HttpResponse<String> now = ask("GET", path, "byop", null);
    check(now.statusCode() == 200 && now.body().contains("\"numRecords\":24"), now);
  }

  static void meetsAGatewayThatIsAway() throws Exception {
    HttpResponse<String> away = ask("GET", text(said, "apiPrefix") + "/products", "byop", "code=503");
    check(away.statusCode() == 503, away);
    check(away.headers().firstValueAsLong("Retry-After").getAsLong() >= 1, away);
  }

  static void saysWhyASyncFailed() throws Exception {
    String path = text(said, "apiPrefix") + "/sync/PRODUCT";
    HttpResponse<String> accepted = ask("PUT", path, "otherByop", "sync=failing");
    HttpResponse<String> ended = ended(accepted.headers().firstValue("Location").get(), "otherByop");
    check(text(ended.body(), "status").equals("FAILED"), ended);
    check(text(ended.body(), "code").equals("PRODUCT_SERVICE_ERROR"), ended);
  }

  // What is tested; in your project it is a class of its own.
  static HttpResponse<String> ask(String method, String path, String who, String prefer) throws Exception {
    HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(text(said, "baseUrl")).resolve(path))
        .method(method, HttpRequest.BodyPublishers.noBody())
        .header("Authorization", "Bearer " + text(said, who));
    if (prefer != null) {
      request.header("Prefer", prefer);
    }
    return HTTP.send(request.build(), HttpResponse.BodyHandlers.ofString());
  }

  static HttpResponse<String> ended(String path, String who) throws Exception {
    HttpResponse<String> answer = ask("GET", path, who, null);
    while (answer.headers().firstValue("Retry-After").isPresent()) {
      Thread.sleep(1000 * answer.headers().firstValueAsLong("Retry-After").getAsLong());
      answer = ask("GET", path, who, null);
    }
    return answer;
  }

  /** The JDK has no JSON; this is enough for a text with a name that comes once. */
  static String text(String json, String name) {
    Matcher found = Pattern.compile("\"" + name + "\":\"([^\"]*)\"").matcher(json);
    check(found.find(), json);
    return found.group(1);
  }

  static void check(boolean holds, Object otherwise) {
    if (!holds) {
      String body = otherwise instanceof HttpResponse<?> answer ? answer + " " + answer.body() : "" + otherwise;
      throw new AssertionError(body);
    }
  }
}
