"""Scenarios for locust whose simulated customers check every answer of the shop.

Each of `midnight_spike.py`, `impatient_crowd.py`, `steady_trade.py`, `browse_order_poll.py`, `cart_and_checkout.py`
and `order_and_pay.py` is a locustfile:

    locust -f loadtest/scenarios/midnight_spike.py --host http://127.0.0.1:8080 --headless -u 2000 -r 500 -t 60s

`make loadtest` runs one against the shop of `make run` and writes a page with charts (`--html`) and CSV files.
With `--step-users 100 --step-s 30` the users rise in steps, up to `-u`, until `-t` or one step after the last.

Exit status:

* 0: no broken promise, no failure.
* 1: a broken promise, with a line in the log; or a failure in locust's table.
* 2: an option that does not exist or has a wrong value.
* 3: a fault in the set-up, such as a wrong key, sale or address: one line `cannot run: …` on standard error.

An expected refusal (sold out, over the limit, too many requests, overloaded) is no failure; it has its own line in the
table, named by its code. A broken connection is a failure as with any locustfile, and no broken promise: use
`--exit-code-on-error 0` for runs in which servers are killed on purpose.

Do not change the terms of the sale during a run. Tokens are signed with the key in the settings, as by `floodgate token
user`, so the settings must be those of the shop: on one machine, its FLOODGATE_DATA_DIR.

One locust process keeps about a thousand connections; every further user connects again for each request. For more
users, or for more load than one core can send, add `--processes`.
"""
