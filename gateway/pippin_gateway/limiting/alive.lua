-- Says that this gateway is there, and forgets those that were not heard of.
--
-- ARGV  this gateway, seconds after which one counts as gone
-- Returns how many there are.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', 'pippin:gateways', now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', 'pippin:gateways', '-inf', now - ARGV[2] * 1000000)
return redis.call('ZCARD', 'pippin:gateways')
