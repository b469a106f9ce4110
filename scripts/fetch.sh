#!/usr/bin/env bash
# What the lock files name beside Python packages: Kafka's jars, the page's browser libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
