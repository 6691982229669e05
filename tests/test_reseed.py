"""Re-seeding: what a detector says changes something only where the tracker has lost an object, and only if it wins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2long import detection
from sam2long.cli import main
from sam2long.detection import Detection
from sam2long.errors import ConfigError, PromptError
from sam2long.export import MaskReader
from sam2long.tracking import reseed
from sam2long.tracking.reseed import Reseeding, is_challenger, propagate
from tests.fakes import MASK, OTHER, interrupt_every, noise_clip, noise_video, same, tiny_flags, tiny_predictor

VIDEO = noise_video(24)
ELSEWHERE = (40.0, 40.0, 60.0, 60.0)


@pytest.fixture(scope="module")
def gone():
    """A model for which nothing is ever there."""
    return tiny_predictor(presence=-30.0)


@pytest.fixture(scope="module")
def sure():
    return tiny_predictor(presence=30.0)


def prompted(predictor, *masks):
    state = predictor.init_state(VIDEO)
    for obj_id, mask in enumerate(masks or (MASK,), start=1):
        predictor.add_new_mask(state, 0, obj_id, mask)
    return state


def tracked(predictor, detect, *masks, **options):
    """(frame -> logits, the state, the frames on which the detector was asked)."""
    state, asked = prompted(predictor, *masks), []

    def ask(image):
        asked.append(next(at for at, frame in enumerate(VIDEO) if np.array_equal(frame, image)))
        return detect(image)

    terms = Reseeding(detect=ask, **{"every": 5, "frames": 3, **options})
    frames = list(propagate(predictor, state, terms))
    assert [frame for frame, _, _ in frames] == list(range(len(VIDEO)))
    assert all(list(obj_ids) == list(range(1, 1 + len(masks or (1,)))) for _, obj_ids, _ in frames)
    assert not [o for o in state.session.objects if is_challenger(o)]
    return {frame: logits.clone() for frame, _, logits in frames}, state, asked


def plain(predictor, *masks):
    state = prompted(predictor, *masks)
    return {frame: logits.clone() for frame, _, logits in predictor.propagate_in_video(state)}


def winning(monkeypatch, recognised=1.0):
    """Challengers win on score; whether they recognise the object is given."""
    monkeypatch.setattr(reseed, "_recognised", lambda *args: recognised)
    monkeypatch.setattr(reseed, "_contest", win(reseed._contest))


def win(contest):
    def every_challenger_wins(predictor, state, boxes, *args):
        return dict(boxes), contest(predictor, state, boxes, *args)[1]

    return every_challenger_wins


def test_an_object_in_sight_is_not_looked_for(sure):
    masks, _, asked = tracked(sure, lambda image: ([ELSEWHERE], None))
    assert asked == [] and same(masks, plain(sure))


def test_a_lost_object_is_looked_for_every_n_frames_and_nothing_found_changes_nothing(gone):
    masks, _, asked = tracked(gone, lambda image: ([], None))
    assert asked == [5, 10, 15, 20] and same(masks, plain(gone))


def test_a_challenger_that_does_not_win_leaves_nothing_behind(gone):
    masks, state, _ = tracked(gone, lambda image: ([ELSEWHERE], None))
    assert sorted(state.session.objects[1].prompts) == [0] and same(masks, plain(gone))


def test_one_that_wins_is_a_prompt_on_the_frame_where_it_was_seen(gone, monkeypatch):
    winning(monkeypatch)
    once = iter([([ELSEWHERE], None)])
    masks, state, _ = tracked(gone, lambda image: next(once, ([], None)))
    assert sorted(state.session.objects[1].prompts) == [0, 5]
    by_hand = prompted(gone)
    results = gone.propagate_in_video(by_hand)
    expected = {frame: logits.clone() for frame, _, logits in results if frame < 5}
    gone.add_new_points_or_box(by_hand, 5, 1, box=ELSEWHERE)
    expected |= {frame: logits.clone() for frame, _, logits in gone.propagate_in_video(by_hand, 5)}
    assert same(masks, expected)


def test_one_that_does_not_recognise_the_object_is_none(gone, monkeypatch):
    winning(monkeypatch, recognised=0.2)
    masks, state, _ = tracked(gone, lambda image: ([ELSEWHERE], None))
    assert sorted(state.session.objects[1].prompts) == [0] and same(masks, plain(gone))


def test_a_box_where_another_object_is_and_one_of_another_name_are_not_it(sure, gone, monkeypatch):
    winning(monkeypatch)
    found = [ELSEWHERE, (1, 1, 9, 9)], ["a ball", "a dog"]
    named = Reseeding(detect=lambda image: found, every=5, labels={1: "a dog"})
    state = prompted(gone)
    logits = torch.full((1, 1, 64, 64), -5.0)
    frame = next(at for at, _, _ in gone.propagate_in_video(state) if at == 5)
    assert reseed._contradictions(state.session, named, frame, [1], logits, 1) == {1: (1.0, 1.0, 9.0, 9.0)}
    two = prompted(gone, MASK, OTHER)
    list(gone.propagate_in_video(two))
    logits = torch.full((2, 1, 64, 64), -5.0)
    logits[1, 0, 40:60, 40:60] = 5.0
    anything = Reseeding(detect=lambda image: ([ELSEWHERE], None), every=5)
    assert reseed._contradictions(two.session, anything, 5, [1, 2], logits, 1) == {}, "that is the second object"
    assert reseed._contradictions(two.session, anything, 5, [1, 2], torch.full_like(logits, -5.0), 1) == {1: ELSEWHERE}


def test_a_pass_that_breaks_off_in_a_contest_leaves_no_challenger_for_the_next(gone):
    state = prompted(gone)
    terms = Reseeding(detect=lambda image: ([ELSEWHERE], None), every=5, frames=3)

    class Stop(Exception):
        pass

    def before_frame(frame):
        if frame == 7:
            raise Stop

    seen = []
    with pytest.raises(Stop), state.session.calling(before_frame):
        seen += [frame for frame, _, _ in propagate(gone, state, terms)]
    assert any(is_challenger(o) for o in state.session.objects)
    rest = [frame for frame, _, _ in propagate(gone, state, terms, 5)]
    assert rest == list(range(5, 24)) and list(state.session.objects) == [1]


def test_what_is_no_detection_is_one_sentence(gone):
    wrong = ([(1, 2, 3)], None), ([ELSEWHERE], ["a", "b"]), ([("x",) * 4], None), ([(0, 0, 1, np.nan)], None)
    for found in (None, [1, 2], *wrong):
        with pytest.raises(PromptError, match="expected boxes|not four numbers"):
            tracked(gone, lambda image, found=found: found)
    for terms in ({"every": 0}, {"frames": 0}):
        with pytest.raises(ConfigError, match="1 or more"):
            Reseeding(**{"detect": len, "every": 5, **terms})


def test_backwards(gone):
    state = gone.init_state(VIDEO)
    gone.add_new_mask(state, 20, 1, MASK)
    terms = Reseeding(detect=lambda image: ([ELSEWHERE], None), every=5, frames=3)
    frames = [frame for frame, _, _ in propagate(gone, state, terms, 20, reverse=True)]
    assert frames == list(range(20, -1, -1))


def test_a_memory_finds_its_own_object_on_its_own_frame(sure):
    state = prompted(sure, MASK, OTHER)
    session = state.session
    truth = session.objects[1].prompts[0].output.mask
    assert 0 <= session.finds(1, 0, 3, truth) <= 1


# ---- sam2long track --text --reseed-every ----------------------------------------------------------------------------


def test_track_reseeds_and_a_stopped_run_goes_on_to_the_same_masks(tmp_path, monkeypatch, capsys):
    asked = []

    class Detector:
        """Sees the object elsewhere on every other look."""

        phrases, min_score = ("dog",), 0.2

        def __init__(self, *args):
            pass

        def __call__(self, image):
            asked.append(image.mean())
            box = ELSEWHERE if round(float(image.mean()) * 1000) % 2 else (20.0, 10.0, 50.0, 40.0)
            return [Detection(box, "dog", 0.9)]

    monkeypatch.setattr(detection, "TextDetector", Detector)
    monkeypatch.setattr(reseed, "_recognised", lambda *args: 1.0)
    clip = noise_clip(tmp_path / "clip.mp4", 30, fps=10)
    flags = (clip, "--text", "dog", "--reseed-every", "3", *tiny_flags(tmp_path))
    whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
    assert main(["track", "--quiet", *flags, "--out", whole]) == 0
    assert len(asked) > 3, "the model is never unsure: nothing was looked for"
    said = json.loads((tmp_path / "whole" / "run.json").read_text())["settings"]["reseed"]
    assert said["every"] == 3 and said["text"] == "dog"
    interrupt_every(monkeypatch, 11)
    codes = [main(["track", "--quiet", *flags, "--out", stopped])]
    while codes[-1] == 130 and len(codes) < 20:
        codes.append(main(["track", "--quiet", "--resume", "--out", stopped]))
    assert codes[-1] == 0 and codes.count(130) >= 2
    for out in (whole, stopped):
        with MaskReader(Path(out) / "masks.jsonl") as masks:
            assert masks.frames == list(range(30)) and all(list(masks.masks(f)) == [1] for f in masks.frames)
    capsys.readouterr()
    for wrong in (("--reseed-every", "3", "--box", "1,1,9,9"), ("--text", "dog", "--reseed-every", "0")):
        assert main(["track", clip, *wrong, "--out", str(tmp_path / "no")]) == 2
        assert "--reseed-every" in capsys.readouterr().err
