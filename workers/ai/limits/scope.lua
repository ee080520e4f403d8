-- What is kept for a scope (a provider, a model or a key), each in a key of its own below KEYS[1]:
--   leases   zset  pass -> time its lease ends      calls in flight
--   requests zset  pass -> time of its grant        sliding log of requests
--   tokens   zset  pass -> time of its grant        sliding log of tokens; amounts in `amounts`, their sum in `sum`
--   queue    zset  command -> ticket                parked commands, in the order in which they came
--   due      zset  command -> time of its return    the same commands; purged when they do not return
--   urgent   zset  room -> time it counts until     rooms in which interactive calls wait: batch calls stand back
--   state    hash  breaker, cooldown, adaptive gate, mean duration of a call
-- Times are milliseconds of this server's clock. Prepended to each of the scripts beside it.

local root = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local KEPT_MS = 3600000
local BUCKETS, BUCKET_MS = 6, 10000

-- Fields of `state` that are no numbers. All: open_until open_ms open_kind, probe probe_at probe_until, ramp ramp_until
-- recovered_at, cool_until cool_ms cool_at cool_tried, gate gate_ok gate_at, mean, row (commands failed in a row), b0 to b5 (calls).
local WORDS = { open_kind = true, probe = true, row = true, b0 = true, b1 = true, b2 = true, b3 = true, b4 = true, b5 = true }

local function key(scope, part)
  return root .. ':' .. scope .. ':' .. part
end

local function read(scope)
  local pairs_of_state = redis.call('HGETALL', key(scope, 'state'))
  local state = {}
  for place = 1, #pairs_of_state, 2 do
    local name, value = pairs_of_state[place], pairs_of_state[place + 1]
    state[name] = WORDS[name] and value or tonumber(value)
  end
  return state
end

local function held(scope)
  local leases = key(scope, 'leases')
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
  return redis.call('ZCARD', leases)
end

local function forget_tokens(scope, passes)
  if #passes == 0 then return end
  local amounts = redis.call('HMGET', key(scope, 'amounts'), unpack(passes))
  local freed = 0
  for _, amount in ipairs(amounts) do freed = freed + (tonumber(amount) or 0) end
  redis.call('HDEL', key(scope, 'amounts'), unpack(passes))
  redis.call('ZREM', key(scope, 'tokens'), unpack(passes))
  redis.call('DECRBY', key(scope, 'sum'), freed)
end

local function used_tokens(scope, window)
  local log = key(scope, 'tokens')
  while true do
    local old = redis.call('ZRANGEBYSCORE', log, '-inf', now - window, 'LIMIT', 0, 500)
    forget_tokens(scope, old)
    if #old < 500 then break end
  end
  if redis.call('EXISTS', log) == 0 then
    redis.call('DEL', key(scope, 'amounts'), key(scope, 'sum'))
    return 0
  end
  return tonumber(redis.call('GET', key(scope, 'sum')) or 0)
end
