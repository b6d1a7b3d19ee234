# The bridge: `docker build -t tds-bridge:0.1.0 .` (docker-compose.yml does it). What is locked in requirements/run.lock and the sources,
# nothing else: no compiler, no pip at run time, nobody's root.
FROM python:3.13.11-slim AS dependencies
RUN python -m venv --without-pip /opt/bridge
COPY requirements/run.lock /tmp/run.lock
# Wheels only: nothing is built, and every byte is one that the lock names.
RUN pip --python /opt/bridge/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary=:all: -r /tmp/run.lock

FROM python:3.13.11-slim
# Its folders belong to it, so that named volumes that are mounted there do too: /var/lib/bridge is this replica's own (answers over
# a restart), /var/lib/tds the trading system's (DuckDB snapshots), /backups what `bridge backup` writes.
RUN groupadd --gid 10001 bridge \
 && useradd --uid 10001 --gid bridge --no-create-home --home-dir /var/lib/bridge --shell /usr/sbin/nologin bridge \
 && install --directory --owner=bridge --group=bridge /var/lib/bridge /var/lib/tds /var/lib/tds/snapshots /backups
COPY --from=dependencies /opt/bridge /opt/bridge
WORKDIR /srv/bridge
COPY app app
COPY demo demo
COPY provisioning/bridge.yaml provisioning/bridge.yaml
COPY provisioning/catalog provisioning/catalog
ENV PATH=/opt/bridge/bin:$PATH PYTHONUNBUFFERED=1
RUN python -m compileall -q app demo
ENV PYTHONDONTWRITEBYTECODE=1 BRIDGE_HTTP__HOST=0.0.0.0 BRIDGE_AGENT__HOST=0.0.0.0 BRIDGE_LOG_STYLE=json BRIDGE_STATE=/var/lib/bridge
USER 10001:10001
EXPOSE 8080 8081
# Ready, not only alive: while it drains HAProxy and compose should both see it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
