-- wrk's part of benchmarks/serving_load.py: POST a file, and print one line of JSON at the end.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  for place = 2, #args, 2 do
    wrk.headers[args[place]] = args[place + 1]
  end
  file:close()
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "errors": '
      .. '{"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
