-- Corrects what take.lua has taken, now that the request is over.
--
-- KEYS  the meters to correct
-- ARGV  this gateway, the request, the time at which it was taken in µs, then kind, cost taken and
--       true cost for each meter
local gateway, request, at = ARGV[1], ARGV[2], tonumber(ARGV[3])

for i, key in ipairs(KEYS) do
  local kind, taken, true_cost = ARGV[3 * i + 1], ARGV[3 * i + 2], ARGV[3 * i + 3]
  local by = true_cost - taken
  if kind == 'tokensPerDay' then
    local day = key .. ':' .. string.format('%.0f', math.floor(at / 86400000000))
    if redis.call('EXISTS', day) == 1 then redis.call('INCRBY', day, by) end
  elseif kind == 'concurrency' then
    if redis.call('HEXISTS', key, gateway) == 1 and
      redis.call('HINCRBY', key, gateway, by) <= 0 then redis.call('HDEL', key, gateway) end
  elseif redis.call('ZREM', key, request .. ':' .. taken) == 1 then
    redis.call('ZADD', key, at, request .. ':' .. true_cost)
    redis.call('INCRBY', key .. ':sum', by)
  end
end
