"""Generated videos: same pixels everywhere, exact masks, and each scenario does what its name says."""

import hashlib
import math
import tracemalloc

import numpy as np
import pytest

from sam2long.errors import ConfigError
from sam2long.synthetic import SCENARIOS, SYNTHLONG, Bits, Curve, generate, shapes, textures
from sam2long.synthetic.arith import ONE, SINE, TURN, ramp


def digest(scene, frames):
    """One short word for the pixels and masks of some frames."""
    total = hashlib.sha256()
    for t in frames:
        frame = scene.frame(t)
        total.update(frame.image.tobytes())
        total.update(frame.ids.tobytes())
    return total.hexdigest()[:12]


# Regenerate: PYTHONPATH=. python tests/test_synthetic.py. A change here changes every published score on `synthlong`.
GOLDEN = {
    "easy": "4d1ba112bf6f",
    "occlusion": "ca31b385d0dc",
    "twins": "dddf92133141",
    "reappear": "8eff670cae85",
    "crowd": "cad5a4ca8546",
    "long": "39e359c6e143",
}
GOLDEN_FRAMES = (0, 1, 33, 59)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_seed_gives_the_pixels_written_down_here(scenario):
    assert digest(generate(scenario, 7, 60, 64), GOLDEN_FRAMES) == GOLDEN[scenario]


def test_the_sine_table_cannot_depend_on_a_machines_rounding():
    exact = [math.sin(2 * math.pi * k / TURN) * ONE for k in range(TURN)]
    from_tie = min(abs(abs(x - math.floor(x)) - 0.5) for x in exact)
    assert from_tie > 1e-5
    assert SINE.tolist() == [round(x) for x in exact]


def test_random_integers_come_from_pcg64s_raw_bits():
    assert Bits(1, 2, 3).ints(0, 999, 4).tolist() == [
        (int(raw) >> 32) * 1000 >> 32 for raw in np.random.PCG64(np.random.SeedSequence([1, 2, 3])).random_raw(4)
    ]


def test_a_curve_starts_where_it_is_told_and_stays_in_its_bounds():
    curve = Curve(Bits(5), -70, 90, 10, 500, start=25)
    values = [curve(t) for t in range(500)]
    assert values[0] == 25
    assert min(values) >= -71 and max(values) <= 90
    assert max(abs(a - b) for a, b in zip(values, values[1:], strict=False)) < 30


