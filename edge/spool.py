"""The disk spool in front of Kafka: what is acknowledged to a device is here first.

Append-only segment files, a checksum an entry, one fsync for all that came together. The
reader goes strictly in order, holds one chunk at a time, and its position is saved
atomically; after a crash some entries may be read again, never fewer. Entries that are sent
are kept while there is room: they are the memory of what devices have already said.
"""

import fcntl
import os
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from citybrain.edge import frames
from citybrain.errors import CityBrainError, SetupError

_POSITION = struct.Struct("<QI")
_sync = getattr(os, "fdatasync", os.fsync)


class SpoolFull(CityBrainError):
    """Nothing more can be stored: the bound is reached, or the disk refuses."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Put:
    """One entry to append. tally: under what its readings count if they are ever dropped."""

    payload: bytes
    readings: int = 0
    tally: Hashable = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A segment that gave way: entries [first, last], and its readings by tally."""

    first: int
    last: int
    tally: Counter[Hashable]


@dataclass(slots=True)
class Segment:
    """A file of entries [first, last]; `size` bytes of it are durable."""

    path: Path
    first: int
    last: int
    size: int
    tally: Counter[Hashable] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Report:
    """What opening found: damaged spans by file, entry numbers that are missing."""

    damage: tuple[tuple[str, frames.Damage], ...]
    missing: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        """Whether everything that was ever acknowledged is here or was sent."""
        return not self.damage and not self.missing


