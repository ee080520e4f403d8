-- Gives a pass back, settles its tokens, and lets the call's end count for the breakers, cooldowns and gates.
-- ARGV[1]: {pass, command, granted, age, milliseconds, tokens, linger, unused,
--           scopes: [[scope, in_flight, requests, tokens, verdict], ...],
--           about, cooldown, limited, shrink, dead}; `granted` is the time of the grant, or 0 when it was not
--           granted here: then `age` tells how long ago that was; tokens of -1 stay as reserved.
-- Reply: a list of changes, each "scope state kind milliseconds".

local ask = cjson.decode(ARGV[1])
local granted_at = ask.granted > 0 and ask.granted or now - ask.age
local FIRST_OPEN_MS, LONGEST_OPEN_MS, DEAD_MS = 2000, 60000, 300000
local RAMP_MS, RAMP_FREE = 10000, 64
local FAILED_IN_A_ROW, LEAST_CALLS, FAILING_SHARE = 3, 20, 0.1
local changes = {}

local function bucket(state, failed)
  local index = math.floor(now / BUCKET_MS)
  local name = 'b' .. index % BUCKETS
  local at, calls, failures = string.match(state[name] or '', '^(%d+):(%d+):(%d+)$')
  if tonumber(at) ~= index then calls, failures = 0, 0 end
  state[name] = string.format('%d:%d:%d', index, calls + 1, failures + (failed and 1 or 0))
end

local function fails_too_often(state)
  local oldest, calls, failures = math.floor(now / BUCKET_MS) - BUCKETS, 0, 0
  for place = 0, BUCKETS - 1 do
    local at, some, failed = string.match(state['b' .. place] or '', '^(%d+):(%d+):(%d+)$')
    if at and tonumber(at) > oldest then calls, failures = calls + some, failures + failed end
  end
  return calls >= LEAST_CALLS and failures > calls * FAILING_SHARE
end

local function fails_in_a_row(state)
  local row, count = state.row or '|', 0
  if not string.find(row, '|' .. ask.command .. '|', 1, true) then row = row .. ask.command .. '|' end
  state.row = row
  for _ in string.gmatch(row, '[^|]+') do count = count + 1 end
  return count >= FAILED_IN_A_ROW
end

