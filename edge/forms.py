"""The forms in which readings come in, turned into columns; pure.

Whoever can reach a door can send any bytes: whatever a parser says of them ends here as one
kind of error that can be counted, answered and kept.
"""

from citybrain.edge import arrow_form, json_form
from citybrain.edge.validate import Candidates
from citybrain.errors import JSON_ERRORS, InvalidInput
from citybrain.layout import Layout

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

_READERS = {
    JSON: ("json", "a reading or an array of them", json_form.parse),
    NDJSON: ("json", "one reading a line", json_form.parse_lines),
    ARROW: ("arrow", "an Arrow IPC stream", arrow_form.parse),
}

# Arrow's own errors are also of these classes; it raises them for damage of any kind.
_RAISED = (
    *JSON_ERRORS, ValueError, LookupError, TypeError, NotImplementedError, OSError,
    OverflowError, MemoryError, StopIteration,
)  # fmt: skip


def parse(body: bytes, form: str, layout: Layout) -> Candidates:
    """The readings of a body in one of the three forms.

    A reading that cannot be read is a row with fate `field`, beside the good ones.
    Raises InvalidInput `json`, `arrow` or `size`, and nothing else, if the body as a whole
    cannot be read.
    """
    reason, expected, read = _READERS[form]
    try:
        return read(body, layout)
    except InvalidInput:
        raise
    except RecursionError as error:
        raise InvalidInput(reason, f"body: nested too deeply, expected {expected}") from error
    except _RAISED as error:
        what = str(error) or type(error).__name__
        raise InvalidInput(reason, f"body: {what}; expected {expected}") from error
