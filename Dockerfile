# One image for every process of a city: `docker run citybrain worker`, `… historian`, `… centre`.
# Bases are pinned by exact tag; whoever mirrors them pins the digest of what was mirrored.

FROM node:22.20.0-bookworm-slim AS page
WORKDIR /src
COPY scripts/page-libraries.sh scripts/
COPY dashboards/page/package.json dashboards/page/package-lock.json dashboards/page/
RUN bash scripts/page-libraries.sh

FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/build.lock requirements/image.lock /requirements/
RUN python -m venv /build && /build/bin/pip install --require-hashes -r /requirements/build.lock \
 && python -m venv /opt/citybrain \
 && /opt/citybrain/bin/pip install --require-hashes -r /requirements/image.lock
COPY . /src
COPY --from=page /src/dashboards/page/vendor /src/dashboards/page/vendor
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel /src \
 && /opt/citybrain/bin/pip install --no-deps --no-index /wheel/*.whl

FROM python:3.12.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin citybrain \
 && install -d -o citybrain -g citybrain /data /data/centre /data/edge /data/history /data/run /data/secrets
COPY --from=build /opt/citybrain /opt/citybrain
ENV PATH=/opt/citybrain/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CITYBRAIN_DATA=/data \
    CITYBRAIN_METRICS=0.0.0.0:9100
USER citybrain
WORKDIR /data
EXPOSE 8040 8600 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/health', timeout=4)"]
ENTRYPOINT ["citybrain"]
CMD ["--help"]