local function open(scope, state, kind, milliseconds)
  state.open_kind, state.open_ms, state.open_until = kind, milliseconds, now + milliseconds
  state.probe, state.probe_at, state.probe_until = nil, nil, nil
  state.ramp, state.ramp_until, state.row = nil, nil, nil
  for place = 0, BUCKETS - 1 do state['b' .. place] = nil end
  changes[#changes + 1] = table.concat({ scope, 'open', kind, milliseconds }, ' ')
end

local function longer(state)
  return math.min((state.open_ms or FIRST_OPEN_MS / 2) * 2, LONGEST_OPEN_MS)
end

local function judge(scope, state, verdict)
  local succeeded, failed = verdict == 'ok', verdict == 'fail'
  if state.ramp and state.ramp_until <= now then state.ramp, state.ramp_until, state.open_ms = nil, nil, nil end
  if state.probe == ask.pass then
    state.probe, state.probe_at, state.probe_until = nil, nil, nil
    if failed then
      open(scope, state, state.open_kind, longer(state))
    elseif succeeded or verdict == 'alive' then
      state.open_until, state.open_kind, state.row = nil, nil, nil
      state.ramp, state.ramp_until, state.recovered_at = 2, now + RAMP_MS, now
      changes[#changes + 1] = scope .. ' recovering - 0'
    end
  elseif state.open_until or granted_at < (state.recovered_at or 0) then
    return -- from before it was opened, or a last resort: says nothing new
  elseif failed then
    bucket(state, true)
    if fails_in_a_row(state) then
      open(scope, state, 'out', longer(state))
    elseif fails_too_often(state) then
      open(scope, state, 'rate', longer(state))
    elseif state.ramp then
      state.ramp = math.max(1, math.floor(state.ramp / 2))
    end
  elseif succeeded then
    state.row = nil
    bucket(state, false)
    if state.ramp then
      state.ramp = state.ramp + 1
      if state.ramp >= RAMP_FREE then state.ramp, state.ramp_until, state.open_ms = nil, nil, nil end
    end
  elseif verdict == 'alive' then
    state.row = nil
  end
end

local function praise(state, in_flight)
  state.mean = math.floor((state.mean or ask.milliseconds) * 0.8 + ask.milliseconds * 0.2)
  state.cool_ms = nil
  if state.cool_tried and granted_at >= state.cool_tried then state.cool_until, state.cool_tried = nil, nil end
  if state.gate then
    state.gate_ok = (state.gate_ok or 0) + 1
    if state.gate_ok >= 10 then state.gate, state.gate_ok = state.gate + 1, 0 end
    if in_flight > 0 and state.gate >= in_flight then state.gate, state.gate_ok = nil, nil end
  end
end

local function blame(scope, state, in_flight, calls)
  if ask.cooldown > 0 then state.cool_until, state.cool_tried = math.max(state.cool_until or 0, now + ask.cooldown), now end
  if ask.limited and granted_at > (state.cool_at or 0) then
    state.cool_ms, state.cool_at = math.min((state.cool_ms or 500) * 2, 30000), now
    state.cool_until, state.cool_tried = math.max(state.cool_until or 0, now + state.cool_ms), now
  end
  if ask.shrink and granted_at > (state.gate_at or 0) then
    local places = calls
    if in_flight > 0 then places = math.min(places, in_flight) end
    if state.gate then places = math.min(places, state.gate) end
    state.gate, state.gate_ok, state.gate_at = math.max(1, math.floor(places * 0.7)), 0, now
  end
  if ask.dead and not (state.open_kind == 'dead' and (state.open_until or 0) > now) then
    open(scope, state, 'dead', DEAD_MS)
  end
end

local function settle(scope, requests, tokens)
  if requests > 0 and ask.unused then redis.call('ZREM', key(scope, 'requests'), ask.pass) end
  if tokens == 0 then return end
  if ask.unused or ask.tokens == 0 then
    forget_tokens(scope, { ask.pass })
  elseif ask.tokens > 0 then
    local reserved = redis.call('HGET', key(scope, 'amounts'), ask.pass)
    if reserved then
      redis.call('HSET', key(scope, 'amounts'), ask.pass, ask.tokens)
      redis.call('INCRBY', key(scope, 'sum'), ask.tokens - reserved)
    end
  end
end

local function write(scope, state, before)
  local changed, gone = {}, {}
  for name, value in pairs(state) do
    if value ~= before[name] then changed[#changed + 1], changed[#changed + 2] = name, value end
  end
  for name in pairs(before) do
    if state[name] == nil then gone[#gone + 1] = name end
  end
  if #changed > 0 then redis.call('HSET', key(scope, 'state'), unpack(changed)) end
  if #gone > 0 then redis.call('HDEL', key(scope, 'state'), unpack(gone)) end
  local kept = math.max(state.open_until or 0, state.cool_until or 0, now) - now + KEPT_MS
  redis.call('PEXPIRE', key(scope, 'state'), kept)
end

local freed = {}
for _, one in ipairs(ask.scopes) do
  local scope, in_flight, verdict = one[1], one[2], one[5]
  local calls = held(scope)
  if ask.linger > 0 then
    redis.call('ZADD', key(scope, 'leases'), 'XX', now + ask.linger, ask.pass)
  else
    redis.call('ZREM', key(scope, 'leases'), ask.pass)
  end
  settle(scope, one[3], one[4])
  local state, before = read(scope), {}
  for name, value in pairs(state) do before[name] = value end
  judge(scope, state, verdict)
  if verdict == 'ok' then praise(state, in_flight) end
  if scope == ask.about then blame(scope, state, in_flight, math.max(calls, 1)) end
  write(scope, state, before)
  freed[#freed + 1] = scope
end
if redis.call('EXISTS', root .. ':wanted') == 1 then
  redis.call('PUBLISH', root .. ':freed', table.concat(freed, '\n'))
end
return changes
