-- The guard of an MCP gateway, directly before the router filter (data-plane.md 8.1, 8.8). It acts only on requests
-- that carry the router's metadata: internal headers and the client's credentials do not reach the MCP server, the
-- server's session id and challenge do not reach the client, and a failed reply is decided by the broker.
local GUARD = [==[@GUARD_NAMESPACE@]==]
local BROKER = [==[@BROKER_CLUSTER@]==]
local DETAILS = [==[@REPLY_DETAILS_HEADER@]==]
local REPAIR_LIMIT = 65536
local REPAIR_MILLISECONDS = 9000

local function guard_of(handle)
  return handle:streamInfo():dynamicMetadata():get(GUARD)
end

local function drop_internal(headers)
  local names = {}
  for name, _ in pairs(headers) do
    if name:sub(1, 6) == "x-mcp-" then
      names[#names + 1] = name
    end
  end
  for _, name in ipairs(names) do
    headers:remove(name)
  end
  headers:remove("mcp-init-host")
  headers:remove("router-key")
  headers:remove("gateway-server-id")
end

-- Takes the values that came from the client out of one header; what a policy set in between stays.
local function drop_value(headers, name, client_value)
  local count = headers:getNumValues(name)
  local kept, dropped = {}, false
  for index = 0, count - 1 do
    local value = headers:getAtIndex(name, index)
    if value == client_value then
      dropped = true
    else
      kept[#kept + 1] = value
    end
  end
  if dropped then
    headers:remove(name)
    for _, value in ipairs(kept) do
      headers:add(name, value)
    end
  end
end

function envoy_on_request(handle)
  local guard = guard_of(handle)
  if guard == nil then
    return
  end
  local headers = handle:headers()
  drop_internal(headers)
  for _, credential in ipairs(guard["credentials"] or {}) do
    drop_value(headers, credential["name"], credential["value"])
  end
  handle:streamInfo():dynamicMetadata():set(GUARD, "sent", true)
end

local function repair(handle, guard, status, details)
  local body = handle:body(true)
  local length = math.min(body:length(), REPAIR_LIMIT)
  local text = ""
  if length > 0 then
    text = body:getBytes(0, length)
  end
  local answer, answer_body = handle:httpCall(BROKER, {
    [":method"] = "POST",
    [":path"] = [==[@REPAIR_PATH@]==],
    [":authority"] = "localhost",
    [ [==[@SEAL_HEADER@]==] ] = guard["repair"],
    [ [==[@REPAIR_STATUS_HEADER@]==] ] = status,
    [ [==[@REPAIR_DETAILS_HEADER@]==] ] = details,
    [ [==[@REPAIR_TYPE_HEADER@]==] ] = handle:headers():get("content-type") or "",
  }, text, REPAIR_MILLISECONDS)
  local action = answer[ [==[@REPAIR_ACTION_HEADER@]==] ]
  local headers = handle:headers()
  if action ~= "keep" and action ~= "replace" then
    -- The broker did not decide: the reply of the server stays here.
    action, answer = "replace", {[":status"] = "502"}
    answer_body = [==[{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"MCP server unavailable"}}]==]
  end
  headers:replace(":status", answer[":status"])
  if action == "replace" then
    handle:body(true):setBytes(answer_body or "")
    headers:replace("content-type", answer["content-type"] or "application/json")
    headers:remove("content-encoding")
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local details = headers:get(DETAILS) or ""
  headers:remove(DETAILS)
  local guard = guard_of(handle)
  if guard == nil or guard["sent"] ~= true then
    return
  end
  if guard["hairpin"] ~= nil then
    -- Our own request: the router learns who answered, and sees the server's headers as they are.
    headers:add(DETAILS, details)
    return
  end
  headers:remove("mcp-session-id")
  if guard["session"] ~= nil then
    headers:replace("mcp-session-id", guard["session"])
  end
  if details == "via_upstream" and guard["challenge"] ~= "pass" then
    headers:remove("www-authenticate")
  end
  local status = headers:get(":status")
  if guard["repair"] ~= nil and tonumber(status) >= 400 then
    repair(handle, guard, status, details)
  end
end
