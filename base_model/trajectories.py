"""Telemetry made from the signal definitions of CAN databases: labelled synthetic, never a recording.

Decides which signals become channels and how a drive moves them: speed, acceleration, steering and
engine speed follow one simple vehicle, so that channels of a message agree; what has another unit
wanders inside its range. Each value is one that the signal can carry (DBC: raw * factor + offset).
Randomness comes in as a generator. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from base_model.series import Channel, Header, Origin, Values

# DBC: SG_ name : start|length@order sign (factor,offset) [min|max] "unit"
_NUMBER = r"([-+0-9.eE]+)"
_SIGNAL = re.compile(
    rf'^ SG_ (\w+) *: *\d+\|(\d+)@[01]([+-]) *\({_NUMBER},{_NUMBER}\) *\[{_NUMBER}\|{_NUMBER}\] *"([^"]*)"'
)
_MESSAGE = re.compile(r"^BO_ (\d+) (\w+) *:")
# Bits below which a signal is a flag or a code, not a reading.
_READING_BITS = 8
_NOT_READINGS = re.compile(r"CHECKSUM|COUNTER|CRC|SET_ME|BYTE|UNKNOWN|^NEW_SIGNAL", re.IGNORECASE)
# What a unit measures, as the makers spell it, and how many of it make one of ours.
_SPEEDS = {"km/h": 3.6, "kph": 3.6, "km / h": 3.6, "mph": 2.236936, "m/s": 1.0, "m/sec": 1.0}
_ACCELERATIONS = {"m/s^2": 1.0, "m/s2": 1.0}
_ANGLES = {"deg": 1.0, "Deg": 1.0, "degrees": 1.0, "Degrees": 1.0}
_ANGLE_RATES = {"deg/s": 1.0}
_ENGINE_SPEEDS = {"rpm": 1.0, "RPM": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A reading in a CAN message; the channel's scale is what it can carry."""

    message: str
    channel: Channel
    factor: float
    offset: float


def messages(database: str) -> dict[str, tuple[Signal, ...]]:
    """Return the readings of each message of a CAN database that has any, in its order.

    Flags, counters, checksums and multiplexed signals are left out: they are no series.
    """
    found: dict[str, list[Signal]] = {}
    message = ""
    for line in database.splitlines():
        head = _MESSAGE.match(line)
        if head:
            message = f"{head[2]}.{head[1]}"
        signal = _signal(message, line)
        if signal is not None and all(
            s.channel.name != signal.channel.name for s in found.get(message, [])
        ):
            found.setdefault(message, []).append(signal)
    return {name: tuple(signals) for name, signals in found.items()}


def _signal(message: str, line: str) -> Signal | None:
    match = _SIGNAL.match(line)
    if match is None or int(match[2]) < _READING_BITS or _NOT_READINGS.search(match[1]):
        return None
    try:
        factor, offset, declared_low, declared_high = (float(match[n]) for n in (4, 5, 6, 7))
    except ValueError:
        return None
    bits, signed = int(match[2]), match[3] == "-"
    raw = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ends = sorted(number * factor + offset for number in raw)
    # The declared range is often a stand-in ([0|1], [0|0]): it counts where it leaves some levels.
    low, high = max(declared_low, ends[0]), min(declared_high, ends[1])
    if high - low < 16 * abs(factor):
        low, high = ends
    if not factor or not low < high:
        return None
    try:
        channel = Channel(name=match[1], unit=match[8].strip(), low=low, high=high)
    except ValueError:
        # A name or unit that no header takes.
        return None
    return Signal(message=message, channel=channel, factor=factor, offset=offset)


def telemetry(
    database: str, rng: np.random.Generator, *, rows: int, step_us: int = 100_000
) -> Iterator[tuple[Header, Values]]:
    """Yield a synthetic series for each message of a database: its header and its values.

    All messages of one call are of one drive; the same generator state gives the same drive.
    """
    drive = _Drive.of(rng, rows=rows, step_s=step_us / 1e6)
    for signals in messages(database).values():
        header = Header(
            origin=Origin.SYNTHETIC,
            step_us=step_us,
            channels=tuple(signal.channel for signal in signals[:8]),
        )
        columns = [_carried(s, drive.reading(s, rng)) for s in signals[:8]]
        yield header, np.stack(columns, axis=1)


def _carried(signal: Signal, values: Values) -> Values:
    """Return the nearest values that the signal can carry."""
    low, high = signal.channel.low, signal.channel.high
    raw = np.rint((np.clip(values, low, high) - signal.offset) / signal.factor)
    return np.clip(raw * signal.factor + signal.offset, low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drive:
    """One vehicle under way: speed in m/s, acceleration in m/s², steering in degrees, engine in rpm."""

    step_s: float
    speed: Values
    acceleration: Values
    steering: Values

    @classmethod
    def of(cls, rng: np.random.Generator, *, rows: int, step_s: float) -> "_Drive":
        """Drive towards a target speed that changes now and then, round bends that come and go."""
        targets = rng.choice([0.0, 8.0, 14.0, 22.0, 30.0], size=rows)
        changes = rng.random(rows) < step_s / 12
        bends = rng.normal(0.0, 40.0, size=rows)
        speed, acceleration, steering = np.zeros((3, rows))
        target, bend, now, angle = float(targets[0]), 0.0, float(targets[0]), 0.0
        for row in range(rows):
            if changes[row]:
                target, bend = float(targets[row]), float(bends[row])
            wanted = min(max(0.5 * (target - now), -3.5), 2.5)
            moved = max(now + wanted * step_s, 0.0)
            acceleration[row] = (moved - now) / step_s
            now = moved
            angle += (bend / (1 + now / 10) - angle) * min(step_s / 0.8, 1.0)
            speed[row], steering[row] = now, angle
        return cls(step_s=step_s, speed=speed, acceleration=acceleration, steering=steering)

    def reading(self, signal: Signal, rng: np.random.Generator) -> Values:
        """Return what a sensor of that unit reads on this drive, with a little noise."""
        unit, rows = signal.channel.unit, len(self.speed)
        if unit in _SPEEDS:
            clean, noise = self.speed * _SPEEDS[unit], 0.05 * _SPEEDS[unit]
        elif unit in _ACCELERATIONS:
            clean, noise = self.acceleration, 0.05
        elif unit in _ANGLES:
            clean, noise = self.steering, 0.1
        elif unit in _ANGLE_RATES:
            clean, noise = np.gradient(self.steering, self.step_s), 0.3
        elif unit in _ENGINE_SPEEDS:
            gear = np.clip(self.speed // 7, 0, 5)
            clean, noise = 800 + self.speed * 240 / (1 + gear), 8.0
        else:
            return _wander(signal.channel, rng, rows)
        return clean + rng.normal(0.0, noise, size=rows)


def _wander(channel: Channel, rng: np.random.Generator, rows: int) -> Values:
    """Return a slow walk inside the middle of a range, drawn back to its centre."""
    span, centre = channel.high - channel.low, (channel.high + channel.low) / 2
    steps = rng.normal(0.0, 0.01, size=rows)
    at = float(rng.uniform(-0.2, 0.2))
    walked = np.zeros(rows)
    for row in range(rows):
        at = at * 0.995 + float(steps[row])
        walked[row] = at
    return centre + np.clip(walked, -0.5, 0.5) * span
