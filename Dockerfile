# One image for all processes of Floodgate; the arguments choose the process.
#
#   docker build --tag floodgate .
#   docker build --tag floodgate-orders --build-arg LOCK=orders .    # smaller: no printing, no route planning
#   docker run --rm --env REDIS_URL --env DATABASE_URL floodgate migrate
#   docker run --env-file shop.env --stop-timeout 30 --publish 8080:8080 floodgate gateway
#   docker run --env-file shop.env --stop-timeout 30 floodgate worker order_writer
#
# After SIGTERM a gateway or worker finishes its work in progress within limits.graceful_stop_s (20 seconds). Docker
# waits for 10 seconds only, hence --stop-timeout.

# The same Python with a C compiler, which the last stage does not have.
FROM python:3.11-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Only wheels, and only those whose hashes are in the lock: nothing of others is compiled and no code of a package is run.
# The locks are copied before the sources, so that these layers are built again only when a lock changes.
ARG LOCK=production
COPY requirements/ requirements/
RUN python -m venv --without-pip /opt/floodgate \
    && python -m pip --python /opt/floodgate/bin/python install --require-hashes --only-binary :all: \
        --requirement requirements/${LOCK}.lock

# hatchling, which builds our wheel, and mypy with setuptools, which compile the order path in it, with their
# dependencies. dev.lock has them with their hashes. If one needs another package one day, pip fails here and names it.
RUN awk '/^[a-z]/ {wanted = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers|ast-serialize|librt|mypy|mypy-extensions|setuptools|typing-extensions)==/} wanted' \
        requirements/dev.lock > requirements/build.lock \
    && python -m pip install --require-hashes --only-binary :all: --requirement requirements/build.lock

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY commerce/ commerce/
COPY config/ config/
COPY gateway/ gateway/
COPY loadtest/ loadtest/
COPY lua/ lua/
COPY migrations/ migrations/
COPY ops/ ops/
COPY workers/ workers/
# mypy reads the types of the packages that the wheel will run with. Empty, the order path is interpreted.
ARG COMPILE_FOR=/opt/floodgate/bin/python
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/floodgate/bin/python install --no-index --no-deps dist/floodgate-*.whl


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="floodgate" \
      org.opencontainers.image.description="An order system for flash sales" \
      org.opencontainers.image.licenses="Apache-2.0"

# A running shop does not use the base image's pip. The uid is fixed, and USER names it by number: volumes can be
# prepared for it, and an orchestrator can check that it is not root.
RUN python -m pip uninstall --yes setuptools wheel pip \
    && groupadd --gid 10001 floodgate \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/floodgate \
        --shell /usr/sbin/nologin floodgate \
    && install --directory --owner floodgate --group floodgate /var/lib/floodgate
COPY --from=builder /opt/floodgate /opt/floodgate

# By default Floodgate listens on 127.0.0.1, which is not reachable from outside the container. The admin port serves
# /v1/admin and /metrics: publish 8080 and keep 8081 internal. Workers serve metrics only on the port of
# FLOODGATE_OBSERVER__WORKER_METRICS_PORT; in their own container they may use 8081.
ENV PATH=/opt/floodgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FLOODGATE_DATA_DIR=/var/lib/floodgate \
    FLOODGATE_HTTP__HOST=0.0.0.0 \
    FLOODGATE_HTTP__ADMIN_HOST=0.0.0.0
WORKDIR /var/lib/floodgate
USER 10001:10001
EXPOSE 8080 8081

# There is no HEALTHCHECK: it would apply to every process, and a worker, which serves no HTTP, would never be healthy.
# Configure the orchestrator per process. A gateway gets traffic while GET :8080/health/ready returns 200. Restart it
# only if GET :8080/health/live does not return 200. Never restart it because it is not ready: an unreachable Redis
# would then stop all gateways. If the orchestrator needs a command instead of a request:
#   python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/ready', timeout=5)"
# A worker that cannot continue ends, so it is enough to restart ended workers; the metrics show if work is done.
ENTRYPOINT ["floodgate"]
CMD ["--help"]
