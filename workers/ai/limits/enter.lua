-- Grants a pass at the first target all of whose scopes have room, or says what to wait for and how long.
-- ARGV[1]: {targets: [[[scope, in_flight, requests, tokens], ...], ...], tokens, command, pass, room, batch, window,
--           lease, wait, park}; a limit of 0 is none, times are milliseconds.
-- Reply: {1, target, time, probes...} or {0, parked, milliseconds, reason, target, dead}; targets are counted from 0.

local ask = cjson.decode(ARGV[1])
local EARLY_MS, LEAST_MS, POLL_MS, PURGE_MS = 1000, 200, 500, 30000
local BATCH_TICKET = 1e13

-- A refusal has `first`: milliseconds until the earliest room; `later(n)`: the same for who has n others before it;
-- `soft`: only failing too often, or asked to be left alone; `awaits`: some call's end makes room, nobody knows when.
local function spread(n)
  if n <= 500 then return n * 50 end
  return 25000 + (n - 500) * 5
end

local function after(first, soft, dead)
  return { reason = 'open', first = first, soft = soft, dead = dead, later = function(n) return first + spread(n) end }
end

local function refusal_of_breaker(limits, state)
  if not state.open_until then return nil end
  local soft = state.open_kind == 'rate'
  if state.open_until > now then return after(state.open_until - now, soft, state.open_kind == 'dead') end
  -- a probe's end is not known: look again after as long as it has taken so far
  if (state.probe_until or 0) > now then return after(math.max(POLL_MS, now - (state.probe_at or now)), soft, false) end
  limits.half_open = true
  return nil
end

-- Whoever has no other candidate tries now and then all the same; an answer ends the cooldown.
local function refusal_of_cooldown(limits, state)
  if (state.cool_until or 0) <= now then return nil end
  local first = state.cool_until - now
  if #ask.targets == 1 then
    local again = (state.cool_tried or 0) + math.max(1000, math.floor(first / 20)) - now
    limits.cooling = again <= 0
    first = math.min(first, math.max(again, 0))
  end
  return { reason = 'cooldown', first = first, soft = limits.cooling, later = function(n) return first + spread(n) end }
end

local function refusal(limits)
  local scope, in_flight, requests, tokens = limits[1], limits[2], limits[3], limits[4]
  local state = read(scope)
  local mean = state.mean or 1000
  local shut = refusal_of_cooldown(limits, state) or refusal_of_breaker(limits, state)
  if shut and not shut.soft then return shut end
  local calls = held(scope)
  if state.ramp and state.ramp_until > now and calls >= state.ramp then
    local pace = mean / state.ramp
    return { reason = 'recovering', first = 0, awaits = true, later = function(n) return math.min(n * pace, spread(n)) end }
  end
  local places = in_flight
  if state.gate and (places == 0 or state.gate < places) then places = state.gate end
  if places > 0 and calls >= places then
    return { reason = 'in_flight', first = 0, awaits = true, later = function(n) return n * mean / places end }
  end
  if requests > 0 then
    local log = key(scope, 'requests')
    redis.call('ZREMRANGEBYSCORE', log, '-inf', now - ask.window)
    local count = redis.call('ZCARD', log)
    if count >= requests then
      local function later(n)
        local place = count - requests + n % requests
        local at = tonumber(redis.call('ZRANGE', log, place, place, 'WITHSCORES')[2])
        return at + ask.window * (1 + math.floor(n / requests)) - now
      end
      return { reason = 'requests_per_minute', first = later(0), later = later }
    end
  end
  if tokens > 0 then
    local used, wanted = used_tokens(scope, ask.window), math.min(ask.tokens, tokens)
    if used + wanted > tokens then
      local excess, at = used + wanted - tokens, now
      local oldest = redis.call('ZRANGE', key(scope, 'tokens'), 0, 199, 'WITHSCORES')
      for place = 1, #oldest, 2 do
        at = tonumber(oldest[place + 1])
        excess = excess - tonumber(redis.call('HGET', key(scope, 'amounts'), oldest[place]) or 0)
        if excess <= 0 then break end
      end
      local first, pace = at + ask.window - now, wanted * ask.window / tokens
      return { reason = 'tokens_per_minute', first = first, later = function(n) return first + n * pace end }
    end
  end
  if ask.batch then
    local urgent = key(scope, 'urgent')
    redis.call('ZREMRANGEBYSCORE', urgent, '-inf', now)
    if redis.call('EXISTS', urgent) == 1 then
      return { reason = 'in_flight', first = 0, awaits = true, later = function(n) return n * mean / math.max(places, 1) end }
    end
  end
  return shut
end

