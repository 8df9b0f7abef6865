--- The keys of data that a client scattered, so that none is used again too soon. The order to free a key goes from the
-- scheduler to its worker on a stream of its own, and data that comes under the same key meanwhile is freed with it.

local loop = require "saturn.loop"

local M = {}

local LATELY = 60 -- seconds after which such an order has come

---@class saturn.Scattered
---@field keys table<any, any> the key that was sent last, by the key that was asked for
---@field futures table<any, saturn.Future> one of its Futures, while there is one
---@field gone table<any, boolean> those without a Future when they were last looked at
---@field look number when they are looked at next

local function new()
  return { keys = {}, futures = setmetatable({}, { __mode = "v" }), gone = {}, look = loop.now() + LATELY }
end

-- What has been without a Future for two looks is forgotten.
local function look(self)
  for name in pairs(self.keys) do
    if self.futures[name] then
      self.gone[name] = nil
    elseif self.gone[name] then
      self.keys[name], self.gone[name] = nil, nil
    else
      self.gone[name] = true
    end
  end
  self.look = loop.now() + LATELY
end

---@return saturn.Scattered
function M.of(client)
  local self = client._scattered
  if not self then
    self = new()
    client._scattered = self
  elseif loop.now() >= self.look then
    look(self)
  end
  return self
end

local function is_pending(future)
  return future ~= nil and future.status == "pending"
end

--- A Future of the key under which a value goes whose key should be `name`: of that, or of the one it is there under or
--- on its way, or when it was let go lately of a new one.
---@return saturn.Future
function M.future(client, name, kind)
  local self = M.of(client)
  local future = client.session:future(self.keys[name] or name, client, true)
  if self.keys[name] == nil or future.status == "finished" or is_pending(self.futures[name]) then return future end
  future:release()
  return client.session:future(client:new_key(kind), client, true)
end

--- Whether the key was let go lately.
function M.was_let_go(client, name)
  local self = M.of(client)
  return self.keys[name] ~= nil and not is_pending(self.futures[name])
end

--- Notes that data goes out under this key.
function M.note(client, name, key, future)
  local self = M.of(client)
  self.keys[name], self.futures[name], self.gone[name] = key, future, nil
end

return M
