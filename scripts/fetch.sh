#!/usr/bin/env bash
# What the lock files name beside Python packages: Kafka's jars, the page's browser libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -c 'from citybrain.jars import fetch; fetch()'
scripts/page-libraries.sh
