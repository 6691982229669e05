"""Ways in: names, paths, weights that fit and that do not, whatever the host program has done with Hydra."""

import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from safetensors.torch import save_file

from sam2long import (
    Sam2LongConfig,
    SAM2LongVideoPredictor,
    build_sam2long_camera_predictor,
    build_sam2long_video_predictor,
)
from sam2long.errors import ConfigError, ModelError
from sam2long.network import install
from sam2long.weights import BY_HUB_ID, CHECKPOINTS, recognise
from tests.fakes import TINY, noise_video, run, same, tiny_predictor

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hydra_restored():
    before = Singleton.get_state()
    yield
    Singleton.set_state(before)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_local_checkpoint_gives_the_masks_of_the_model_that_wrote_it(tiny, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = {name: value.clone() for name, value in tiny.state_dict().items()}
    torch.save({"model": state}, path) if suffix == ".pt" else save_file(state, path)
    built = build_sam2long_video_predictor(TINY, path, device="cpu", apply_postprocessing=False)
    video = noise_video(6)
    assert same(run(built, video), run(tiny, video))


def test_half_precision_weights_are_loaded_as_float32(tiny, tmp_path):
    save_file({name: value.half() for name, value in tiny.state_dict().items()}, tmp_path / "half.safetensors")
    built = build_sam2long_video_predictor(TINY, tmp_path / "half.safetensors", device="cpu")
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}


def test_weights_of_another_model_name_the_config_that_they_fit(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        small = build_sam2long_video_predictor("configs/sam2.1/sam2.1_hiera_s.yaml", device="cpu")
    torch.save({"model": small.state_dict()}, tmp_path / "what.pt")
    with pytest.raises(ModelError, match=r"sam2\.1_hiera_s\.yaml"):
        build_sam2long_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", tmp_path / "what.pt", device="cpu")


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if name != "nano"])
def test_every_released_checkpoint_is_recognised_by_its_shapes(name):
    checkpoint = CHECKPOINTS[name]
    weights = {"image_encoder.trunk.pos_embed": torch.empty(1, checkpoint.width, 7, 7)}
    weights |= {f"image_encoder.trunk.blocks.{i}.norm1.weight": torch.empty(1) for i in range(checkpoint.blocks)}
    if name.startswith("sam2.1"):
        weights["no_obj_embed_spatial"] = torch.empty(1)
    assert recognise(weights) is checkpoint


def test_names_follow_sam2s_table():
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    assert {c.hub_id: (c.config, c.file) for c in BY_HUB_ID.values()} == HF_MODEL_ID_TO_FILENAMES


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint"):
        build_sam2long_video_predictor(TINY, tmp_path / "nothing.pt")
    for name in ("junk.pt", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ModelError, match="not a readable checkpoint"):
            build_sam2long_video_predictor(TINY, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="no state dict"):
        build_sam2long_video_predictor(TINY, tmp_path / "list.pt")


def test_without_weights_the_user_is_told(recwarn):
    build_sam2long_video_predictor(TINY, device="cpu")
    (said,) = (warning for warning in recwarn if "random" in str(warning.message))
    assert said.filename == __file__  # whoever built it, not a line of ours


