-- Sends the requests of a file in turn: method, path and bearer token of each on a line.
local requests, at = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local method, path, token = line:match("^(%S+) (%S+) (.*)$")
    local headers = { ["Host"] = wrk.host }
    if token ~= "" then headers["Authorization"] = "Bearer " .. token end
    -- Prism answers 202 or 200 of itself; what else it is to answer is asked of it so.
    local prefer = path:match("#(.*)$")
    if prefer then headers["Prefer"] = prefer; path = path:match("^(.-)#") end
    requests[#requests + 1] = wrk.format(method, path, headers)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
