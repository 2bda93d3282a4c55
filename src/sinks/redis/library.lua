#!lua name=thmanyah

-- The functions behind the Redis sink: what it writes with, and what any client reads with.
--
-- Keys, all with the hash tag of KEYS[1], so that they are in one slot of a cluster. P is a partition of the enriched topic;
-- a generation names one build of a partition's part, so that a part is cleared by giving it a new one.
--   {thm}:fences                    hash: P:topic, P:next (offset), P:generation, P:since (ms), P:rebuild_to (offset), P:torn,
--                                   and partitions, how many there are to be
--   {thm}:board:P:GENERATION:BUCKET sorted set: content -> milliseconds of one bucket of event time
--   {thm}:day:DATE:CONTENT          hash: P -> "GENERATION play pause finish click milliseconds", users -> their number
--   {thm}:users:TOPIC:DATE:CONTENT  HyperLogLog of the users. Of all partitions: adding a user again changes nothing, so a
--                                   part that is built anew leaves it right.
-- Numbers are doubles here, exact up to 2^53, and are written without an exponent.
--
-- IMPORTANT: a newer version takes the calls of the version before it: while instances are replaced one by one, the older
-- ones call it.

local VERSION = 1
local DIGEST = '@DIGEST@'

local BUCKET_MS = 10000
local WINDOW_BUCKETS = 60
-- A bucket is kept for an hour after its end: boards of moments up to 50 minutes ago can be asked for.
local BUCKET_KEPT_MS = 3600000
-- More keys than this do not fit on Lua's stack in one call.
local MOST_KEYS = 7000
local PARTS = { 'play', 'pause', 'finish', 'click', 'engagement_ms' }

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- A whole number of at most 15 digits, or nothing.
local function integer(argument)
  if argument and #argument <= 16 and string.match(argument, '^%-?%d+$') then
    return tonumber(argument)
  end
end

local function fences_key(prefix)
  return prefix .. ':fences'
end

local function board_key(prefix, partition, generation, bucket)
  return prefix .. ':board:' .. partition .. ':' .. generation .. ':' .. bucket
end

local function day_key(prefix, date, content)
  return prefix .. ':day:' .. date .. ':' .. content
end

-- All fences: partition -> field -> value, and how many there are to be, if that is known.
local function read_fences(prefix)
  local flat = redis.call('HGETALL', fences_key(prefix))
  local fences, expected = {}, nil
  for at = 1, #flat, 2 do
    local partition, field = string.match(flat[at], '^(%d+):([%a_]+)$')
    if partition then
      fences[partition] = fences[partition] or {}
      fences[partition][field] = flat[at + 1]
    elseif flat[at] == 'partitions' then
      expected = tonumber(flat[at + 1])
    end
  end
  return fences, expected
end

local function is_whole(fence)
  return fence and fence.topic and fence.next and fence.generation
end

local function drop_fence(prefix, partition, fence)
  for field in pairs(fence) do
    redis.call('HDEL', fences_key(prefix), partition .. ':' .. field)
  end
end

-- Takes a partition over: PARTITION TOPIC LOG_START LOG_END GENERATION PARTITIONS [AHEAD] -> what happened, offset to read from,
-- now in ms, whether it is being rebuilt, and how many offsets were deleted unread. PARTITIONS is how many the topic has.
-- Where the fence cannot be gone on from, the part of the partition is cleared: GENERATION must never have been used.
-- A fence beyond the log's end is so where the log lost records, and where who had the partition went on after the end was
-- asked for. It is cleared only if it stands at AHEAD, where a call with an older end found it: the log did not get there.
local function open(keys, args)
  local prefix, partition, topic, log_start, log_end, generation, partitions, ahead =
    keys[1], args[1], args[2], args[3], args[4], args[5], args[6], args[7]
  local fences = read_fences(prefix)
  local fence = fences[partition]
  redis.call('HSET', fences_key(prefix), 'partitions', partitions)
  local cleared
  if not is_whole(fence) then
    cleared = 'missing'
  elseif fence.topic ~= topic then
    cleared = 'other-topic'
  elseif fence.torn then
    cleared = 'torn'
  elseif tonumber(fence.next) > tonumber(log_end) then
    if fence.next ~= ahead then
      return { 'beyond', tonumber(fence.next), now_ms(), 0, 0 }
    end
    cleared = 'ahead'
  end
  if cleared then
    -- A topic that was made anew has other events; nothing of the one before it counts any more.
    for other, held in pairs(fences) do
      if other == partition or held.topic ~= topic then
        drop_fence(prefix, other, held)
      end
    end
    redis.call('HSET', fences_key(prefix), partition .. ':topic', topic, partition .. ':next', log_start,
      partition .. ':generation', generation)
    local rebuilding = tonumber(log_end) > tonumber(log_start)
    if rebuilding then
      redis.call('HSET', fences_key(prefix), partition .. ':rebuild_to', log_end)
    end
    return { cleared, tonumber(log_start), now_ms(), rebuilding and 1 or 0, 0 }
  end
  local rebuilding = fence.rebuild_to and 1 or 0
  local lost = tonumber(log_start) - tonumber(fence.next)
  if lost > 0 then
    -- It counts without a gap only from here on.
    redis.call('HSET', fences_key(prefix), partition .. ':next', log_start)
    redis.call('HDEL', fences_key(prefix), partition .. ':since')
    return { 'gap', tonumber(log_start), now_ms(), rebuilding, lost }
  end
  return { 'resumed', tonumber(fence.next), now_ms(), rebuilding, 0 }
