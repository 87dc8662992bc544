"""Scenarios for locust whose simulated customers check every answer of the shop.

Each of `midnight_spike.py`, `steady_trade.py` and `browse_order_poll.py` is a locustfile:

    locust -f loadtest/scenarios/midnight_spike.py --host http://127.0.0.1:8080 --headless -u 2000 -r 500 -t 60s

A broken promise is a failure in locust's table, a line in its log, and exit status 1. An expected refusal (sold out,
over the limit, too many requests, overloaded) is no failure; it has its own line in the table, named by its code. A
broken connection is a failure as with any locustfile, and no broken promise: use `--exit-code-on-error 0` for runs in
which servers are killed on purpose.

Do not change the terms of the sale during a run. Tokens are signed with the key in the settings, as by `floodgate token
user`, so the settings must be those of the shop: on one machine, its FLOODGATE_DATA_DIR.

One locust process keeps about a thousand connections; every further user connects again for each request. For more
users, or for more load than one core can send, add `--processes`. The spike ends automatically only in a single
process.
"""