local function grant(index, limits_of_target, is_last_resort)
  local reply = { 1, index - 1, now }
  for _, limits in ipairs(limits_of_target) do
    local scope, requests, tokens = limits[1], limits[3], limits[4]
    redis.call('ZADD', key(scope, 'leases'), now + ask.lease, ask.pass)
    redis.call('PEXPIRE', key(scope, 'leases'), ask.lease * 2)
    if requests > 0 then
      redis.call('ZADD', key(scope, 'requests'), now, ask.pass)
      redis.call('PEXPIRE', key(scope, 'requests'), ask.window * 2)
    end
    if tokens > 0 then
      local amount = math.min(ask.tokens, tokens)
      redis.call('ZADD', key(scope, 'tokens'), now, ask.pass)
      redis.call('HSET', key(scope, 'amounts'), ask.pass, amount)
      redis.call('INCRBY', key(scope, 'sum'), amount)
      for _, part in ipairs({ 'tokens', 'amounts', 'sum' }) do
        redis.call('PEXPIRE', key(scope, part), ask.window * 2)
      end
    end
    if not ask.batch then redis.call('ZREM', key(scope, 'urgent'), ask.room) end
    if limits.cooling then redis.call('HSET', key(scope, 'state'), 'cool_tried', now) end
    if limits.half_open and not is_last_resort then
      redis.call('HSET', key(scope, 'state'), 'probe', ask.pass, 'probe_at', now, 'probe_until', now + ask.lease)
      reply[#reply + 1] = scope
    end
  end
  local parked_at = redis.call('GETDEL', root .. ':parked:' .. ask.command)
  if parked_at then
    redis.call('ZREM', key(parked_at, 'queue'), ask.command)
    redis.call('ZREM', key(parked_at, 'due'), ask.command)
  end
  return reply
end

local function park(index, scope, refused)
  local parked = root .. ':parked:' .. ask.command
  local before = redis.call('GET', parked)
  if before and before ~= scope then
    redis.call('ZREM', key(before, 'queue'), ask.command)
    redis.call('ZREM', key(before, 'due'), ask.command)
  end
  local queue, due = key(scope, 'queue'), key(scope, 'due')
  local gone = redis.call('ZRANGEBYSCORE', due, '-inf', now - PURGE_MS, 'LIMIT', 0, 100)
  if #gone > 0 then
    redis.call('ZREM', due, unpack(gone))
    redis.call('ZREM', queue, unpack(gone))
  end
  local ticket = redis.call('INCR', root .. ':tickets')
  redis.call('ZADD', queue, 'NX', ask.batch and ticket + BATCH_TICKET or ticket, ask.command)
  local wait = refused.later(redis.call('ZRANK', queue, ask.command))
  wait = wait - math.min(EARLY_MS, wait / 2)
  wait = math.floor(math.max(LEAST_MS, wait))
  redis.call('ZADD', due, now + wait, ask.command)
  redis.call('SET', parked, scope, 'PX', wait + PURGE_MS)
  redis.call('PEXPIRE', queue, wait + KEPT_MS)
  redis.call('PEXPIRE', due, wait + KEPT_MS)
  return { 0, 1, wait, refused.reason, index - 1, refused.dead and 1 or 0 }
end

local best
local soft_index
for index, limits_of_target in ipairs(ask.targets) do
  local worst, scope, all_soft = nil, nil, true
  for _, limits in ipairs(limits_of_target) do
    local refused = refusal(limits)
    if refused then
      all_soft = all_soft and refused.soft
      refused.estimate = refused.later(redis.call('ZCARD', key(limits[1], 'queue')))
      if not worst or refused.estimate > worst.estimate then worst, scope = refused, limits[1] end
    end
  end
  if not worst then return grant(index, limits_of_target, false) end
  if all_soft and not soft_index then soft_index = index end
  if not best or worst.estimate < best.refused.estimate then
    best = { index = index, scope = scope, refused = worst }
  end
end
-- what merely fails too often, or may be tried again, is better than nothing
if soft_index then return grant(soft_index, ask.targets[soft_index], true) end

local refused = best.refused
if ask.park or refused.first > ask.wait then return park(best.index, best.scope, refused) end
redis.call('SET', root .. ':wanted', 1, 'PX', 3000)
if not ask.batch then
  local urgent = key(best.scope, 'urgent')
  redis.call('ZADD', urgent, now + POLL_MS + 200, ask.room)
  redis.call('PEXPIRE', urgent, 5000)
end
local look_again = refused.awaits and POLL_MS or math.min(refused.first, POLL_MS)
return { 0, 0, math.ceil(math.max(1, look_again)), refused.reason, best.index - 1, 0 }