end

-- A key lives at least until that moment.
local function keep_until(key, seconds)
  if redis.call('EXPIRETIME', key) < seconds then
    redis.call('EXPIREAT', key, seconds)
  end
end

-- Adds the buckets that begin at args[at]: how many, then for each its number, how many contents, content and milliseconds of
-- each. Gives the place behind them.
local function add_to_board(prefix, partition, generation, now, args, at)
  local buckets = tonumber(args[at])
  at = at + 1
  for _ = 1, buckets do
    local bucket, contents = args[at], tonumber(args[at + 1])
    at = at + 2
    local ends = (tonumber(bucket) + 1) * BUCKET_MS + BUCKET_KEPT_MS
    if ends > now then
      local key = board_key(prefix, partition, generation, bucket)
      for of = at, at + 2 * (contents - 1), 2 do
        redis.call('ZINCRBY', key, args[of + 1], args[of])
      end
      redis.call('PEXPIREAT', key, text(ends))
    end
    at = at + 2 * contents
  end
  return at
end

-- The counts of a partition, where they are of this generation; else nothing counted.
local function counts_of(packed, generation)
  local counts = { 0, 0, 0, 0, 0 }
  if packed then
    local found = { string.match(packed, '^(%S+) (%d+) (%d+) (%d+) (%d+) (%d+)$') }
    if found[1] == generation then
      for part = 1, #PARTS do
        counts[part] = tonumber(found[part + 1])
      end
    end
  end
  return counts
end

-- Adds the counters that begin at args[at]: how many, then for each content, date, until when it is kept (seconds), the five
-- counts, how many users, and the users.
local function add_to_counters(prefix, partition, topic, generation, now, args, at)
  local counters = tonumber(args[at])
  at = at + 1
  for _ = 1, counters do
    local content, date, kept_until, users = args[at], args[at + 1], tonumber(args[at + 2]), tonumber(args[at + 8])
    if kept_until * 1000 > now then
      local key = day_key(prefix, date, content)
      local held = redis.call('HMGET', key, partition, 'users')
      local counts = counts_of(held[1], generation)
      for part = 1, #PARTS do
        counts[part] = text(counts[part] + tonumber(args[at + 2 + part]))
      end
      redis.call('HSET', key, partition, generation .. ' ' .. table.concat(counts, ' '))
      if users > 0 then
        local users_key = prefix .. ':users:' .. topic .. ':' .. date .. ':' .. content
        local changed = redis.call('PFADD', users_key, unpack(args, at + 9, at + 8 + users))
        -- Counted here, as reading functions may not: PFCOUNT keeps its result in the key.
        if changed == 1 or not held[2] then
          redis.call('HSET', key, 'users', redis.call('PFCOUNT', users_key))
        end
        keep_until(users_key, kept_until)
      end
      keep_until(key, kept_until)
    end
    at = at + 9 + users
  end
end

-- What keeps a fence from standing there, if anything does.
local function hindrance(topic, from, held_topic, held_next, generation, torn)
  if not (held_topic and held_next and generation) then
    return 'missing'
  end
  if torn then
    return 'torn'
  end
  if held_topic ~= topic or held_next ~= from then
    return 'refused'
  end
end

