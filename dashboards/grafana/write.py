"""Writes the dashboards' JSON: python -m citybrain.dashboards.grafana.write."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from citybrain.dashboards.grafana.city import city
from citybrain.dashboards.grafana.processes import processes

FOLDER = Path(__file__).parent / "json"
DASHBOARDS = {"city": city, "processes": processes}
"""File name -> the function that builds it."""


def rendered() -> dict[str, str]:
    """The JSON of each dashboard by file name."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {
        name: encoder.encode(build().build()) + "\n" for name, build in sorted(DASHBOARDS.items())
    }


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
