"""A host program that has set torch and Hydra up in its own way gets the same masks, and keeps what it set."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

from sam2long import build_sam2long_camera_predictor, build_sam2long_video_predictor
from sam2long.errors import PromptError
from tests.fakes import collect, noise_video, same

VIDEO = noise_video(5)
BOX = [10, 10, 50, 50]


def masks(predictor=None, between=lambda: None):
    predictor = predictor or build_sam2long_video_predictor("nano", device="cpu")
    state = predictor.init_state(VIDEO)
    predictor.add_new_points_or_box(state, 0, 1, box=BOX)
    found = {}
    for frame, _, logits in predictor.propagate_in_video(state):
        between()
        found[frame] = logits
    return found


@pytest.fixture(scope="module")
def plain():
    return masks()


@pytest.fixture(params=["float64", "bfloat16", "meta", "with meta"])
def host(request):
    """Something set, a check that it still is, and the way back."""
    if request.param == "with meta":
        with torch.device("meta"):
            yield lambda: torch.empty(1).device.type == "meta"
    elif request.param == "meta":
        torch.set_default_device("meta")
        yield lambda: torch.empty(1).device.type == "meta"
        torch.set_default_device(None)
    else:
        dtype = getattr(torch, request.param)
        torch.set_default_dtype(dtype)
        yield lambda: torch.get_default_dtype() == dtype
        torch.set_default_dtype(torch.float32)


def test_the_masks_are_the_same_whatever_torch_makes_by_default(plain, host):
    kept = []
    found = masks(between=lambda: kept.append(host()))
    assert same(found, plain) and all(logits.dtype == torch.float32 for logits in found.values())
    assert kept == [True] * 5 and host()


def test_live_frames_too(host):
    def run():
        predictor = build_sam2long_camera_predictor("nano", device="cpu")
        predictor.load_first_frame(VIDEO[0])
        predictor.add_new_prompt(0, 1, bbox=BOX)
        return [predictor.track(frame)[1] for frame in VIDEO[1:3]]

    found = run()
    assert host()
    with torch.device("cpu"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        expected = run()
        torch.set_default_dtype(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_state_is_saved_and_loaded_in_another_world(plain, host, tmp_path):
    predictor = build_sam2long_video_predictor("nano", device="cpu")
    state = predictor.init_state(VIDEO)
    predictor.add_new_points_or_box(state, 0, 1, box=BOX)
    predictor.save_state(state, tmp_path / "state.safetensors")
    loaded = predictor.load_state(tmp_path / "state.safetensors", VIDEO)
    assert same(collect(predictor, loaded), plain)


def test_what_the_host_set_is_there_again_after_an_error_and_a_loop_that_was_left(host):
    predictor = build_sam2long_video_predictor("nano", device="cpu")
    state = predictor.init_state(VIDEO)
    with pytest.raises(PromptError):
        predictor.add_new_points_or_box(state, 0, 1, box=[5, 5, 5])
    assert host()
    predictor.add_new_points_or_box(state, 0, 1, box=BOX)
    for _ in predictor.propagate_in_video(state):
        break
    assert host()


def test_masks_may_be_changed_in_place_and_given_to_autograd():
    predictor = build_sam2long_video_predictor("nano", device="cpu")
    state = predictor.init_state(VIDEO)
    with torch.inference_mode():
        predictor.add_new_points_or_box(state, 0, 1, box=BOX)
    weight = torch.ones(1, requires_grad=True)
    for _, _, logits in predictor.propagate_in_video(state):
        logits.mul_(1)
        (logits * weight).sum().backward()
    assert weight.grad is not None and torch.is_grad_enabled()


def test_predictors_built_and_used_in_threads_are_equal_and_the_hosts_dtype_comes_back(plain):
    torch.set_default_dtype(torch.float64)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: masks(), range(8)))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(same(one, plain) for one in found)


def test_a_host_that_composes_with_hydra_meanwhile_meets_its_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    before = Singleton.get_state()
    GlobalHydra.instance().clear()
    initialize_config_dir(str(tmp_path), version_base="1.3")
    hydra, ended, composed, errors = GlobalHydra.instance().hydra, threading.Event(), [], []

    def host():
        while not ended.is_set():
            try:
                composed.append(compose("mine").a == 1 and GlobalHydra.instance().hydra is hydra)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=host)
    thread.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: build_sam2long_video_predictor("nano", device="cpu"), range(8)))
    finally:
        ended.set()
        thread.join()
        Singleton.set_state(before)
    assert composed and all(composed) and not errors
