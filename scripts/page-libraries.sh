#!/usr/bin/env bash
# The page's browser libraries: by npm from the lock file's hashes into dashboards/page/vendor,
# with the licences of all that is in them.
set -euo pipefail
cd "$(dirname "$0")/../dashboards/page"
npm=npm
if ! command -v npm >/dev/null 2>&1; then
  # PyPI brings a Node.js where the machine has none.
  npm=../../.venv/bin/npm
  [ -x "$npm" ] || ../../.venv/bin/uv pip install --quiet --python ../../.venv/bin/python --require-hashes -r ../../requirements/node.lock
  PATH="$(cd ../../.venv/bin && pwd):$PATH"
fi
"$npm" ci --silent --ignore-scripts --no-audit --no-fund
fresh=$(mktemp -d vendor.XXXXXX)
trap 'rm -rf "$fresh"' EXIT
cp node_modules/maplibre-gl/dist/maplibre-gl{,-shared,-worker}.mjs node_modules/maplibre-gl/dist/maplibre-gl.css "$fresh"
cp node_modules/uplot/dist/uPlot.esm.js node_modules/uplot/dist/uPlot.min.css "$fresh"
mkdir "$fresh/licences"
(cd node_modules && find . -mindepth 2 -maxdepth 3 -iname 'licen[cs]e*' -type f) | while read -r file; do
  name=$(dirname "${file#./}" | tr -d @ | tr / -)
  cp "node_modules/$file" "$fresh/licences/$name.txt"
done
chmod 755 "$fresh"
rm -rf vendor node_modules
mv "$fresh" vendor
