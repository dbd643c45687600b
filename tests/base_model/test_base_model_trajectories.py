import zipfile
from pathlib import Path

import numpy as np
import pytest

from base_model.lockfile import read_lock
from base_model.series import Origin, quantise
from base_model.trajectories import messages, telemetry

DATABASE = """
BO_ 344 ENGINE_DATA: 8 PCM
 SG_ XMISSION_SPEED : 7|16@0+ (0.01,0) [0|250] "kph" EON
 SG_ ENGINE_RPM : 23|16@0+ (1,0) [0|15000] "rpm" EON
 SG_ COUNTER : 61|2@0+ (1,0) [0|3] "" EON
 SG_ CHECKSUM : 59|8@0+ (1,0) [0|255] "" EON
 SG_ BRAKE_PRESSED : 4|1@0+ (1,0) [0|1] "" XXX

BO_ 342 STEERING_SENSORS: 6 EPS
 SG_ STEER_ANGLE : 7|16@0- (-0.1,0) [-500|500] "deg" EON
 SG_ STEER_ANGLE_RATE : 23|16@0- (-1,0) [-3000|3000] "deg/s" EON
 SG_ LANE : 23|12@0+ (0.004,-8.192) [0|0] "Meters" XXX
 SG_ ODD : 7|16@0- (1,0) [-500|500] "a unit that is described in a whole sentence" EON
 SG_ MUX m1 : 23|16@0- (1,0) [-3000|3000] "deg/s" EON
 SG_ BROKEN : 7|16@0- (1.2.3,0) [0|1] "" EON

BO_ 9 FLAGS: 1 EPS
 SG_ ON : 0|1@0+ (1,0) [0|1] "" XXX
"""


def test_readings_become_channels_and_flags_counters_and_checksums_do_not() -> None:
    found = messages(DATABASE)
    assert {name: [s.channel.name for s in signals] for name, signals in found.items()} == {
        "ENGINE_DATA.344": ["XMISSION_SPEED", "ENGINE_RPM"],
        "STEERING_SENSORS.342": ["STEER_ANGLE", "STEER_ANGLE_RATE", "LANE"],
    }
    speed = found["ENGINE_DATA.344"][0].channel
    assert (speed.unit, speed.low, speed.high) == ("kph", 0.0, 250.0)
    # [0|0] is no range: what twelve bits can carry is.
    lane = found["STEERING_SENSORS.342"][2].channel
    assert (lane.low, lane.high) == (-8.192, pytest.approx(8.188))


def test_telemetry_is_labelled_synthetic_repeats_by_seed_and_stays_on_its_scale() -> None:
    made = list(telemetry(DATABASE, np.random.default_rng(3), rows=400))
    again = list(telemetry(DATABASE, np.random.default_rng(3), rows=400))
    other = list(telemetry(DATABASE, np.random.default_rng(4), rows=400))
    for (header, values), (_, same), (_, different) in zip(made, again, other, strict=True):
        assert header.origin is Origin.SYNTHETIC
        assert np.array_equal(values, same)
        assert not np.array_equal(values, different)
        assert set(quantise(values, header).clipped.values()) == {0}
        assert np.isfinite(values).all()


def test_every_value_is_one_that_the_signal_can_carry() -> None:
    ((header, values), _) = telemetry(DATABASE, np.random.default_rng(3), rows=400)
    raw = values[:, 0] / 0.01
    assert np.allclose(raw, np.rint(raw), atol=1e-6)
    assert header.channels[0].name == "XMISSION_SPEED"
    # It drives: the speed changes, and without a jump that no vehicle makes (2.5 to 3.5 m/s²).
    assert np.ptp(values[:, 0]) > 10
    assert np.abs(np.diff(values[:, 0])).max() < 3.6


def test_the_databases_of_the_corpus_give_series() -> None:
    (source,) = [s for s in read_lock().sources if s.name == "opendbc"]
    wheel = Path(__file__).parents[2] / ".cache" / "corpora" / source.filename
    if not wheel.exists():
        pytest.skip("needs `make corpora`")
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if "honda" in n and n.endswith(".dbc")]
        databases = [archive.read(name).decode() for name in names]
    rng = np.random.default_rng(1)
    made = [series for text in databases for series in telemetry(text, rng, rows=20)]
    assert len(made) > 50
    assert all(quantise(values, header).levels.min() >= 0 for header, values in made)