-- Applies a batch, if the fence stands where it begins: PARTITION TOPIC FROM TO SINCE, the buckets, the counters -> what became
-- of it, now in ms, whether the partition is still being rebuilt.
local function apply(keys, args)
  local prefix, partition, topic, from, to, since = keys[1], args[1], args[2], args[3], args[4], args[5]
  local key = fences_key(prefix)
  local of = function(field) return partition .. ':' .. field end
  local held = redis.call('HMGET', key, of('topic'), of('next'), of('generation'), of('torn'), of('rebuild_to'))
  local generation, rebuild_to = held[3], held[5]
  local hindered = hindrance(topic, from, held[1], held[2], generation, held[4])
  if hindered then
    return { hindered, 0, 0 }
  end
  local now = now_ms()
  -- IMPORTANT: an error inside a function undoes nothing. Should one strike below, the mark stays, and the partition is built anew.
  redis.call('HSET', key, of('torn'), 1)
  local at = add_to_board(prefix, partition, generation, now, args, 6)
  add_to_counters(prefix, partition, topic, generation, now, args, at)
  redis.call('HSETNX', key, of('since'), since)
  redis.call('HSET', key, of('next'), to)
  local rebuilding = rebuild_to and tonumber(rebuild_to) > tonumber(to)
  if rebuild_to and not rebuilding then
    redis.call('HDEL', key, of('rebuild_to'))
  end
  redis.call('HDEL', key, of('torn'))
  return { 'applied', now, rebuilding and 1 or 0 }
end

-- Whether the fence still stands there: PARTITION TOPIC NEXT -> 'whole', or what is wrong.
local function check(keys, args)
  local of = function(field) return args[1] .. ':' .. field end
  local held = redis.call('HMGET', fences_key(keys[1]), of('topic'), of('next'), of('generation'), of('torn'))
  return hindrance(args[2], args[3], held[1], held[2], held[3], held[4]) or 'whole'
end

-- A rebuild has reached the end of its log, where no record need stand: PARTITION TOPIC NEXT -> 1 if that is where the fence is.
local function caught_up(keys, args)
  local key = fences_key(keys[1])
  local of = function(field) return args[1] .. ':' .. field end
  local held = redis.call('HMGET', key, of('topic'), of('next'))
  if held[1] ~= args[2] or held[2] ~= args[3] then
    return 0
  end
  redis.call('HDEL', key, of('rebuild_to'))
  return 1
end

-- Does once whatever writing does, on a key that nobody reads: who may not do it hears of it before anything is half done.
local function probe(keys)
  local key = keys[1] .. ':probe'
  redis.call('UNLINK', key)
  redis.call('HSET', key, 'field', 1)
  redis.call('HSETNX', key, 'other', 1)
  redis.call('HMGET', key, 'field')
  redis.call('HGETALL', key)
  redis.call('HDEL', key, 'field', 'other')
  redis.call('ZINCRBY', key, 1, 'content')
  redis.call('PEXPIREAT', key, text(now_ms() + 60000))
  redis.call('EXPIREAT', key, text(math.floor(now_ms() / 1000) + 60))
  redis.call('EXPIRETIME', key)
  redis.call('UNLINK', key)
  redis.call('PFADD', key, 'user')
  redis.call('PFCOUNT', key)
  redis.call('UNLINK', key)
  return 1
end

