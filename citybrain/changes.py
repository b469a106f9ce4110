"""What has been changed in a city since its pack was written: rules, parked sensors."""

import hashlib
from collections.abc import Mapping

import msgspec

from citybrain.clock import stamp
from citybrain.errors import Refused, UsageError
from citybrain.kinds import DAY
from citybrain.rules import Rule, adjusted, with_change

MAX_MAINTENANCE_MS = 30 * DAY
CURRENT_PACK = b"current"
"""Key of the `packs` topic under which the last change stands, as a `stats.Rules` of no shard."""

Settings = dict[str, float | str | bool]


def rules_version(pack_version: str, settings: Mapping[str, float | str | bool]) -> str:
    """The pack's version with what was changed: the same changes give the same version."""
    if not settings:
        return pack_version
    told = msgspec.json.encode(sorted(settings.items()))
    return f"{pack_version}+{hashlib.sha256(told).hexdigest()[:8]}"


class Changes(msgspec.Struct, kw_only=True):
    """settings: as in `stats.Rules`. parked: sensor -> event time at which it is back."""

    settings: Settings = {}
    parked: dict[str, int] = {}

    def rules(self, pack_rules: Mapping[str, Rule]) -> dict[str, Rule]:
        """The rules as they are now."""
        return adjusted(pack_rules, self.settings)

    def version(self, pack_version: str) -> str:
        """As `rules_version`."""
        return rules_version(pack_version, self.settings)

    def set_field(
        self, pack_rules: Mapping[str, Rule], rule: str, field: str, value: float | bool
    ) -> None:
        """Change a field of a rule. Raises Refused with why not."""
        now = self.rules(pack_rules)
        if rule not in now:
            raise Refused(f"rule: {rule!r} is not one of {sorted(now)}")
        try:
            with_change(now[rule], field, value)
        except UsageError as error:
            raise Refused(str(error)) from error
        self.settings[f"{rule}.{field}"] = value

    def park(self, sensor: str, until_ms: int, now_ms: int) -> None:
        """A sensor is in maintenance until an event time; 0 ends it. Raises Refused."""
        if until_ms == 0:
            if sensor not in self.parked:
                raise Refused(f"{sensor} is not in maintenance")
            self._unpark(sensor)
            return
        if not now_ms < until_ms <= now_ms + MAX_MAINTENANCE_MS:
            raise Refused(
                f"until: {stamp(until_ms)} is not within {MAX_MAINTENANCE_MS // DAY} days after"
                f" the city's time, {stamp(now_ms)}"
            )
        self.parked[sensor] = until_ms
        self.settings[f"maintenance.{sensor}"] = True

    def end_maintenance(self, now_ms: int) -> bool:
        """Take back the sensors whose maintenance has ended; whether there were any."""
        ended = [sensor for sensor, until_ms in self.parked.items() if until_ms <= now_ms]
        for sensor in ended:
            self._unpark(sensor)
        return bool(ended)

    def _unpark(self, sensor: str) -> None:
        del self.parked[sensor]
        self.settings[f"maintenance.{sensor}"] = False
