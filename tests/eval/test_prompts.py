"""`eval run --prompt`: boxes and clicks made from the given masks."""

import numpy as np
import pytest

from eval import cli, sweep
from eval.datasets.base import Prompt
from eval.prompting import give
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError


class Records:
    def __init__(self):
        self.calls = []

    def add_new_mask(self, *args, **options):
        self.calls.append(("mask", args, options))

    def add_new_points_or_box(self, *args, **options):
        self.calls.append(("points", args, options))


@pytest.fixture
def prompt():
    mask = np.zeros((40, 60), bool)
    mask[10:21, 5:36] = True  # rows 10 to 20, columns 5 to 35
    return Prompt(7, "7", 3, mask)


def test_a_mask_a_box_and_a_click_say_the_same_object(prompt):
    predictor = Records()
    for kind in ("mask", "box", "click"):
        give(predictor, "state", prompt, kind)
    (mask, given, _), (_, where, box), (_, _, click) = predictor.calls
    assert mask == "mask" and given[:3] == where == ("state", 3, 7) and given[3] is prompt.mask
    assert box == {"box": [5, 10, 36, 21]}
    ((x, y),) = click["points"]
    assert (y, click["labels"]) == (15.5, [1]) and 10 <= x <= 31  # on the middle line, six pixels from every edge


def test_settings_swept_together_are_prompted_with_masks(tmp_path):
    with pytest.raises(ConfigError, match="a sweep takes"):
        sweep.run(None, {tmp_path: TrackerSpec(prompt="box")})


def test_the_command_line_says_which(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--dataset", "folder", "--out", "x", "--prompt", "scribble"])
    assert "mask" in capsys.readouterr().err
