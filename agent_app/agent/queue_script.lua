-- The fair queue of one model for all processes: `fair_queue.py` says what it does and why, and
-- a test holds the two against each other over random histories.
local ALIVE, HELD, SPARE, TOLD = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local TAGS, ORDER, WAITING, WEIGHTS, STATE = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local KNOWS = KEYS[10]
local SPARE_MOST, RATE_SECONDS, KEEP_SECONDS = 8, 10, 3600

local report = cjson.decode(ARGV[1])
local me, capacity, channel = report.process, report.capacity, ARGV[2]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
if ARGV[3] then now = tonumber(ARGV[3]) end -- a test's clock

local function exact(number) return string.format('%.17g', number) end
local function number(text) return tonumber(text or '0') end
local function field(name) return number(redis.call('HGET', STATE, name)) end
local time, busy, served, seen = field('time'), field('busy'), field('served'), field('seen')

local function key_of(ticket) return string.match(ticket, '^([^|]+)|') end
local function process_of(ticket) return string.match(ticket, '^[^|]+|[^|]+|([^|]+)|') end
local function cost_of(ticket) return tonumber(string.match(ticket, '|([^|]+)$')) end
local function weight_in(ticket) return tonumber(string.match(ticket, '|([^|]+)|[^|]+$')) end
-- All tickets of a key stand between `key|` and `key}`, the next character.
local function count(key)
  return redis.call('ZLEXCOUNT', WAITING, '[' .. key .. '|', '(' .. key .. '}')
end
local function tag_of(key) return number(redis.call('ZSCORE', TAGS, key)) end
local function weight_of(key) return number(redis.call('HGET', WEIGHTS, key)) end
local function waiting() return redis.call('ZCARD', WAITING) end
local function is_waiting(key) return redis.call('ZSCORE', ORDER, key) and true or false end

local function move(key, tag)
  redis.call('ZADD', TAGS, exact(tag), key)
  if is_waiting(key) then redis.call('ZADD', ORDER, exact(tag), key) end
end

local function withdraw(ticket)
  if redis.call('ZREM', WAITING, ticket) == 0 then return end
  local key = key_of(ticket)
  if count(key) == 0 then redis.call('ZREM', ORDER, key) end
end

local function tell(process, line)
  redis.call('HSET', TOLD, process, (redis.call('HGET', TOLD, process) or '') .. line .. '\n')
end

local function forget(process)
  redis.call('ZREM', ALIVE, process)
  redis.call('HDEL', HELD, process)
  redis.call('HDEL', SPARE, process)
  redis.call('HDEL', TOLD, process)
  redis.call('HDEL', KNOWS, process)
  for _, ticket in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do
    if process_of(ticket) == process then withdraw(ticket) end
  end
end

local function held()
  local sum = 0
  for _, places in ipairs(redis.call('HVALS', HELD)) do sum = sum + tonumber(places) end
  return sum
end

local function charge(one)
  local key, weight, tokens, starts = one[1], one[2], one[3], one[4]
  local tag = tag_of(key)
  if not is_waiting(key) then tag = math.max(tag, time) end
  if starts > 0 then
    time = math.max(time, tag + math.max(tokens * (starts - 1) / starts, 0) / weight)
  end
  move(key, tag + tokens / weight)
  redis.call('HSET', WEIGHTS, key, weight)
end

local function join(ticket)
  local key, weight = key_of(ticket), weight_in(ticket)
  if waiting() >= report.length then
    local load, longest = 0, key
    for _, name in ipairs(redis.call('ZRANGE', ORDER, 0, -1)) do
      local its = count(name) / weight_of(name)
      if its > load or (its == load and name > longest) then load, longest = its, name end
    end
    if load <= (count(key) + 1) / weight then return tell(process_of(ticket), '-' .. ticket) end
    local victim = redis.call('ZREVRANGEBYLEX', WAITING, '(' .. longest .. '}',
      '[' .. longest .. '|', 'LIMIT', 0, 1)[1]
    withdraw(victim)
    tell(process_of(victim), '-' .. victim)
  end
  local tag = tag_of(key)
  if not is_waiting(key) then
    tag = math.max(tag, time)
    redis.call('ZADD', TAGS, exact(tag), key)
    redis.call('ZADD', ORDER, exact(tag), key)
  end
  redis.call('HSET', WEIGHTS, key, weight)
  redis.call('ZADD', WAITING, 0, ticket)
end

