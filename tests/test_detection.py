"""Prompts from words: the detector by itself, with a real pipeline and a small random network, and `track --text`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sam2long import detection
from sam2long.cli import main
from sam2long.detection import Detection, TextDetector, box_iou, check_search, without_duplicates
from sam2long.errors import ConfigError, ModelError
from sam2long.runs import opening
from sam2long.video import open_source
from tests.fake_tracker import FakePredictor
from tests.test_cli_track import places
from tests.video_files import write_video

WORDS = "a brown dog. a ball."


@pytest.fixture(autouse=True)
def forgotten():
    """No detector of another test."""
    detection._loaded.cache_clear()
    yield
    detection._loaded.cache_clear()


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory):
    pytest.importorskip("transformers")
    from tests.tiny_detector import save_detector

    return save_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture
def answers(monkeypatch):
    """What the network finds, (label, score, box), instead of a network; how often one was loaded is in `loads`."""
    transformers = pytest.importorskip("transformers")
    found = SimpleNamespace(entries=[], loads=[], images=[])

    class Pipeline:
        model = SimpleNamespace(config=SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=16)))
        tokenizer = staticmethod(lambda words: {"input_ids": words.split()})

        def __call__(self, image, candidate_labels, threshold):
            found.images.append(np.array(image))
            return [
                {"label": label, "score": score, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
                for label, score, box in found.entries
                if score >= threshold and label in candidate_labels
            ]

    monkeypatch.setattr(transformers, "pipeline", lambda task, **options: found.loads.append(options) or Pipeline())
    return found


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "build_predictor", lambda settings: FakePredictor())
    return write_video(tmp_path / "clip.mp4", 12)


DOG, BALL = ("a brown dog", 0.83, (4, 6, 12, 14)), ("a ball", 0.4, (30, 20, 44, 40))


# ---- words and boxes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "things"),
    [
        (WORDS, ["a brown dog", "a ball"]),
        ("dog", ["dog"]),
        ("  a  dog .. a dog.\na ball", ["a dog", "a ball"]),
        ("Hund. 犬", ["Hund", "犬"]),
    ],
)
def test_a_period_parts_things_and_each_counts_once(words, things):
    assert check_search(words) == things


@pytest.mark.parametrize("words", ["", " ", " . .. "])
def test_no_words_are_refused_with_the_form_that_is_expected(words):
    with pytest.raises(ConfigError, match='a period between things: "a brown dog. a ball."'):
        TextDetector(words)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_scores_outside_0_to_1_are_refused(score):
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        TextDetector("dog", min_score=score)


def test_of_boxes_that_nearly_coincide_the_better_stays_whatever_it_is_called():
    dog, cat = Detection((0, 0, 10, 10), "dog", 0.5), Detection((0, 0, 10, 11), "cat", 0.6)
    apart, inside = Detection((20, 0, 30, 10), "dog", 0.4), Detection((0, 0, 10, 7), "dog", 0.3)
    assert box_iou(dog.box, cat.box) == pytest.approx(10 / 11)
    assert box_iou(dog.box, inside.box) == pytest.approx(0.7) and box_iou(dog.box, apart.box) == 0
    assert without_duplicates([apart, dog, inside, cat]) == [cat, apart, inside]


# ---- the detector ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 64), (64, 40)])
def test_a_real_pipeline_gives_boxes_in_pixels_best_first_each_thing_once(tiny_detector, shape):
    """The boxes of the network itself, which sees the picture padded to a square."""
    import torch
    import transformers

    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    detector = TextDetector(WORDS, str(tiny_detector), min_score=0.3, device="cpu")
    found = detector(image)
    assert found and {entry.label for entry in found} <= {"a brown dog", "a ball"}
    assert [entry.score for entry in found] == sorted((entry.score for entry in found), reverse=True)
    assert min(entry.score for entry in found) >= 0.3
    for a, b in combinations(found, 2):
        assert box_iou(a.box, b.box) <= 0.7
    assert len(detector.seen(image)) > len(found)

    network = transformers.Owlv2ForObjectDetection.from_pretrained(tiny_detector)
    pixels = transformers.Owlv2ImageProcessor.from_pretrained(tiny_detector)(
        Image.fromarray(image), return_tensors="pt"
    )
    tokens = transformers.CLIPTokenizer.from_pretrained(tiny_detector)(found[0].label, return_tensors="pt")
    with torch.no_grad():
        output = network(**tokens, **pixels)
    x, y, w, h = (output.pred_boxes[0] * max(shape)).T
    expected = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=1)
    scores, limits = output.logits[0, :, 0].sigmoid(), torch.tensor([shape[1], shape[0]] * 2)
    own = int((scores - found[0].score).abs().argmin())
    assert found[0].score == pytest.approx(float(scores[own]), abs=1e-4)
    np.testing.assert_allclose(found[0].box, expected[own].clamp(min=0).minimum(limits), atol=1)


def test_the_network_of_a_model_is_loaded_once(answers):
    for words in ("dog", "ball", "cat"):
        TextDetector(words, "a/b", device="cpu")
    assert len(answers.loads) == 1 and answers.loads[0]["trust_remote_code"] is False
    TextDetector("dog", "c/d", device="cpu")
    assert len(answers.loads) == 2


def test_boxes_end_at_the_edge_of_the_picture_and_those_beyond_it_go(answers):
    answers.entries = [("dog", 0.5, (-3, -2, 70, 50)), ("dog", 0.6, (64, 0, 80, 20)), ("dog", 0.9, (1, 2, 3, 4))]
    found = TextDetector("dog", device="cpu")(np.zeros((48, 64, 3), np.uint8))
    assert [entry.box for entry in found] == [(1, 2, 3, 4), (0, 0, 64, 48)]


def test_more_words_than_the_network_reads_are_refused(tiny_detector, capfd):
    with pytest.raises(ConfigError, match="tokens for the detector, which reads 16; use fewer words"):
        TextDetector("a very large and very brown dog", str(tiny_detector))
    assert capfd.readouterr() == ("", "")


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r'--text needs transformers.*pip install "sam2long\[text\]"'):
        TextDetector("dog")


def test_loading_and_asking_say_nothing_and_leave_the_host_its_log(tiny_detector, capfd):
    import transformers

    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    TextDetector("dog", str(tiny_detector), device="cpu")(np.zeros((20, 30, 3), np.uint8))
    assert capfd.readouterr() == ("", "")
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == before


def test_a_folder_that_is_no_detector_is_named(tmp_path):
    pytest.importorskip("transformers")
    for content in (None, "{}", '{"model_type": "bert"}', "no json"):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match="is no detector that transformers can load.*--local-dir FOLDER"):
            TextDetector("dog", str(tmp_path))


@pytest.mark.parametrize("model", ["no such id", "no/folder/here", "", "../nowhere"])
def test_what_is_neither_a_folder_nor_an_id_is_named(model):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match="the detector .* is not in the Hugging Face cache"):
        TextDetector("dog", model)


@pytest.mark.slow
def test_weights_that_cannot_be_had_are_one_sentence(tmp_path):
    pytest.importorskip("transformers")
    video = write_video(tmp_path / "clip.mp4", 3)
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-m", "sam2long.cli", "track", video, "--text", "dog", "--quiet", "--out", tmp_path / "run"],
        capture_output=True, text=True, env=offline,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert f"the detector {detection.DEFAULT_DETECTOR} is not in the Hugging Face cache" in done.stderr
    assert done.stderr.count("\n") == 1 and "--detector FOLDER" in done.stderr and not (tmp_path / "run").exists()


# ---- sam2long track --text -----------------------------------------------------------------------------------------


def track(*arguments):
    return main(["track", *map(str, arguments)])


def test_what_is_found_is_tracked_numbered_printed_and_drawn(answers, clip, tmp_path, capsys):
    answers.entries = [BALL, DOG, ("a ball", 0.5, (4, 6, 12, 15)), ("a ball", 0.1, (50, 0, 60, 10))]
    out = tmp_path / "run"
    assert track(clip, "--text", WORDS, "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"searching frame 0 with {detection.DEFAULT_DETECTOR}"
    assert said[1:3] == ["1 a brown dog 0.83: 4,6,12,14", "2 a ball 0.40: 30,20,44,40"]
    assert places(out)[5] == {1: 9, 2: 35}
    info = json.loads((out / "run.json").read_text())
    assert info["prompts"] == [
        {"frame": 0, "object": 1, "label": "a brown dog", "box": [4, 6, 12, 14]},
        {"frame": 0, "object": 2, "label": "a ball", "box": [30, 20, 44, 40]},
    ]
    assert [entry["label"] for entry in info["objects"].values()] == ["a brown dog", "a ball"]
    with Image.open(out / "detections.jpg") as image:
        changed = np.abs(np.array(image).astype(int) - open_source(clip).frame(0)).sum(axis=2) > 150
    assert changed[25:38, 30].all() and changed[39, 32:42].all() and not changed[28:36, 34:40].any()
    assert track(clip, "--box", "4,6,12,14", "--overwrite", "--out", out) == 0
    assert not (out / "detections.jpg").exists()


def test_frame_max_objects_min_score_and_quiet(answers, clip, tmp_path, capsys):
    answers.entries = [BALL, DOG, ("a ball", 0.1, (50, 0, 60, 10))]
    flags = ("--text", WORDS, "--quiet", "--frame", 4)
    assert track(clip, *flags, "--max-objects", 1, "--out", tmp_path / "a") == 0
    assert capsys.readouterr().out == ""
    assert list(places(tmp_path / "a")) == list(range(4, 12)) and places(tmp_path / "a")[4] == {1: 4}
    np.testing.assert_array_equal(answers.images[0], open_source(clip).frame(4))
    assert track(clip, *flags, "--min-score", 0.05, "--out", tmp_path / "b") == 0
    assert places(tmp_path / "b")[4] == {1: 4, 2: 30, 3: 50}


@pytest.mark.parametrize(
    ("entries", "says"),
    [([DOG], "the best was a brown dog with 0.830"), ([], "nothing was like it at all")],
)
def test_nothing_found_is_one_sentence_that_names_what_came_nearest(answers, clip, tmp_path, capsys, entries, says):
    answers.entries = entries
    assert track(clip, "--text", WORDS, "--min-score", 0.9, "--out", tmp_path / "run") == 2
    said = capsys.readouterr()
    assert (
        said.out.count("\n") == 1 and said.err.count("\n") == 1 and says in said.err and "lower --min-score" in said.err
    )
    assert "found nothing on frame 0 that scores 0.9 or more" in said.err and not (tmp_path / "run").exists()


def test_each_of_several_clips_is_searched_by_one_network(answers, clip, tmp_path):
    answers.entries = [DOG]
    other = write_video(tmp_path / "other.mp4", 8)
    assert track(clip, other, "--text", WORDS, "--quiet", "--out", tmp_path / "batch") == 0
    assert len(answers.loads) == 1 and len(answers.images) == 2
    for name in ("clip", "other"):
        assert (tmp_path / "batch" / name / "detections.jpg").exists()
        assert places(tmp_path / "batch" / name)[3] == {1: 7}
    assert track("--resume", "--quiet", "--out", tmp_path / "batch") == 0


def test_a_detector_that_cannot_be_had_is_the_batchs_error(clip, tmp_path, capsys):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    other = write_video(tmp_path / "other.mp4", 8)
    assert track(clip, other, "--text", "dog", "--detector", tmp_path / "empty", "--out", tmp_path / "batch") == 2
    said = capsys.readouterr().err
    assert "is no detector" in said and said.count("\n") == 1


def test_a_file_that_a_run_would_replace_is_not_touched(answers, clip, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "detections.jpg").write_bytes(b"mine")
    assert track(clip, "--text", WORDS, "--out", tmp_path / "mine") == 2
    assert "holds detections.jpg that no run wrote" in capsys.readouterr().err


def test_a_real_pipeline_prompts_a_run(tiny_detector, clip, tmp_path, capfd):
    out = tmp_path / "run"
    assert track(clip, "--text", WORDS, "--detector", tiny_detector, "--device", "cpu", "--out", out) == 0
    said = capfd.readouterr().out.splitlines()
    objects = json.loads((out / "run.json").read_text())["objects"]
    assert objects and [line.split()[0] for line in said[1 : 1 + len(objects)]] == list(objects)
