--- The connection to the scheduler: noticing that it broke, making it anew, and finding again what was held.
--
-- A client without the option `resume` has lost its tasks with its connection; client:reconnect() makes it usable for
-- new ones. One with it holds its keys on the scheduler under a second name, connects again by itself, asks what became
-- of each key, and goes on.

local core = require "saturn.core"
local errors = require "saturn.error"
local future_id = require("saturn.graph.key").future_id
local loop = require "saturn.loop"
local shapes = require "saturn.dask.shapes"

local M = {}

---@alias saturn.ClientStatus
---| "connected"
---| "connecting" # the connection broke, and is being made again (resume)
---| "lost"       # the connection broke
---| "closed"

---@class saturn.Link
---@field state saturn.ClientStatus
---@field reason string? why the connection broke
---@field keep string? the name that keys are held under
---@field patience number seconds after which connecting again is given up
---@field on_status (fun(status: saturn.ClientStatus, reason: string?))?
---@field generation integer counts connections
---@field worker thread? the coroutine that connects again
---@field rejoin function[] what else is to be told to a new connection

local PREFIX = "saturn-keep-"
local PATIENCE = 300
local FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10
-- Keys asked about in one request.
local CHUNK = 20000

local function held_name(name)
  return name:sub(1, #PREFIX) == PREFIX and name or PREFIX .. name
end

--- The link of a client with these options.
---@param options table resume, resume_timeout, on_status, heartbeat
---@return saturn.Link
function M.link(options)
  local resume = options.resume
  if resume == "" then errors.misuse(3, "option 'resume' must be true or a name, and '' is none") end
  if options.heartbeat and options.heartbeat <= 0 then
    errors.misuse(3, "option 'heartbeat' must be a number of seconds above 0")
  end
  return {
    state = "connected",
    keep = resume and held_name(resume == true and core.session.random(16) or resume) or nil,
    patience = options.resume_timeout or PATIENCE,
    on_status = options.on_status,
    generation = 1,
    rejoin = {},
  }
end

local function set_state(link, state, reason)
  link.state, link.reason = state, reason
  if link.on_status then link.on_status(state, reason) end
end

--- "connected", "connecting", "lost" or "closed".
---@return saturn.ClientStatus
function M.status(client)
  if client.closed then return "closed" end
  return client._link.state
end

local function raise_lost(client)
  errors.raise("closed", ("the client has lost its scheduler (%s): call client:reconnect(), or make a new client"
    ):format(client._link.reason))
end

--- Returns when the client is connected: at once, or after it has connected again; else raises "closed" or "timeout".
---@param timeout number? seconds; the client's
function M.wait(client, timeout)
  local link = client._link
  if link.state == "connecting" then
    if coroutine.running() == link.worker then return end
    loop.wait(function() return client.closed or link.state ~= "connecting" end, timeout or client.request_timeout,
      ("connecting again to the scheduler at %s (%s)"):format(client.address, link.reason))
  end
  if client.closed then errors.raise("closed", "the client is closed") end
  if link.state == "lost" then raise_lost(client) end
end

-- ---- connecting again ---------------------------------------------------------------------------------------------

local function endpoint_of(client, id)
  local options = {}
  for name, value in pairs(client._endpoint) do options[name] = value end
  options.id = id
  return options
end

-- Waits on the stream, whose end is an error.
local function wait_on(session, ready, deadline, what)
  loop.wait(function() return errors.check(session:state()) and ready() end, math.max(0, deadline - loop.now()), what)
end

local function connect(client, deadline)
  local session, release = client.session, client.release
  client:ask_release(deadline)
  if client.release ~= release then session:forget_sent() end
  local id = client:new_id()
  errors.check(session:connect(loop.reactor(), endpoint_of(client, id)))
  wait_on(session, function() return true end, deadline, "the registration at the scheduler")
  client.id = id
  for _, rejoin in ipairs(client._link.rejoin) do rejoin(session) end
end

local LOST = "the scheduler does not know the task any more: it was restarted, or its workers lost the data; submit it "
  .. "again"

-- A key that was wanted when it was gone already is "released" in releases up to 2023.12: nothing will come of it. What
-- can still be computed is never found so, since the scheduler moves it on at once.
local function take_over(session, key, state)
  if state == nil or state == "released" then
    session:found(key, "lost", LOST)
  elseif state ~= "memory" and state ~= "erred" then
    session:found(key, "pending")
  end
end

local function states_of(client, keys, deadline)
  local timeout = math.max(0, deadline - loop.now())
  local reply = client.scheduler:start("get_task_status", { keys = keys }):wait(timeout)
  local states = {}
  for key, state in pairs(reply) do states[future_id(key)] = state end
  return states
end

-- Asks what became of each key. The keys are held, so what is known now is known when they are desired.
local function find(client, deadline)
  local session = client.session
  wait_on(session, function() return session:acknowledged() end, deadline, "the scheduler's answer")
  local keys = session:keys()
  for first = 1, #keys, CHUNK do
    local chunk = table.move(keys, first, math.min(#keys, first + CHUNK - 1), 1, {})
    local states = states_of(client, chunk, deadline)
    for _, key in ipairs(chunk) do take_over(session, key, states[future_id(key)]) end
  end
  errors.check(session:desire())
end

local function connected(client)
  local link = client._link
  link.generation = link.generation + 1
  link.worker = nil
  set_state(link, "connected")
end

-- Tries until it works, or `patience` seconds have passed. What connects again must not fail for what may pass: only
-- a scheduler of a kind that cannot be talked to is a reason to stop.
local function persist(client, patience, try)
  local deadline, pause = loop.now() + patience, FIRST_PAUSE
  while true do
    local ok, err = pcall(try, client, math.min(deadline, loop.now() + client.request_timeout))
    if ok or client.closed then return true end
    local left = deadline - loop.now()
    if not errors.is_error(err) or err.kind == "protocol" or left <= 0 then return false, err end
    client.session:drop(tostring(err))
    loop.sleep(math.min(left, pause * (0.5 + math.random())))
    if loop.now() >= deadline then return false, err end
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

local function try_resume(client, deadline)
  connect(client, deadline)
  find(client, deadline)
end

local function give_up(client, err)
  local link = client._link
  local reason = ("%s; connecting again was given up: %s"):format(link.reason, tostring(err))
  client.session:drop(reason)
  client.session:give_up(reason)
  link.worker = nil
  set_state(link, "lost", reason)
end

-- Nobody joins the coroutine that connects again: an error of a callback is raised by the loop, where the program
-- waits.
local function raise_in_loop(err)
  local timer
  timer = loop.timer(0, function()
    timer:cancel()
    error(err, 0)
  end)
end

local function resume(client)
  local link = client._link
  link.worker = coroutine.running()
  local ok, err = persist(client, link.patience, try_resume)
  if client.closed then return end
  local call = errors.first()
  if ok then call(connected, client) else call(give_up, client, err) end
  call(client.on_round, client)
  ok, err = pcall(call)
  if not ok then raise_in_loop(err) end
end

local function lose(client, reason)
  local link = client._link
  local text = ("the client has lost its scheduler: %s"):format(reason)
  client.scheduler:renew(text)
  for _, worker in pairs(client._workers) do worker:close() end
  client._workers = {}
  if not link.keep then return set_state(link, "lost", reason) end
  local call = errors.first()
  call(set_state, link, "connecting", reason)
  if link.state == "connecting" and not link.worker then loop.spawn(resume, client) end
  call()
end

--- Looks whether the connection still stands. Called after each round of the network.
function M.look(client)
  if client._link.state ~= "connected" then return end
  local ok, _, reason = client.session:state()
  if ok == nil then lose(client, reason) end
end

--- Connects a client anew that has lost its connection. Futures that were lost stay lost. Does nothing while the
--- connection stands; waits for it when it is being made again already.
---@param timeout number? seconds to try for (the client's)
function M.reconnect(client, timeout)
  client = rawget(client, "_client") or client
  if client.closed then errors.raise("closed", "the client is closed: make a new one") end
  local link = client._link
  M.look(client)
  if link.state == "connecting" then M.wait(client, timeout) end
  if link.state == "connected" then return end
  local ok, err = persist(client, timeout or client.request_timeout, connect)
  if not ok then
    client.session:drop(tostring(err))
    error(err, 0)
  end
  connected(client)
end

--- Calls `fn(session)` with each new connection after the first.
---@param fn fun(session: userdata)
function M.rejoin(client, fn)
  table.insert(client._link.rejoin, fn)
end

-- ---- requests that broke off ----------------------------------------------------------------------------------------

-- Requests that change nothing, so that one whose answer did not come can be made again.
local REPEATABLE = {
  gather = true, identity = true, versions = true, who_has = true, has_what = true, ncores = true, nbytes = true,
  processing = true, call_stack = true, get_task_status = true, get_metadata = true, events = true, event_wait = true,
  event_is_set = true, publish_get = true, publish_list = true, get_logs = true, get_story = true,
}
local NOTICE = 0.05

--- Whether a request of a client that resumes shall be made again: waits until there is a connection for it.
---@param op string
---@param err any what the request failed with
---@param timeout number? seconds
---@param tries integer made so far
function M.recover(client, op, err, timeout, tries)
  local link = client._link
  if not link.keep or not REPEATABLE[op] or tries > 10 then return false end
  if not errors.is_error(err) or (err.kind ~= "closed" and err.kind ~= "connect") then return false end
  if coroutine.running() == link.worker then return false end
  -- A connection of requests may end a little before the stream does.
  loop.poll(function() return client.closed or link.state ~= "connected" end, math.min(timeout or NOTICE, NOTICE))
  loop.poll(function() return client.closed or link.state ~= "connecting" end, timeout)
  return not client.closed and link.state == "connected"
end

-- ---- silence --------------------------------------------------------------------------------------------------------

-- A question that is answered in its turn: no task has this key.
local function ask_for_life(client, link, time)
  link.asked = time
  client.session:send { op = "report-key", key = client:new_key("heartbeat") }
end

local function beat(client, seconds)
  local link, session = client._link, client.session
  if link.state ~= "connected" then
    link.asked = nil
    return
  end
  local time = loop.now()
  if link.asked and session:heard() >= link.asked then link.asked = nil end
  if not link.asked then return ask_for_life(client, link, time) end
  if time - link.asked < seconds then return end
  link.asked = nil
  session:drop(("the scheduler has not answered for %g seconds"):format(seconds))
  client:on_round()
end

--- Gives the connection up when the scheduler leaves a question unanswered for so many seconds.
---@param seconds number
function M.heartbeat(client, seconds)
  local weak = setmetatable({ client = client }, { __mode = "v" })
  local timer
  timer = loop.timer(seconds / 4, function()
    if weak.client and not weak.client.closed then return beat(weak.client, seconds) end
    timer:cancel()
  end)
end

-- ---- what is held ---------------------------------------------------------------------------------------------------

local HELD = [[
def held(name, dask_scheduler):
    client = dask_scheduler.clients.get(name)
    return [task.key for task in client.wants_what] if client else []
]]

local function check_name(client, name, what)
  if name == nil and client.held_name then return client.held_name end
  if type(name) ~= "string" or name == "" then
    errors.misuse(3, "%s needs the name that was given as option 'resume', or the client's held_name", what)
  end
  return held_name(name)
end

--- Futures of all that is held under a name: what a client with the option `resume` left behind. Asks with a function
--- that runs on the scheduler.
---@param name string? the client's own
---@param timeout number?
---@return saturn.Future[]
function M.held(client, name, timeout)
  client = rawget(client, "_client") or client
  name = check_name(client, name, "held")
  client:check_open()
  local keys = client:with({}):run_on_scheduler(require("saturn.py").fn(HELD), name)
  shapes.check("keys of a client", keys)
  local futures = {}
  for i, key in ipairs(keys) do futures[i] = client.session:future(key, client) end
  if #keys > 0 then client:send { op = "client-desires-keys", keys = keys, client = client.id } end
  client:settle(timeout or client.request_timeout)
  return futures
end

--- Lets go all that is held under a name. For a client with the option `resume` that never came back: its results stay
--- on the cluster until somebody calls this.
---@param name string the name that was given as option `resume`, or the held_name of that client
---@param timeout number?
function M.release_held(client, name, timeout)
  client = rawget(client, "_client") or client
  name = check_name(client, name, "release_held")
  client:send { op = "close-client", client = name }
  -- The client's own name must be known there for what is to come.
  if name == client.held_name then client:send { op = "client-desires-keys", keys = {}, client = name } end
  client:settle(timeout or client.request_timeout)
end

--- Closes a client with the option `resume`, but leaves what it holds on the cluster, running tasks too, for one that
--- comes later with the same name.
---@param timeout number?
---@return string name to be given as option `resume`
function M.detach(client, timeout)
  client = rawget(client, "_client") or client
  if not client.held_name then
    errors.misuse(2, "only a client with the option 'resume' can be detached: others hold nothing")
  end
  client:check_open()
  local session = client.session
  session:flush()
  loop.wait(function() return errors.check(session:state()) and session:acknowledged() end,
    timeout or client.request_timeout, "the scheduler's answer")
  session:detach()
  client:close()
  return client.held_name
end

return M
