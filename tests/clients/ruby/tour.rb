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
  body, _, headers = syncs.get_sync_with_http_info(sync.id, prefer: 'wait=20')
  sync = body.data
  sleep headers['Retry-After'].to_i unless headers['Preference-Applied'] # the gateway has not waited
end
puts "ended: #{sync.status}"

body, status = syncs.get_sync_status_with_http_info(EntityType::PRODUCT)
puts "#{status}: #{body.data.num_records.to_i} records"

newest = lambda do |status|
  syncs.list_syncs(entity_type: EntityType::COLLECTION, status: status).data.first
end
failure = newest.call(SyncStatus::FAILED).failure
puts "failed: #{failure.code}: #{failure.detail}"

group = syncs.list_sync_problems(newest.call(SyncStatus::SUCCEEDED).id).data.first
puts "problems: #{group.count} #{group.code}: #{group.samples.first.message}"

products = []
cursor = nil
loop do
  page = catalog.list_products(page_size: 20, cursor: cursor)
  products.concat(page.data)
  cursor = page.meta.next_cursor
  break unless cursor
end
puts "pages: #{products.size} products, the last is #{products.last.id}"

changes = []
cursor = nil
loop do
  feed = catalog.list_changes(EntityType::PRODUCT, page_size: 20, cursor: cursor)
  changes.concat(feed.data)
  cursor = feed.meta.next_cursor
  next if feed.meta.has_more

  last = changes.last
  puts "changes: #{changes.size} up to generation #{feed.meta.generation}, " \
       "the last is #{last.change} #{last.product.title}"
  break
end

[ENV.fetch('EXPIRED_TOKEN'), ENV.fetch('OTHER_PLATFORM_TOKEN')].each do |token|
  SyncApi.new(connect(token)).enqueue_sync(EntityType::PRODUCT)
rescue ApiError => failed
  error = first_error(failed)
  puts "#{error.status}: #{error.title}: #{error.detail}"
end
