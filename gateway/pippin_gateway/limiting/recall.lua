-- KEYS  an answer, the answers of its model by last use
-- Returns it and for how many ms it is kept; nothing when it is not there.
local answer = redis.call('GET', KEYS[1])
if not answer then
  return false
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'XX', time[1] * 1000000 + time[2], KEYS[1])
return {answer, redis.call('PTTL', KEYS[1])}
