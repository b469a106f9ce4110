#!/usr/bin/env bash
# Installs the system packages that tests use, where this user may; else names them.
set -euo pipefail
declare -A package=([chromium]=chromium [mosquitto]=mosquitto [promtool]=prometheus)
missing=()
for command in "${!package[@]}"; do
  command -v "$command" >/dev/null 2>&1 || missing+=("${package[$command]}")
done
# Chinese text on the page needs a font that has it.
if ! fc-list :lang=zh 2>/dev/null | grep -q .; then missing+=(fonts-noto-cjk fontconfig); fi
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing system packages: ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  # Mosquitto and Prometheus are used as programs: their services must not start by themselves.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "The tests need these system packages (Debian names): ${missing[*]}" >&2
  echo "Install them and run this again, for example: sudo apt-get install ${missing[*]}" >&2
  exit 3
fi
