-- Keeps what a process holds for another lease, also where this server has lost it, and tells how breakers stand.
-- ARGV[1]: {lease, window, passes: [[scope, [pass, ...]], ...], probes: [[scope, pass], ...], watched: [scope, ...],
--           logs: [[scope, pass, age, tokens], ...]}; logs are grants that this server may have lost, or that were heard
--           of late: the later time counts.
-- Reply: {epoch, state...}: a number that changes when this server has lost its memory; 0 closed, 1 recovering, 2 open.

local ask = cjson.decode(ARGV[1])
redis.call('SET', root .. ':epoch', now, 'NX')
for _, one in ipairs(ask.passes) do
  local leases = key(one[1], 'leases')
  for _, pass in ipairs(one[2]) do redis.call('ZADD', leases, now + ask.lease, pass) end
  redis.call('PEXPIRE', leases, ask.lease * 2)
end
for _, one in ipairs(ask.probes) do
  local state = key(one[1], 'state')
  if redis.call('HGET', state, 'probe') == one[2] then redis.call('HSET', state, 'probe_until', now + ask.lease) end
end
for _, one in ipairs(ask.logs) do
  local scope, pass, at, tokens = one[1], one[2], now - one[3], one[4]
  redis.call('ZADD', key(scope, 'requests'), 'GT', at, pass)
  redis.call('PEXPIRE', key(scope, 'requests'), ask.window * 2)
  if tokens > 0 and redis.call('ZADD', key(scope, 'tokens'), 'GT', at, pass) == 1 then
    redis.call('HSET', key(scope, 'amounts'), pass, tokens)
    redis.call('INCRBY', key(scope, 'sum'), tokens)
    for _, part in ipairs({ 'tokens', 'amounts', 'sum' }) do
      redis.call('PEXPIRE', key(scope, part), ask.window * 2)
    end
  end
end
local reply = { tonumber(redis.call('GET', root .. ':epoch')) }
for _, scope in ipairs(ask.watched) do
  local state = read(scope)
  if state.open_until then
    reply[#reply + 1] = 2
  elseif state.ramp and state.ramp_until > now then
    reply[#reply + 1] = 1
  else
    reply[#reply + 1] = 0
  end
end
return reply
