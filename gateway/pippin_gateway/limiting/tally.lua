-- Adds what keys have used since the last time. What was told before is not added again.
--
-- KEYS  the index of accounts, this gateway's last number, then the account of each entry
-- ARGV  the number of this telling, seconds until an unused account is forgotten, then for each
--       entry: uid, namespace/name, model, id of the key, when it was used last, and five sums
local sums = {'requests', 'errors', 'prompt_tokens', 'completion_tokens', 'cached_tokens'}
local number, forget = ARGV[1], ARGV[2]
if redis.call('GET', KEYS[2]) == number then return 0 end

local function later(key, field, at)
  local known = redis.call('HGET', key, field)
  if not known or tonumber(known) < tonumber(at) then redis.call('HSET', key, field, at) end
end

for i = 3, #KEYS do
  local key, first = KEYS[i], 3 + 10 * (i - 3)
  local uid, ref, model, id, last = unpack(ARGV, first, first + 4)
  redis.call('HSET', key, 'ref', ref)
  for j, name in ipairs(sums) do
    local by = ARGV[first + 4 + j]
    if by ~= '0' then redis.call('HINCRBY', key, name .. ' ' .. model, by) end
  end
  later(key, 'last ' .. model, last)
  later(key, 'id ' .. id, last)
  redis.call('EXPIRE', key, forget)
  local known = redis.call('ZSCORE', KEYS[1], uid)
  if not known or tonumber(known) < tonumber(last) then redis.call('ZADD', KEYS[1], last, uid) end
end
redis.call('SET', KEYS[2], number, 'EX', 86400)
return #KEYS - 2