def test_a_big_model_without_weights_says_how_to_get_them(monkeypatch, tmp_path):
    import huggingface_hub

    def offline(**_):
        raise ConnectionError("no network here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"sam2\.1_hiera_large\.pt.*nano"):
        build_sam2long_video_predictor("sam2.1-large")


def test_a_checkpoint_in_the_checkpoints_folder_is_found_by_its_short_name(monkeypatch, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "sam2.1_hiera_tiny.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert CHECKPOINTS["sam2.1-tiny"].fetch() == Path("checkpoints/sam2.1_hiera_tiny.pt")


def test_an_unknown_config_lists_the_names():
    with pytest.raises(ModelError, match="sam2.1-large"):
        build_sam2long_video_predictor("sam2.1-huge")
    with pytest.raises(ModelError, match="facebook/sam2.1-hiera-tiny"):
        SAM2LongVideoPredictor.from_pretrained("someone/else")


def test_a_config_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1\n")
    with pytest.raises(ModelError, match="describes no model"):
        build_sam2long_video_predictor(tmp_path / "other.yaml")
    (tmp_path / "broken.yaml").write_text("model: [1, 2\n")
    with pytest.raises(ModelError, match="broken"):
        build_sam2long_video_predictor(tmp_path / "broken.yaml")


def test_training_mode_is_refused():
    with pytest.raises(ModelError, match="eval"):
        build_sam2long_video_predictor(TINY, mode="train")


def test_settings_come_as_config_or_mapping_and_are_checked():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        built = build_sam2long_video_predictor(TINY, device="cpu", sam2long={"num_pathways": 2})
        camera = build_sam2long_camera_predictor(TINY, device="cpu")
    assert built.sam2long == Sam2LongConfig(num_pathways=2)
    assert camera.sam2long.emit == "online"
    with pytest.raises(ConfigError, match="num_paths"):
        build_sam2long_video_predictor(TINY, sam2long={"num_paths": 2})


def test_postprocessing_is_sam2s():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with_it = build_sam2long_video_predictor(TINY, device="cpu")
        without = build_sam2long_video_predictor(TINY, device="cpu", apply_postprocessing=False)
    assert (with_it.fill_hole_area, without.fill_hole_area) == (8, 0)
    assert with_it.sam_mask_decoder.dynamic_multimask_via_stability
    assert with_it.binarize_mask_from_pts_for_mem_enc and not without.binarize_mask_from_pts_for_mem_enc


@pytest.mark.parametrize("host", ["uninitialised", "sam2's", "its own"])
def test_the_hosts_hydra_is_left_as_it_was(hydra_restored, host):
    GlobalHydra.instance().clear()
    if host == "sam2's":
        initialize_config_module("sam2", version_base="1.2")
    if host == "its own":
        initialize_config_module("tests", version_base="1.3")
    before = GlobalHydra.instance().hydra
    tiny_predictor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        build_sam2long_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    assert GlobalHydra.instance().hydra is before


def test_importing_the_package_is_quick_and_loads_no_torch():
    code = "import sys, sam2long; sam2long.Sam2LongConfig(); print('torch' in sys.modules, 'sam2' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_the_genuine_sam2_has_no_problems():
    assert install.sam2_problems() == []


def test_a_clone_in_the_working_directory_is_detected(tmp_path):
    (tmp_path / "sam2" / "sam2").mkdir(parents=True)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.append({str(ROOT)!r}); "
        "from sam2long.network.install import sam2_problems; print(sam2_problems())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    found = out.stdout
    assert found == "[]\n" or "clone" in found  # an installed regular package wins over a bare folder
    (tmp_path / "sam2" / "__init__.py").write_text("")
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert "clone" in out.stdout


def test_a_fork_is_detected(monkeypatch):
    def forked_init(self, image_encoder, samurai_mode=False): ...

    base = types.SimpleNamespace(__init__=forked_init)
    monkeypatch.setattr("sam2.modeling.sam2_base.SAM2Base", base)
    assert "samurai_mode" in install.sam2_problems()[0]
    with pytest.raises(ModelError, match="fork"):
        install.require_sam2()


@pytest.mark.parametrize(
    ("keyword", "where"),
    [
        ("num_pathways", r"sam2long=Sam2LongConfig\(num_pathways=...\)"),
        ("fill_hole_area", r"hydra_overrides_extra=\[.\+\+model.fill_hole_area"),
        ("nonsense", "unknown keyword nonsense; expected one of config_file"),
    ],
)
def test_an_unknown_keyword_is_refused_with_its_place(keyword, where):
    for build in (build_sam2long_video_predictor, build_sam2long_camera_predictor):
        with pytest.raises(ConfigError, match=where):
            build("nano", device="cpu", **{keyword: 3})
    if keyword != "fill_hole_area":
        with pytest.raises(ConfigError, match=where.partition(";")[0]):
            SAM2LongVideoPredictor(**{keyword: 3})


def test_a_yaml_that_names_other_files_is_refused(tmp_path):
    (tmp_path / "more.yaml").write_text("defaults: [base]\n" + TINY.read_text())
    with pytest.raises(ModelError, match="defaults"):
        build_sam2long_video_predictor(tmp_path / "more.yaml", tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("override", "found"),
    [("model.image_size=128", 128), ("++model.image_size=128", 128), ("~model.only_obj_ptrs_in_the_past_for_eval", 64)],
)
def test_overrides_are_in_hydras_grammar(override, found):
    assert tiny_predictor(overrides=(override,)).image_size == found
    with pytest.raises(ModelError, match="write \\+\\+model.imagesize"):
        tiny_predictor(overrides=("model.imagesize=3",))