class Spool:
    """A bounded queue on disk for one process; safe between one appender and one reader.

    max_bytes bounds all files together (one append may exceed it until it has made room).
    visit: called at opening for every whole entry, in order, with the number of the last one
    that is sent; returns its tally.

    Raises SetupError if another process uses the folder or it cannot be written, InvalidInput
    if it was written by a newer version.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        visit: Callable[[frames.Entry, int], Hashable] = lambda _, __: None,
        segment_bytes: int | None = None,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.segment_bytes = segment_bytes or max(4096, min(8 << 20, max_bytes // 16))
        self.keep_bytes = min(64 << 20, max_bytes // 4)
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        self._file: int | None = None
        self._read_at: tuple[Segment, int] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(f"spool: {folder} is used by another process") from error
        except OSError as error:
            raise SetupError(f"spool: {folder}: {error}") from error
        self._salt = self._load_salt()
        self.acknowledged = self._load_position()
        self.report = self._recover(visit)
        last = self._segments[-1].last if self._segments else -1
        self.next_index = max(last, self.acknowledged) + 1
        self.taken = self.acknowledged
        self.saved = self.acknowledged
        self.unreadable = 0

    def _recover(self, visit: Callable[[frames.Entry, int], Hashable]) -> Report:
        damage: list[tuple[str, frames.Damage]] = []
        missing: list[tuple[int, int]] = []
        before = self.acknowledged
        for path in sorted(self.folder.glob("*.spool")):
            data = path.read_bytes()
            segment = Segment(path, int(path.stem), int(path.stem) - 1, frames.HEADER)
            last = self._segments[-1].last if self._segments else -1
            whole: list[frames.Entry] = []
            for found in frames.scan_segment(data, self._salt, last):
                if isinstance(found, frames.Damage):
                    damage.append((path.name, found))
                    continue
                if found.index > max(before, last) + 1:
                    missing.append((max(before, last) + 1, found.index - 1))
                segment.last = last = found.index
                segment.size = found.end
                segment.tally[visit(found, self.acknowledged)] += found.readings
                whole.append(found)
            before = max(before, last)
            if not whole and frames.header(self._salt).startswith(data):
                path.unlink()  # cut at birth: nothing in it was acknowledged
                continue
            if damage and damage[-1][0] == path.name:
                segment.size = self._mend(path, whole)
            if whole:
                self._segments.append(segment)
        if self._segments and self._segments[-1].last < self.acknowledged:
            missing.append((self._segments[-1].last + 1, self.acknowledged))
        return Report(tuple(damage), tuple(missing))

    def _mend(self, path: Path, whole: list[frames.Entry]) -> int:
        """Write a damaged segment anew from its whole entries; the old one stays for people."""
        data = frames.header(self._salt) + b"".join(
            frames.pack(self._salt, e.index, e.readings, e.payload) for e in whole
        )
        new = path.with_suffix(".new")
        new.write_bytes(data)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(path.with_suffix(".damaged"))
        if whole:
            new.replace(path)
        else:
            new.unlink()
        self._sync_folder()
        return len(data)

    @property
    def size_bytes(self) -> int:
        """Size of all segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def backlog_bytes(self) -> int:
        """Size of the segments that hold something unsent."""
        return sum(s.size for s in self._segments if s.last > self.acknowledged)

    @property
    def backlog(self) -> int:
        """Entries not yet acknowledged by the reader (dropped ones included)."""
        return self.next_index - 1 - self.acknowledged

    def make_room(self, size: int) -> list[Dropped]:
        """Which segments have to give way so that `size` more bytes fit, oldest first.

        Sent segments do so without being named. Nothing is removed yet: `append` does it.
        Raises SpoolFull if even that is not enough.
        """
        with self._lock:
            held = sum(s.size for s in self._segments if not self._is_sent(s))
            gone: list[Dropped] = []
            for segment in self._segments[:-1]:
                if held + size <= self.max_bytes:
                    break
                # What the reader holds may be on its way already: it stays.
                if segment.first > self.taken:
                    gone.append(Dropped(segment.first, segment.last, Counter(segment.tally)))
                    held -= segment.size
            if held + size > self.max_bytes:
                raise SpoolFull(f"spool: {size} bytes do not fit into {self.max_bytes}")
            return gone

    def oldest_droppable(self) -> list[Dropped]:
        """The oldest segment that is neither written nor in the reader's hands, if any."""
        with self._lock:
            free = (s for s in self._segments[:-1] if s.first > self.taken)
            return [Dropped(s.first, s.last, Counter(s.tally)) for s in free][:1]

    def discard(self, dropping: Sequence[Dropped]) -> None:
        """Remove segments at once (`append` does it in the safe order: first say, then do)."""
        with self._lock:
            firsts = {dropped.first for dropped in dropping}
            self._remove([s for s in self._segments if s.first in firsts])

    def append(self, puts: Sequence[Put], dropping: Sequence[Dropped] = ()) -> int:
        """Store entries durably; returns the index of the first. Then drop what gives way.

        Raises SpoolFull if the disk refuses; then nothing of `puts` is stored.
        """
        with self._lock:
            first = self.next_index
            data = b"".join(
                frames.pack(self._salt, first + i, put.readings, put.payload)
                for i, put in enumerate(puts)
            )
            segment = self._writable(first)
            assert self._file is not None
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._file, data[written:], segment.size + written)
                _sync(self._file)
            except OSError as error:
                self._retire()
                raise SpoolFull(f"spool: {segment.path}: {error}") from error
            segment.size += len(data)
            segment.last = self.next_index = first + len(puts)
            segment.last -= 1
            for put in puts:
                segment.tally[put.tally] += put.readings
            firsts = {dropped.first for dropped in dropping}
            self._remove([s for s in self._segments if s.first in firsts])
            self._forget()
            return first

    @property
    def at_segment_start(self) -> bool:
        """Whether the next append begins a new file (it should begin with the whole state)."""
        return self._file is None or self._segments[-1].size >= self.segment_bytes

    def _writable(self, first: int) -> Segment:
        if not self.at_segment_start:
            return self._segments[-1]
        self._retire()
        path = self.folder / f"{first:020d}.spool"
        try:
            self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            os.write(self._file, frames.header(self._salt))
            self._sync_folder()
        except OSError as error:
            self._retire()
            path.unlink(missing_ok=True)
            raise SpoolFull(f"spool: {path}: {error}") from error
        self._segments.append(Segment(path, first, first - 1, frames.HEADER))
        return self._segments[-1]

    def _retire(self) -> None:
        """Close the file that is written; after an error its unacknowledged bytes go."""
        if self._file is None:
            return
        segment = self._segments[-1] if self._segments else None
        try:
            if segment and os.fstat(self._file).st_size > segment.size:
                os.ftruncate(self._file, segment.size)
        finally:
            os.close(self._file)
            self._file = None
        if segment and segment.last < segment.first:
            self._remove([segment])

    def read(self, max_bytes: int = 1 << 20) -> list[frames.Entry]:
        """The next entries in order, at least one if there is any, about `max_bytes` of them."""
        chunk: list[frames.Entry] = []
        size = 0
        with self._lock:
            while size < max_bytes:
                segment = next((s for s in self._segments if s.last > self.taken), None)
                if segment is None:
                    break
                at = self._read_at[1] if self._read_at and self._read_at[0] is segment else None
                at = frames.HEADER if at is None else at
                found = self._entries(segment, at, at + max_bytes)
                if not found:
                    found = self._entries(segment, at, segment.size)
                for entry in found:
                    if size >= max_bytes:
                        break
                    self._read_at = (segment, at + entry.end)
                    if entry.index > self.taken:
                        self._note_gap(max(self.taken + 1, segment.first), entry.index)
                        self.taken = entry.index
                        size += len(entry.payload)
                        chunk.append(entry)
                if not found:
                    self._note_gap(max(self.taken + 1, segment.first), segment.last + 1)
                    self.taken = segment.last
        return chunk

    def _entries(self, segment: Segment, start: int, end: int) -> list[frames.Entry]:
        """Whole entries within bytes [start, end), stretched if the first one is longer."""
        with segment.path.open("rb") as file:
            file.seek(start)
            data = file.read(min(end, segment.size) - start)
            if len(data) >= frames.OVERHEAD:
                need = frames.OVERHEAD + int.from_bytes(data[4:8], "little")
                if need > len(data):
                    data += file.read(min(need, segment.size - start) - len(data))
        return [e for e in frames.scan(data, self._salt) if isinstance(e, frames.Entry)]

    def _note_gap(self, expected: int, found: int) -> None:
        """Entries that were whole when they were written and cannot be read any more."""
        self.unreadable += found - expected

    def acknowledge(self, index: int) -> None:
        """Everything up to this entry is where it has to be."""
        with self._lock:
            self.acknowledged = max(self.acknowledged, index)
            self._forget()

    def save_position(self) -> None:
        """Make the reader's position durable; what lies between is sent again after a crash."""
        position = self.acknowledged
        if position == self.saved:
            return
        raw = struct.pack("<Q", position + 1)
        new = self.folder / "position.new"
        with new.open("wb") as file:
            file.write(raw + struct.pack("<I", zlib.crc32(raw)))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / "position")
        self._sync_folder()
        self.saved = position

    def _load_salt(self) -> bytes:
        """This spool's salt, as its own file and each segment state it.

        Where damage makes them differ it is the one under which the most entries are whole.
        """
        path = self.folder / "salt"
        stated = [path.read_bytes()] if path.is_file() else []
        for segment in sorted(self.folder.glob("*.spool")):
            with segment.open("rb") as file:
                stated.append(frames.salt_of(file.read(frames.HEADER)) or b"")
        known = list(dict.fromkeys(salt for salt in stated if len(salt) == frames.SALT))
        salt = max(known, key=self._whole) if len(known) > 1 else (known or [b""])[0]
        salt = salt or os.urandom(frames.SALT)
        if stated[:1] != [salt]:
            path.write_bytes(salt)
        return salt

    def _whole(self, salt: bytes) -> int:
        """How many entries are whole under a salt."""
        return sum(
            isinstance(found, frames.Entry)
            for segment in self.folder.glob("*.spool")
            for found in frames.scan(segment.read_bytes(), salt)
        )

    def _load_position(self) -> int:
        try:
            raw = (self.folder / "position").read_bytes()
        except FileNotFoundError:
            return -1
        if len(raw) != _POSITION.size or zlib.crc32(raw[:8]) != _POSITION.unpack(raw)[1]:
            return -1  # then what is kept is sent again, and refused as repeats
        return int(_POSITION.unpack(raw)[0]) - 1

    def _is_sent(self, segment: Segment) -> bool:
        return segment.last <= min(self.acknowledged, self.taken)

    def _forget(self) -> None:
        """Sent segments go, oldest first, when they take too much room."""
        sent = [s for s in self._segments[:-1] if self._is_sent(s)]
        kept = sum(s.size for s in sent)
        total = self.size_bytes
        while sent and (kept > self.keep_bytes or total > self.max_bytes):
            # Never before the position says so durably, or a crash would see a hole.
            if sent[0].last > self.saved:
                try:
                    self.save_position()
                except OSError:
                    return  # a full disk: they go when the position can be written
            kept -= sent[0].size
            total -= sent[0].size
            self._remove([sent.pop(0)])

    def _remove(self, segments: list[Segment]) -> None:
        for segment in segments:
            segment.path.unlink(missing_ok=True)
            self._segments.remove(segment)

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Save the position and let go of the folder."""
        with self._lock:
            self._retire()
            self.save_position()
            os.close(self._guard)
