-- A vendor that speaks OpenAI's chat completions, inside nginx with one worker: so this file's locals are its state.
--
-- A prompt says how many tokens it has as `[0241] ...` (see data.py), so the usage is right without a tokenizer.
-- GET /stats tells what was seen since the last GET /reset.

local options = ... -- what serve.py wrote into the configuration
local content, completion_tokens = options.content, options.completion_tokens
local sleep, random, log, sqrt, cos, exp = ngx.sleep, math.random, math.log, math.sqrt, math.cos, math.exp
local find, format, floor = string.find, string.format, math.floor
local ANSWER = '{"id":"chatcmpl-%d","object":"chat.completion","created":1764000000,"model":"%s","choices":'
    .. '[{"index":0,"message":{"role":"assistant","content":"%s","refusal":null},"logprobs":null,'
    .. '"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'

local seen

local function reset()
    seen = { requests = 0, refused = 0, tokens = 0, slept = 0, first = 0, last = 0, in_flight = 0, most_in_flight = 0,
             tenths = {}, level = nil, filled = 0 }
end
reset()

-- A bucket of a tenth of a second, and of the largest request: refilled all the time, starts full.
local function admit(now, amount)
    local rate = options.per_minute / 60
    local burst = options.burst
    seen.level = math.min(burst, (seen.level or burst) + (now - seen.filled) * rate)
    seen.filled = now
    if seen.level < amount - 1e-6 then
        return (amount - seen.level) / rate
    end
    seen.level = seen.level - amount
end

local function latency()
    if options.sigma == 0 then
        return options.median
    end
    return options.median * exp(options.sigma * sqrt(-2 * log(1 - random())) * cos(2 * math.pi * random()))
end

local function refuse(wait)
    seen.refused = seen.refused + 1
    ngx.status = 429
    ngx.header["retry-after-ms"] = math.ceil(wait * 1000)
    ngx.print('{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}')
end

local function serve()
    ngx.update_time()
    local now = ngx.now()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local _, _, model = find(body, '"model": ?"([^"]+)"')
    local _, _, counted = find(body, "%[(%d%d%d%d%d)%]")
    local prompt_tokens = tonumber(counted or 0) + options.overhead
    local tokens = prompt_tokens + completion_tokens
    ngx.header.content_type = "application/json"
    if options.per_minute > 0 then
        local wait = admit(now, options.count_tokens and tokens or 1)
        if wait then
            return refuse(wait)
        end
    end
    if seen.requests == 0 then
        seen.first = now
    end
    seen.requests, seen.last, seen.tokens = seen.requests + 1, now, seen.tokens + tokens
    local tenth = floor((now - seen.first) * 10)
    seen.tenths[tenth] = (seen.tenths[tenth] or 0) + (options.count_tokens and tokens or 1)
    if options.median > 0 then
        local seconds = latency()
        seen.slept = seen.slept + seconds
        seen.in_flight = seen.in_flight + 1
        seen.most_in_flight = math.max(seen.most_in_flight, seen.in_flight)
        sleep(seconds)
        seen.in_flight = seen.in_flight - 1
    end
    local answer = format(ANSWER, seen.requests, model, content, prompt_tokens, completion_tokens, tokens)
    ngx.header.content_length = #answer
    ngx.print(answer)
end

local function stats()
    local last, listed = -1, {}
    for tenth in pairs(seen.tenths) do
        last = math.max(last, tenth)
    end
    for tenth = 0, last do
        listed[#listed + 1] = seen.tenths[tenth] or 0
    end
    ngx.header.content_type = "application/json"
    ngx.print(format(
        '{"requests":%d,"refused":%d,"tokens":%d,"slept":%.6f,"first":%.3f,"last":%.3f,"most_in_flight":%d,"tenths":[%s]}',
        seen.requests, seen.refused, seen.tokens, seen.slept, seen.first, seen.last, seen.most_in_flight,
        table.concat(listed, ",")))
end

return { serve = serve, stats = stats, reset = reset }
