"""What can become of a reading at the edge: a code by row, and the word for it."""

FATES = (
    "accepted",
    "duplicate",
    "conflict",
    "field",
    "sensor",
    "gateway",
    "kind",
    "unit",
    "time",
    "future",
    "old",
    "value",
    "range",
    "quality",
)
"""The words, by code. From `field` on they are reasons why a reading is invalid."""

ACCEPTED, DUPLICATE, CONFLICT, FIELD, SENSOR, GATEWAY, KIND, UNIT = range(8)
TIME, FUTURE, OLD, VALUE, RANGE, QUALITY = range(8, 14)
