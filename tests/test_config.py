import dataclasses

import pytest

from sam2long import Sam2LongConfig
from sam2long.errors import ConfigError


def test_defaults_are_the_papers():
    config = Sam2LongConfig()
    assert (config.num_pathways, config.iou_threshold, config.certainty_threshold) == (3, 0.3, 2.0)
    assert config.modulation == (0.95, 1.05)
    assert (config.object_aware_memory, config.twins, config.emit, config.max_lag) == (True, "keep", "settled", 256)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_pathways", 0),
        ("num_pathways", 2.5),
        ("num_pathways", True),
        ("iou_threshold", float("nan")),
        ("certainty_threshold", -1),
        ("modulation", (1.05, 0.95)),
        ("modulation", (0.0, 1.0)),
        ("modulation", 1.0),
        ("object_aware_memory", "yes"),
        ("twins", "drop"),
        ("emit", "later"),
        ("max_lag", -1),
        ("max_lag", 2.5),
        ("max_prompted_frames", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        Sam2LongConfig(**{field: value})


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="num_paths"):
        Sam2LongConfig.from_mapping({"num_paths": 3})


def test_a_config_survives_json():
    config = Sam2LongConfig(num_pathways=2, modulation=(0.9, 1.1), max_lag=None)
    assert Sam2LongConfig.from_mapping(config.to_dict()) == config


def test_a_config_cannot_be_edited():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sam2LongConfig().num_pathways = 1
