-- The end of wrk's scripts: the result as one line of JSON, in seconds.

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"seconds": %.6f, "requests": %d, "refused": %d, "failed": %d, "p50": %.6f, "p99": %.6f}\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
