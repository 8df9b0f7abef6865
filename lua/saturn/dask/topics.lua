--- Topics: messages that clients, workers and the scheduler log under a name, kept there and handed to subscribers.

local coordination = require "saturn.dask.coordination"
local core = require "saturn.core"
local errors = require "saturn.error"
local loop = require "saturn.loop"
local resume = require "saturn.dask.resume"

local M = {}

local function check_topic(topic)
  if type(topic) ~= "string" then errors.misuse(3, "a topic is a string, not a %s", type(topic)) end
end

--- Logs a message.
---@param client saturn.Client
---@param topic string|string[] one or several
---@param message any plain data: numbers, strings, booleans and tables of them
function M.log_event(client, topic, message)
  if type(topic) ~= "table" then check_topic(topic) end
  coordination.ask(coordination.client(client), "log_event",
    { topic = topic, msg = message == nil and core.null or message })
end

local function plain(message)
  if message == core.null then return nil end
  return message
end

--- What was logged under a topic, oldest first. Without a topic: what a host's own loop is to watch client:pollfd()
--- for, "r".
---@param client saturn.Client
---@param topic string?
---@return table|string events {time= (seconds since 1970), message=}
function M.events(client, topic)
  if topic == nil then return loop.events() end
  check_topic(topic)
  local list = {}
  local events = coordination.ask(coordination.client(client), "events", { topic = topic }, true)
  for i, event in ipairs(events) do list[i] = { time = event[1], message = plain(event[2]) } end
  return list
end

-- ---- what workers print -----------------------------------------------------------------------------------------

local function or_default(value, default)
  if value == nil or value == core.null then return default end
  return value
end

-- distributed.print sends its arguments as strings.
local function printed(message)
  if type(message) ~= "table" or type(message.args) ~= "table" then return tostring(message) .. "\n" end
  local parts = {}
  for i, part in ipairs(message.args) do parts[i] = tostring(part) end
  return table.concat(parts, or_default(message.sep, " ")) .. or_default(message["end"], "\n")
end

local function load(pickle)
  local ok, value = pcall(core.pickle.loads, pickle)
  return ok and value or nil
end

-- A warning is a text, or an object of its class, which then says more than the category.
local function warned(message)
  if type(message) ~= "table" or type(message.message) ~= "string" then return tostring(message) .. "\n" end
  local text, category = load(message.message), message.category and load(message.category)
  if type(text) == "table" then
    category = text
    text = text.args and text.args[1]
  end
  local name = type(category) == "table" and category.name or "UserWarning"
  return ("%s: %s\n"):format(name, tostring(text))
end

local AS_TEXT = { print = printed, warn = warned }

--- What a message of the topic "print" or "warn" would print; other messages as tostring shows them.
---@param topic string
---@param message any
---@return string
function M.text(topic, message)
  local as_text = AS_TEXT[topic]
  if as_text then return as_text(message) end
  return tostring(message) .. "\n"
end

local function is_file(handler)
  if io.type(handler) then return true end
  return type(handler) == "table" and type(handler.write) == "function"
end

local function writer(file)
  return function(message, _, topic) file:write(M.text(topic, message)) end
end

-- ---- subscribing ------------------------------------------------------------------------------------------------

---@class saturn.Subscription
---@field topic string
local Subscription = {}
Subscription.__index = Subscription
Subscription.__name = "saturn.subscription"

local function deliver(client, event)
  local topic, message = event.topic, plain(event.event[2])
  for _, each in ipairs { table.unpack(client._topics[topic] or {}) } do
    if not each.closed then each.handler(message, event.event[1], topic) end
  end
end

local function topics_of(client)
  if not rawget(client, "_topics") then
    rawset(client, "_topics", {})
    client:listen("event", function(event) deliver(client, event) end)
    resume.rejoin(client, function(session)
      for topic in pairs(client._topics) do
        session:send { op = "subscribe-topic", topic = topic, client = client.id }
      end
    end)
  end
  return client._topics
end

--- Ends the subscription. Safe to call twice.
function Subscription:close()
  if self.closed then return end
  self.closed = true
  local client = self.client
  local list = client._topics[self.topic] or {}
  for i, each in ipairs(list) do
    if each == self then table.remove(list, i) break end
  end
  if #list > 0 or client.closed then return end
  client._topics[self.topic] = nil
  client:send { op = "unsubscribe-topic", topic = self.topic, client = client.id }
end

Subscription.__close = Subscription.close

function Subscription:__tostring()
  return ("<saturn.subscription: %s%s>"):format(self.topic, self.closed and ", closed" or "")
end

--- Calls `handler(message, time, topic)` for each message that is logged under the topic from now on, whenever this
--- program waits for something (or client:step is called); it must not wait itself. Several handlers of one topic are
--- all called. With a file instead of a function, messages are written there as text: `client:subscribe("print",
--- io.stdout)` shows what tasks print with distributed.print, and "warn" what they warn of with distributed.warn.
--- An error in a handler is raised where the program waits.
---@param client saturn.Client
---@param topic string
---@param handler fun(message: any, time: number, topic: string)|file*
---@return saturn.Subscription subscription `:close()` ends it
function M.subscribe(client, topic, handler)
  check_topic(topic)
  if is_file(handler) then
    handler = writer(handler)
  elseif type(handler) ~= "function" then
    errors.misuse(2, "subscribe needs a function that takes the message, or a file to write it to; got %s",
      type(handler))
  end
  client = coordination.client(client)
  client:check_open()
  local topics = topics_of(client)
  local self = setmetatable({ client = client, topic = topic, handler = handler }, Subscription)
  if not topics[topic] then
    client:send { op = "subscribe-topic", topic = topic, client = client.id }
    topics[topic] = {}
  end
  table.insert(topics[topic], self)
  return self
end

--- Ends all subscriptions of this client to a topic.
---@param client saturn.Client
---@param topic string
function M.unsubscribe(client, topic)
  check_topic(topic)
  client = coordination.client(client)
  local list = (rawget(client, "_topics") or {})[topic]
  if not list then errors.misuse(2, "this client is not subscribed to the topic '%s'", topic) end
  for _, each in ipairs { table.unpack(list) } do each:close() end
end

return M
