-- Adds what this gateway has let in while it could not reach Redis.
--
-- KEYS  the meters
-- ARGV  this gateway, a name that no request has, then kind, cost and age in µs for each meter
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local gateway, name = ARGV[1], ARGV[2]

for i, key in ipairs(KEYS) do
  local kind, cost, age = ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  if kind == 'concurrency' then
    if tonumber(cost) > 0 then
      redis.call('HSET', key, gateway, cost)
      redis.call('EXPIRE', key, 86400)
    else
      redis.call('HDEL', key, gateway)
    end
  elseif kind == 'tokensPerDay' then
    local day = key .. ':' .. string.format('%.0f', math.floor(now / 86400000000))
    redis.call('INCRBY', day, cost)
    redis.call('EXPIRE', day, 172800)
  else
    redis.call('ZADD', key, now - age, name .. ':' .. i .. ':' .. cost)
    redis.call('INCRBY', key .. ':sum', cost)
    redis.call('EXPIRE', key, 61)
    redis.call('EXPIRE', key .. ':sum', 61)
  end
end
