-- Takes every claim of a request, or, when one does not fit, none.
--
-- KEYS  the claims' meters
-- ARGV  this gateway, this request, then kind, limit and cost for each meter
-- Returns Redis' time in µs, then for each meter: what was used before, µs until the cost fits
-- (0: it does), µs until all of it is there again.
local MINUTE, DAY, SOON = 60000000, 86400000000, 1000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local gateway, request = ARGV[1], ARGV[2]

local function cost_of(member) return tonumber(string.match(member, '%d+$')) end

-- A sorted set of REQUEST:COST by time, and beside it the sum of its costs.
local function window(key, limit, cost)
  local old = redis.call('ZRANGEBYSCORE', key, '-inf', now - MINUTE)
  if #old > 0 then
    local gone = 0
    for _, member in ipairs(old) do gone = gone + cost_of(member) end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - MINUTE)
    redis.call('DECRBY', key .. ':sum', gone)
  end
  local used = tonumber(redis.call('GET', key .. ':sum') or '0')
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  local reset = last[2] and last[2] + MINUTE - now or 0
  local over, wait, from = used + cost - limit, 0, 0
  if over > 0 then wait = MINUTE end
  while over > 0 do
    local oldest = redis.call('ZRANGE', key, from, from + 63, 'WITHSCORES')
    if #oldest == 0 then break end
    for i = 1, #oldest, 2 do
      over = over - cost_of(oldest[i])
      if over <= 0 then
        wait = math.max(1, oldest[i + 1] + MINUTE - now)
        break
      end
    end
    from = from + 64
  end
  return used, wait, reset
end

local function today(key) return key .. ':' .. string.format('%.0f', math.floor(now / DAY)) end

local function day(key, limit, cost)
  local used = tonumber(redis.call('GET', today(key)) or '0')
  local reset = DAY - now % DAY
  return used, used + cost > limit and reset or 0, reset
end

-- A hash of GATEWAY: COUNT. What a gateway had under way ends with it.
local function flight(key, limit, cost)
  local used, counts = 0, redis.call('HGETALL', key)
  for i = 1, #counts, 2 do
    if counts[i] == gateway or redis.call('ZSCORE', 'pippin:gateways', counts[i]) then
      used = used + counts[i + 1]
    else
      redis.call('HDEL', key, counts[i])
    end
  end
  return used, used + cost > limit and SOON or 0, 0
end

local look = {rpm = window, tpm = window, tokensPerDay = day, concurrency = flight}
local told, fits = {now}, true
for i, key in ipairs(KEYS) do
  local kind, limit, cost = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local used, wait, reset = look[kind](key, limit, cost)
  fits = fits and wait == 0
  told[#told + 1] = used
  told[#told + 1] = wait
  told[#told + 1] = reset
end
if not fits then return told end
for i, key in ipairs(KEYS) do
  local kind, cost = ARGV[3 * i], ARGV[3 * i + 2]
  if kind == 'tokensPerDay' then
    redis.call('INCRBY', today(key), cost)
    redis.call('EXPIRE', today(key), 172800)
  elseif kind == 'concurrency' then
    redis.call('HINCRBY', key, gateway, cost)
    redis.call('EXPIRE', key, 86400)
  else
    redis.call('ZADD', key, now, request .. ':' .. cost)
    redis.call('INCRBY', key .. ':sum', cost)
    redis.call('EXPIRE', key, 61)
    redis.call('EXPIRE', key .. ':sum', 61)
  end
end
return told
