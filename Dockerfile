# One image for every part of Floodgate; the arguments say which part a container is.
#
#   docker build --tag floodgate .
#   docker build --tag floodgate-orders --build-arg LOCK=orders .    # a smaller one: no printing, no route planning
#   docker run --rm --env REDIS_URL --env DATABASE_URL floodgate migrate
#   docker run --env-file shop.env --stop-timeout 30 --publish 8080:8080 floodgate gateway
#   docker run --env-file shop.env --stop-timeout 30 floodgate worker order_writer
#
# A gateway and a worker finish what they have in hand for up to limits.graceful_stop_s (20) after SIGTERM, which is
# longer than Docker's 10 seconds: hence --stop-timeout.

FROM python:3.11-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Only wheels, and only those whose hashes are in the lock: nothing is compiled here and no package's code is run.
# The locks come before the sources, so that these layers are built again only when a lock changes.
ARG LOCK=production
COPY requirements/ requirements/
RUN python -m venv --without-pip /opt/floodgate \
    && python -m pip --python /opt/floodgate/bin/python install --require-hashes --only-binary :all: \
        --requirement requirements/${LOCK}.lock

# hatchling, which builds our wheel, and what it needs. run.lock holds them with their hashes, between embedded servers
# that an image has no use for. Should hatchling come to need another package, pip stops here and names it.
RUN awk '/^[a-z]/ {wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/} wanted' \
        requirements/run.lock > requirements/build.lock \
    && python -m pip install --require-hashes --only-binary :all: --requirement requirements/build.lock

COPY pyproject.toml README.md LICENSE ./
COPY commerce/ commerce/
COPY config/ config/
COPY gateway/ gateway/
COPY loadtest/ loadtest/
COPY lua/ lua/
COPY migrations/ migrations/
COPY ops/ ops/
COPY workers/ workers/
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/floodgate/bin/python install --no-index --no-deps dist/floodgate-*.whl


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="floodgate" \
      org.opencontainers.image.description="An order system for flash sales" \
      org.opencontainers.image.licenses="Apache-2.0"

# The base image's own pip is of no use to a running shop. The uid is fixed and given as a number below, so that volumes
# can be prepared for it and an orchestrator can see that it is not root.
RUN python -m pip uninstall --yes setuptools wheel pip \
    && groupadd --gid 10001 floodgate \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/floodgate \
        --shell /usr/sbin/nologin floodgate \
    && install --directory --owner floodgate --group floodgate /var/lib/floodgate
COPY --from=builder /opt/floodgate /opt/floodgate

# Floodgate listens on 127.0.0.1 unless it is told otherwise, which nobody outside of a container could reach. The admin
# port serves /v1/admin and /metrics: publish 8080 to the world and keep 8081 on the inside. Workers show metrics only
# where FLOODGATE_OBSERVER__WORKER_METRICS_PORT says; in a container of their own 8081 is free for them.
ENV PATH=/opt/floodgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FLOODGATE_DATA_DIR=/var/lib/floodgate \
    FLOODGATE_HTTP__HOST=0.0.0.0 \
    FLOODGATE_HTTP__ADMIN_HOST=0.0.0.0
WORKDIR /var/lib/floodgate
USER 10001:10001
EXPOSE 8080 8081

# There is no HEALTHCHECK, since it would hold for every part: a worker answers no HTTP and would be unhealthy for ever.
# Let the orchestrator ask by part. A gateway gets traffic while GET :8080/health/ready gives 200, and is started anew
# only if GET :8080/health/live gives none; never because it is not ready, or a Redis that is away for a moment takes
# all gateways with it. Where a command is wanted in place of a request:
#   python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/ready', timeout=5)"
# A worker ends when it cannot go on, so restarting what has ended is enough; whether work gets done the metrics show.
ENTRYPOINT ["floodgate"]
CMD ["--help"]
