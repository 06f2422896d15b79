-- Forgets a model's answers. Its new mark tells all gateways, and keeps out what is on its way.
--
-- KEYS  the answers of the model by last use, marks of models that were forgotten
-- ARGV  the model, its mark from now on
-- Returns how many there were.
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local there = 0
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  there = there + redis.call('UNLINK', name)
end
redis.call('UNLINK', KEYS[1])
return there