-- Sums of several lists of content and milliseconds, as one list in the order of ZUNION: by milliseconds, then by content.
local function sum_up(lists)
  local sums, contents = {}, {}
  for _, list in ipairs(lists) do
    for at = 1, #list, 2 do
      local content = list[at]
      if not sums[content] then
        sums[content] = 0
        contents[#contents + 1] = content
      end
      sums[content] = sums[content] + tonumber(list[at + 1])
    end
  end
  table.sort(contents, function(a, b)
    return sums[a] < sums[b] or (sums[a] == sums[b] and a < b)
  end)
  local flat = {}
  for _, content in ipairs(contents) do
    flat[#flat + 1] = content
    flat[#flat + 1] = text(sums[content])
  end
  return flat
end

-- The last of a list as ZUNION gives it, the most milliseconds first, equal ones by content.
local function best_of(list, limit)
  local best, last = {}, #list - 1
  while last >= 1 and #best < 2 * limit do
    local first = last
    while first > 2 and list[first - 1] == list[last + 1] do
      first = first - 2
    end
    for at = first, last, 2 do
      if #best < 2 * limit then
        best[#best + 1] = list[at]
        best[#best + 1] = tonumber(list[at + 1])
      end
    end
    last = first - 2
  end
  return best
end

-- The board: LIMIT [AT_MS] -> content, milliseconds, ...
local function top(keys, args)
  local limit = integer(args[1])
  local at = now_ms()
  if args[2] then
    at = integer(args[2])
  end
  if not limit or limit < 0 or not at or args[3] then
    return redis.error_reply('ERR usage: FCALL_RO thmanyah_top 1 {prefix} LIMIT [AT_MS]')
  end
  local last = math.floor(at / BUCKET_MS)
  local lists, wanted = {}, {}
  local union = function()
    if #wanted > 0 then
      local call = { 'ZUNION', #wanted }
      for _, key in ipairs(wanted) do
        call[#call + 1] = key
      end
      call[#call + 1] = 'WITHSCORES'
      lists[#lists + 1] = redis.call(unpack(call))
      wanted = {}
    end
  end
  for partition, fence in pairs(read_fences(keys[1])) do
    if is_whole(fence) then
      if #wanted + WINDOW_BUCKETS > MOST_KEYS then
        union()
      end
      for back = 0, WINDOW_BUCKETS - 1 do
        wanted[#wanted + 1] = board_key(keys[1], partition, fence.generation, text(last - back))
      end
    end
  end
  union()
  return best_of(#lists == 1 and lists[1] or sum_up(lists), limit)
end

-- Since when everything is counted, how many partitions are still being rebuilt or are still to be, so that it is not yet,
-- and how many have a fence. Where it was lost how many there are to be, one is missing at least.
local function completeness(fences, expected)
  local since, complete, partitions = 0, 0, 0
  for _, fence in pairs(fences) do
    partitions = partitions + 1
    since = math.max(since, tonumber(fence.since or 0))
    if is_whole(fence) and not fence.torn and not fence.rebuild_to then
      complete = complete + 1
    end
  end
  return since, math.max((expected or partitions + 1) - complete, 0), partitions
end

-- Counters of one content and UTC day: CONTENT_ID YYYY-MM-DD -> name, value, ...
local function content(keys, args)
  if not args[2] or args[3] or not string.match(args[2], '^%d%d%d%d%-%d%d%-%d%d$') then
    return redis.error_reply('ERR usage: FCALL_RO thmanyah_content 1 {prefix} CONTENT_ID YYYY-MM-DD')
  end
  local fences, expected = read_fences(keys[1])
  local flat = redis.call('HGETALL', day_key(keys[1], args[2], string.lower(args[1])))
  local sums, users = { 0, 0, 0, 0, 0 }, 0
  for at = 1, #flat, 2 do
    local fence = fences[flat[at]]
    if flat[at] == 'users' then
      users = tonumber(flat[at + 1])
    elseif is_whole(fence) then
      for part, count in ipairs(counts_of(flat[at + 1], fence.generation)) do
        sums[part] = sums[part] + count
      end
    end
  end
  local since, rebuilding = completeness(fences, expected)
  local reply = {}
  for part, name in ipairs(PARTS) do
    reply[#reply + 1] = name
    reply[#reply + 1] = sums[part]
  end
  for _, value in ipairs({ 'unique_users', users, 'since_ms', since, 'rebuilding', rebuilding }) do
    reply[#reply + 1] = value
  end
  return reply
end

-- How complete all this is -> name, value, ...
local function status(keys)
  local since, rebuilding, partitions = completeness(read_fences(keys[1]))
  return { 'partitions', partitions, 'rebuilding', rebuilding, 'since_ms', since, 'now_ms', now_ms() }
end

local function version()
  return { VERSION, DIGEST }
end

redis.register_function('thmanyah_open', open)
redis.register_function('thmanyah_apply', apply)
redis.register_function('thmanyah_caught_up', caught_up)
redis.register_function('thmanyah_probe', probe)
redis.register_function({ function_name = 'thmanyah_check', callback = check, flags = { 'no-writes' } })
redis.register_function({ function_name = 'thmanyah_top', callback = top, flags = { 'no-writes' } })
redis.register_function({ function_name = 'thmanyah_content', callback = content, flags = { 'no-writes' } })
redis.register_function({ function_name = 'thmanyah_status', callback = status, flags = { 'no-writes' } })
redis.register_function({ function_name = 'thmanyah_version', callback = version, flags = { 'no-writes' } })