def test_a_ramp_goes_from_nothing_to_one():
    assert [ramp(t, 10, 4) for t in (0, 10, 12, 14, 99)] == [0, 0, ONE // 2, ONE, ONE]


def test_random_access_and_iteration_agree():
    scene = generate("long", 3, 12, 64)
    frames = list(scene)
    assert [f.index for f in frames] == list(range(12)) and len(scene) == 12
    assert np.array_equal(scene.frame(5).image, frames[5].image)
    assert np.array_equal(scene.frame(5).ids, frames[5].ids)


def test_the_masks_alone_are_those_of_the_frame():
    scene = generate("crowd", 4, 30, 96)
    for t in (0, 11, 29):
        assert np.array_equal(scene.ids(t), scene.frame(t).ids)


def test_visible_says_which_objects_have_a_pixel():
    scene = generate("reappear", 2, 120, 64, 2)
    for frame in scene:
        assert frame.visible == {k: bool((frame.ids == k).any()) for k in (1, 2)}


def test_a_mask_covers_exactly_the_painted_object():
    """With textures of one colour each, every pixel of the object's colour is in the mask and no other is."""
    scene = generate("easy", 1, 20, 128)
    target = scene._actors[-1]
    object.__setattr__(target.sprite, "colour", np.full_like(target.sprite.colour, 255))
    for ground in scene._grounds:
        ground[:] = 0
    scene._actors = [target]
    image, ids = scene._paint(8)
    assert np.array_equal(image[..., 0] == 255, ids == 1)


def test_ten_thousand_frames_cost_no_memory():
    tracemalloc.start()
    scene = generate("long", 9, 10_000, 64)
    for t in (0, 4_999, 9_999):
        scene.frame(t)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # one video of that length in memory would be 123 MB at this size


@pytest.mark.parametrize("size", [48, 128, (90, 160), (160, 90)])
def test_any_size_and_shape(size):
    scene = generate("crowd", 1, 5, size)
    height, width = (size, size) if isinstance(size, int) else size
    frame = scene.frame(4)
    assert frame.image.shape == (height, width, 3) and frame.ids.shape == (height, width)
    assert (scene.height, scene.width) == (height, width)
    assert set(np.unique(frame.ids)) <= set(range(scene.num_objects + 1))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_object_can_be_prompted_on_frame_0(scenario):
    for seed in range(8):
        scene = generate(scenario, seed, 60)
        areas = np.bincount(scene.ids(0).reshape(-1), minlength=scene.num_objects + 1)[1:]
        assert areas.min() >= 0.015 * 128 * 128, seed


def share_visible(scene):
    seen = np.array([[(ids == k).any() for k in range(1, scene.num_objects + 1)] for ids in map(scene.ids, range(300))])
    return seen


def longest_absence(seen):
    best = run = 0
    for now in seen:
        run = 0 if now else run + 1
        best = max(best, run)
    return best


def test_easy_objects_stay_in_view():
    for seed in range(3):
        assert share_visible(generate("easy", seed)).mean() > 0.97


def test_occlusion_hides_the_object_again_and_again_and_gives_it_back():
    for seed in range(3):
        seen = share_visible(generate("occlusion", seed))[:, 0]
        hidden = np.flatnonzero(np.diff(seen.astype(int)) == -1)
        assert len(hidden) >= 2 and 0.3 < seen.mean() < 0.98, seed


def test_reappear_has_absences_of_at_least_twenty_frames_and_returns():
    for seed in range(3):
        seen = share_visible(generate("reappear", seed))[:, 0]
        assert longest_absence(seen) >= 20 and seen[200:].any(), seed


def test_twins_look_alike():
    for seed in range(5):
        actors = generate("twins", seed, 10)._actors
        first = next(actor for actor in actors if actor.label == 1)
        assert sum(actor.sprite is first.sprite for actor in actors) >= 2


def test_long_changes_the_place():
    scene = generate("long", 0, 600)
    assert len(scene._cut_ticks) >= 2


def test_training_and_held_out_videos_share_no_family_and_no_random_stream():
    for families in (shapes.FAMILIES, textures.FAMILIES):
        assert not set(families["train"]) & set(families["heldout"])
        assert not {*families["train"].values()} & {*families["heldout"].values()}
        assert set(families) == {"train", "heldout"}
    a, b = generate("easy", 7, 4, 64, split="train"), generate("easy", 7, 4, 64, split="heldout")
    assert not np.array_equal(a.frame(0).image, b.frame(0).image)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_split_draws_only_from_its_own_families(split, monkeypatch):
    other = "heldout" if split == "train" else "train"

    def forbidden(bits, n):
        raise AssertionError("a family of the other split")

    for families in (shapes.FAMILIES, textures.FAMILIES):
        for name in families[other]:
            monkeypatch.setitem(families[other], name, forbidden)
    for scenario in SCENARIOS:
        generate(scenario, 11, 4, 64, split=split).frame(3)


def test_synthlong_is_forty_held_out_videos_of_at_least_300_frames():
    assert len(SYNTHLONG) == 40 and len({v.name for v in SYNTHLONG}) == 40
    assert min(v.num_frames for v in SYNTHLONG) >= 300
    assert {v.scenario for v in SYNTHLONG} == set(SCENARIOS)
    assert SYNTHLONG[0].scene(64).split == "heldout"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: generate("hard", 1), "unknown scenario 'hard'"),
        (lambda: generate("easy", 1, split="test"), "unknown split 'test'"),
        (lambda: generate("easy", 1, 0), "num_frames"),
        (lambda: generate("easy", 1, size=8), "size"),
        (lambda: generate("easy", 1, num_objects=0), "num_objects"),
        (lambda: generate("easy", -1), "seed"),
    ],
)
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_frame_outside_the_video_is_refused():
    with pytest.raises(IndexError, match="frame 5 of a video of 5"):
        generate("easy", 1, 5, 64).frame(5)


if __name__ == "__main__":
    for name in SCENARIOS:
        print(f'    "{name}": "{digest(generate(name, 7, 60, 64), GOLDEN_FRAMES)}",')
