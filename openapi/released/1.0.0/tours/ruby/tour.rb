# A tour of the API with the client that openapi-generator's `ruby` makes.

require 'json'
require 'uri'
require 'product_gateway_client'

include ProductGatewayClient

def connect(token)
  gateway = URI(ENV.fetch('GATEWAY'))
  ApiClient.new(Configuration.new do |configuration|
    configuration.scheme = gateway.scheme
    configuration.host = "#{gateway.host}:#{gateway.port}"
    configuration.access_token = token
  end)
end

# What the answer says, as the type that the spec gives it.
def first_error(failed)
  ErrorResponse.build_from_hash(JSON.parse(failed.response_body)).error.first
end

client = connect(ENV.fetch('TOKEN'))
syncs = SyncApi.new(client)
catalog = CatalogApi.new(client)

body, status = syncs.enqueue_sync_with_http_info(EntityType::PRODUCT)
sync = body.data
puts "#{status}: #{sync.status}"

begin
  syncs.enqueue_sync(EntityType::PRODUCT)
rescue ApiError => failed
  error = first_error(failed)
  seconds = failed.response_headers['Retry-After']
  puts "#{error.status}: #{error.title}, retry after #{seconds} s: #{error.detail}"
end

while [SyncStatus::QUEUED, SyncStatus::IN_PROGRESS].include?(sync.status)
  body, _, headers = syncs.get_sync_with_http_info(sync.id)
  sync = body.data
  sleep headers['Retry-After'].to_i
end
puts "ended: #{sync.status}"

body, status = syncs.get_sync_status_with_http_info(EntityType::PRODUCT)
puts "#{status}: #{body.data.num_records.to_i} records"

pages = []
cursor = nil
loop do
  page = catalog.list_products(page_size: 20, cursor: cursor)
  pages << page.data
  cursor = page.meta.next_cursor
  break unless cursor
end
puts "pages: #{pages.map(&:size).join(' + ')} products, the last is #{pages.last.last.id}"

[ENV.fetch('EXPIRED_TOKEN'), ENV.fetch('OTHER_PLATFORM_TOKEN')].each do |token|
  SyncApi.new(connect(token)).enqueue_sync(EntityType::PRODUCT)
rescue ApiError => failed
  error = first_error(failed)
  puts "#{error.status}: #{error.title}: #{error.detail}"
end
