"""Packages with sam2's class shape under another name, such as EfficientTAM: by duck typing, nothing imported.

The real package is on no registry, so sam2's own source stands in for it, under other names.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sam2long import SAM2LongVideoPredictor
from sam2long.errors import ModelError
from tests.fakes import MASK, OTHER, TINY, noise_video, run, same

PACKAGE = "efficient_track_anything_alike"
VIDEO = noise_video(20)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tiny):
    root = tmp_path_factory.mktemp("packages")
    source = Path(sam2.__path__[0])
    for path in [*source.glob("*.py"), *source.glob("modeling/**/*.py"), *source.glob("utils/*.py")]:
        target = root / PACKAGE / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(renamed(path.read_text()))
    (root / PACKAGE / "__init__.py").write_text("")
    sys.path.insert(0, str(root))
    try:
        config = OmegaConf.create(renamed(TINY.read_text())).model
        config._target_ = f"{PACKAGE}.sam2_video_predictor.AlikeVideoPredictor"
        predictor = instantiate(config, _recursive_=True).eval()
    finally:
        sys.path.remove(str(root))
    predictor.load_state_dict(tiny.state_dict())
    yield predictor
    shutil.rmtree(root)
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def renamed(text: str) -> str:
    text = re.sub(r"\bsam2(?=[.]\w)", PACKAGE, text)
    return text.replace("SAM2Base", "AlikeBase").replace("SAM2VideoPredictor", "AlikeVideoPredictor")


def test_its_masks_are_those_that_sam2_gives_with_the_same_weights(theirs, tiny):
    assert not isinstance(theirs, sam2.modeling.sam2_base.SAM2Base)
    ours = SAM2LongVideoPredictor.from_sam2(theirs)
    assert ours.network is theirs
    prompts = [(0, 1, MASK), (3, 2, OTHER)]
    assert same(run(ours, VIDEO, prompts), run(tiny, VIDEO, prompts))


def test_a_model_in_training_mode_is_refused(theirs):
    theirs.train()
    with pytest.raises(ModelError, match="training mode"):
        SAM2LongVideoPredictor.from_sam2(theirs)
    theirs.eval()


def test_one_that_lacks_a_step_is_refused():
    class Half(torch.nn.Module):
        def forward_image(self): ...

    with pytest.raises(ModelError, match="Half"):
        SAM2LongVideoPredictor.from_sam2(Half())