local function let_in()
  local taken = held()
  while taken < capacity do
    local key = redis.call('ZRANGE', ORDER, 0, 0)[1]
    if not key then return end
    local ticket = redis.call('ZRANGEBYLEX', WAITING, '[' .. key .. '|', '(' .. key .. '}',
      'LIMIT', 0, 1)[1]
    local tag = tag_of(key)
    withdraw(ticket)
    time = math.max(time, tag)
    move(key, tag + cost_of(ticket) / weight_of(key))
    served, taken = served + 1, taken + 1
    redis.call('HINCRBY', HELD, process_of(ticket), 1)
    tell(process_of(ticket), '+' .. ticket .. '|' .. exact(tag))
  end
end

local function reserve()
  if waiting() > 0 or report.lease_seconds <= 0 then return 0, 0 end
  local has = report.held - report.used
  local share = math.floor((capacity - held() + has) / (2 * redis.call('ZCARD', ALIVE)))
  local reserved = math.max(0, math.min(SPARE_MOST, share))
  local spare = math.max(0, reserved - has)
  redis.call('HINCRBY', HELD, me, spare)
  redis.call('HINCRBY', SPARE, me, spare)
  return reserved, spare
end

local function rest()
  local used = held()
  for _, places in ipairs(redis.call('HVALS', SPARE)) do used = used - tonumber(places) end
  if used <= 0 and waiting() == 0 then
    local last = redis.call('ZREVRANGE', TAGS, 0, 0)[1]
    if last then time = math.max(time, tag_of(last)) end
  end
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', TAGS, '-inf', exact(time))) do
    if not is_waiting(key) then
      redis.call('ZREM', TAGS, key)
      redis.call('HDEL', WEIGHTS, key)
    end
  end
end

local function wake()
  local full = waiting() > 0
  if not full then redis.call('DEL', KNOWS) end
  if full and redis.call('ZSCORE', ALIVE, me) then redis.call('HSET', KNOWS, me, 1) end
  for _, process in ipairs(redis.call('ZRANGE', ALIVE, 0, -1)) do
    if process ~= me then
      local news = redis.call('HEXISTS', TOLD, process) == 1
      local asked = full and redis.call('HEXISTS', KNOWS, process) == 0
        and number(redis.call('HGET', HELD, process)) > 0
      if news or asked then
        if full then redis.call('HSET', KNOWS, process, 1) end
        redis.call('PUBLISH', channel .. process, full and 'full' or 'news')
      end
    end
  end
end

if waiting() > 0 then busy = busy + (now - seen) end
if busy > RATE_SECONDS then busy, served = busy / 2, served / 2 end
for _, process in ipairs(redis.call('ZRANGEBYSCORE', ALIVE, '-inf', '(' .. exact(now))) do
  if process ~= me then forget(process) end
end
local known = report.afresh or redis.call('ZSCORE', ALIVE, me)
local reserved, spare = 0, 0
if known then
  if report.afresh then forget(me) end
  redis.call('ZADD', ALIVE, exact(now + report.lease_seconds), me)
  local granted = 0
  for line in string.gmatch(redis.call('HGET', TOLD, me) or '', '[^\n]+') do
    if string.sub(line, 1, 1) == '+' then granted = granted + 1 end
  end
  redis.call('HSET', HELD, me, report.held + granted)
  redis.call('HSET', SPARE, me, report.held - report.used)
  for _, ticket in ipairs(report.gone) do withdraw(ticket) end
  for _, one in ipairs(report.charges) do charge(one) end
  for _, ticket in ipairs(report.joins) do join(ticket) end
  if report.lease_seconds <= 0 then forget(me) end
  let_in()
  reserved, spare = reserve()
  rest()
  wake()
end
redis.call('HSET', STATE, 'time', exact(time), 'busy', exact(busy), 'served', exact(served),
  'seen', exact(now))
for _, name in ipairs(KEYS) do redis.call('EXPIRE', name, KEEP_SECONDS) end
if not known then return cjson.encode({known = false}) end

local told, lines, ranks = redis.call('HGET', TOLD, me) or '', {}, {}
redis.call('HDEL', TOLD, me)
for _, key in ipairs(redis.call('ZRANGE', ORDER, 0, -1)) do
  lines[#lines + 1] = {key, exact(tag_of(key)), weight_of(key), count(key)}
end
for _, ticket in ipairs(report.asks) do
  if redis.call('ZSCORE', WAITING, ticket) then
    ranks[#ranks + 1] = {ticket, redis.call('ZLEXCOUNT', WAITING,
      '[' .. key_of(ticket) .. '|', '(' .. ticket)}
  end
end
return cjson.encode({known = true, told = told, reserve = reserved, spare = spare, waiting = waiting(),
  processes = redis.call('ZCARD', ALIVE), time = exact(time),
  rate = exact(busy >= 1 and served / busy or 0), lines = lines, ranks = ranks})
