# syntax=docker/dockerfile:1
# Every image of docker-compose.yml that is made here, one target each. RocksDB is compiled from source and linked in.

FROM rust:1.95.0-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --profile image -p thmanyah -p thmanyah-tools \
    && mkdir /programs \
    && cp target/image/thmanyah target/image/data-generator target/image/external-system-mock /programs/

FROM debian:12.11-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/thmanyah --create-home thmanyah
USER thmanyah

# The processor.
FROM base AS thmanyah
COPY --from=build /programs/thmanyah /usr/local/bin/
VOLUME /var/lib/thmanyah
EXPOSE 8080
ENTRYPOINT ["thmanyah"]
CMD ["--help"]

# What fills the tables, and what stands for the system that nobody here controls.
FROM base AS tools
COPY --from=build /programs/data-generator /programs/external-system-mock /usr/local/bin/

# Kafka Connect with Debezium's connector, the same versions as in the tests.
FROM maven:3.9.9-eclipse-temurin-17 AS plugins
COPY dev/pom.xml /plugins/
RUN mvn -q -B -f /plugins/pom.xml -Pdebezium dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory=/plugins/debezium

FROM apache/kafka:4.3.1 AS connect
COPY --from=plugins /plugins/debezium /opt/plugins/debezium
COPY dev/connect.properties /etc/connect.properties

# An emulator of BigQuery's REST and Storage Write interfaces. Its database starts with an extension that is in a package, too.
FROM python:3.11.13-slim-bookworm AS bigquery-emulator
COPY dev/emulator.txt /emulator/
RUN pip install --no-cache-dir -r /emulator/emulator.txt && useradd --create-home emulator
USER emulator
RUN python - <<'SCRIPT'
import os, shutil, site, duckdb
version, platform = duckdb.sql("SELECT version(), platform FROM pragma_platform()").fetchone()
kept = os.path.expanduser(f"~/.duckdb/extensions/{version}/{platform}")
os.makedirs(kept)
package = f"{site.getsitepackages()[0]}/duckdb_extension_spatial/extensions/{version}/spatial.duckdb_extension"
shutil.copy(package, kept)
SCRIPT
COPY dev/bigquery_emulator.py /emulator/
ENTRYPOINT ["python", "/emulator/bigquery_emulator.py"]
