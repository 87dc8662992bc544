"""Crowds for locust that check what they are told.

Each of `midnight_spike.py`, `steady_trade.py` and `browse_order_poll.py` is a locustfile:

    locust -f loadtest/scenarios/midnight_spike.py --host http://127.0.0.1:8080 --headless -u 2000 -r 500 -t 60s

A broken promise is a failure in locust's table, a line in its log, and exit status 1. A refusal that may be (sold out,
over the limit, too many requests, overloaded) is none; it has a line of its own in the table, named by its code. A
connection that breaks is a failure as with any locustfile, and no broken promise: `--exit-code-on-error 0` lets it
pass, for runs in which servers are killed on purpose.

The terms of the sale must not be changed during a run. Tokens are made with the signing key in the settings, as
`floodgate token user` does, so the settings must be those of the shop: on one machine, its FLOODGATE_DATA_DIR.

One locust process keeps about a thousand connections; each further user connects anew for every request. For more
users, or for more than a core can send, add `--processes`. The spike ends by itself only in a single process.
"""
