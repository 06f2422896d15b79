-- Keeps an answer, unless its model's were forgotten since it was asked for.
--
-- KEYS  the answer, the answers of its model by last use, marks of models that were forgotten
-- ARGV  the answer, ms to keep it, answers of the model at most, the model, its mark then
if (redis.call('HGET', KEYS[3], ARGV[4]) or '') ~= ARGV[5] then
  return 0
end
local time = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], time[1] * 1000000 + time[2], KEYS[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
local over = redis.call('ZCARD', KEYS[2]) - ARGV[3]
if over > 0 then
  local popped = redis.call('ZPOPMIN', KEYS[2], over)
  for i = 1, #popped, 2 do
    redis.call('UNLINK', popped[i])
  end
end
return 1
