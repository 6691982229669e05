"""Every public method of sam2's video predictor in any order, against ours with everything off (hypothesis).

What differs on purpose is in docs/method.md#differences. `AsDocumented` is sam2's predictor with exactly that put in,
difference by difference, by what its memory attention is shown; all else is its own code. Answers are compared to the
bit. SAM2LONG_EXAMPLES sets how many runs are drawn.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from sam2.sam2_video_predictor import SAM2VideoPredictor

from sam2long import Sam2LongConfig
from sam2long.errors import StateError
from tests.fakes import TINY, jpeg_folder, noise_video, reconfigured, tiny_predictor

HEIGHT, WIDTH, FRAMES = 48, 80, 6
FEW = int(os.environ.get("SAM2LONG_EXAMPLES", "12"))
STEPS = 14
CONTRADICTS_BELOW = 0.5  # IoU of a correction with what was tracked


@dataclass
class Book:
    """What is documented of one object: which prompts and memories a frame may attend to. d: 1 forward, -1 backward."""

    early: dict[int, bool] = field(default_factory=dict)  # prompted frame -> given before anything was tracked
    corrects: dict[int, int | None] = field(default_factory=dict)  # prompted frame -> direction that it corrects
    before: dict[int, torch.Tensor | None] = field(default_factory=dict)  # prompted frame -> what was tracked there
    afresh: set[int] = field(default_factory=set)  # prompted frames that contradict what was tracked
    kept: dict[int, dict[int, dict]] = field(default_factory=dict)  # d -> frame -> what was tracked, not prompted
    log: dict[int, set[int]] = field(default_factory=dict)  # d -> frames * d handed out
    good: dict[int, int] = field(default_factory=dict)  # d -> later ones (frames * d) follow from other prompts
    last: dict[int, int] = field(default_factory=dict)  # frame -> d of the pass that went over it last
    snapshot: dict[int, dict] = field(default_factory=dict)  # prompted frame -> output, as the last pass had them

    def has_been_tracked(self) -> bool:
        return any(time <= self.good.get(d, time) for d, log in self.log.items() for time in log)

    def tracked_in(self, frame: int) -> int | None:
        if self.good and frame in self.snapshot:
            return None  # its prompt was taken back
        there = [d for d, log in self.log.items() if frame * d in log]
        return self.last[frame] if self.last.get(frame) in there else there[-1] if there else None

    def changed(self, frame: int, everywhere: bool) -> None:
        for d, log in self.log.items():
            good = min(log) - 1 if everywhere and log else frame * d - 1
            self.good[d] = min(good, self.good.get(d, good))

    def forget(self) -> None:
        """What does not follow from the prompts any more."""
        for d, good in self.good.items():
            self.cut(d, good + 1)
        self.good.clear()

    def cut(self, d: int, time: int) -> None:
        self.log[d] = {at for at in self.log[d] if at < time}
        self.kept[d] = {at: out for at, out in self.kept[d].items() if at * d < time}

    def write(self, d: int, frame: int, out: dict | None = None) -> None:
        if frame * d not in self.log[d]:  # a new frame: what was later came from elsewhere
            self.cut(d, frame * d)
        self.log[d].add(frame * d)
        self.last[frame] = d
        if out is not None:
            self.kept[d][frame] = out

    def shown(self, frame: int, d: int, prompted: dict[int, dict]) -> dict:
        """What memory attention is shown on a frame."""
        time = frame * d
        fresh = max((at * d for at in self.afresh if at in prompted and at * d < time), default=-FRAMES)
        # In the order of time: attention does not mind, but for the last bits.
        cond = {
            at: prompted[at]
            for at in sorted(prompted, key=lambda at: at * d)
            if (self.early.get(at, True) or at * d <= time) and at * d >= fresh
        }
        return {
            "cond_frame_outputs": cond,
            "non_cond_frame_outputs": {at: out for at, out in self.kept[d].items() if fresh <= at * d < time},
        }


class AsDocumented(SAM2VideoPredictor):
    """sam2's predictor with the documented differences."""

    def books(self, state):
        for idx, outputs in state["output_dict_per_obj"].items():
            yield idx, outputs, outputs.setdefault("book", Book())

    def _same_past(self, state) -> None:
        """A frame shows, and a correction corrects, what is still known of it."""
        for idx, outputs, book in self.books(state):
            tracked = {frame: book.tracked_in(frame) for frame in range(FRAMES)}
            outputs["non_cond_frame_outputs"] = {
                frame: book.kept[d][frame] for frame, d in tracked.items() if d and frame in book.kept[d]
            }
            # A prompt given anew on its frame is answered as the first one was.
            known = tracked | book.corrects
            state["frames_tracked_per_obj"][idx] = {frame: {"reverse": d == -1} for frame, d in known.items() if d}

    def _prompted(self, method, state, frame, obj_id, **said):
        self._obj_id_to_idx(state, obj_id)
        self._same_past(state)
        idx = self._obj_id_to_idx(state, obj_id)
        outputs = state["output_dict_per_obj"][idx]
        book: Book = outputs["book"]
        anew = frame in book.early
        early = book.early[frame] if anew else not book.has_been_tracked()
        corrects = book.corrects[frame] if anew else book.tracked_in(frame)
        there = outputs["non_cond_frame_outputs"].get(frame)
        before = book.before[frame] if anew else there and there["pred_masks"] > 0
        answer = method(state, frame, obj_id, **said)
        book.early[frame], book.corrects[frame], book.before[frame] = early, corrects, before
        book.changed(frame, everywhere=early)
        mask = state["temp_output_dict_per_obj"][idx]["cond_frame_outputs"][frame]["pred_masks"] > 0
        book.afresh.discard(frame)
        if before is not None and before.any() and (mask & before).sum() / (mask | before).sum() < CONTRADICTS_BELOW:
            book.afresh.add(frame)  # it was after something else: no mask of it is worth correcting, from now on
            book.forget()
            alone = {"obj_idx_to_id": {0: obj_id}} | {
                name: {0: state[name][idx]} for name in ("output_dict_per_obj", "temp_output_dict_per_obj")
            }
            self.propagate_in_video_preflight(dict(state) | alone)
            book.snapshot = dict(outputs["cond_frame_outputs"])
        return answer

    def add_new_points_or_box(self, state, frame, obj_id, **said):
        return self._prompted(super().add_new_points_or_box, state, frame, obj_id, **said)

    def add_new_mask(self, state, frame, obj_id, **said):
        return self._prompted(super().add_new_mask, state, frame, obj_id, **said)

    def clear_all_prompts_in_frame(self, state, frame, obj_id, need_output=True):
        super().clear_all_prompts_in_frame(state, frame, obj_id, need_output=False)
        book: Book = state["output_dict_per_obj"][self._obj_id_to_idx(state, obj_id)]["book"]
        if frame in book.early:
            book.changed(frame, everywhere=book.early.pop(frame))
            del book.corrects[frame], book.before[frame]
            book.afresh.discard(frame)
            if not book.early:
                book.forget()
        self._same_past(state)
        return super().clear_all_prompts_in_frame(state, frame, obj_id, need_output)

    def remove_object(self, state, obj_id, strict=False, need_output=True):
        self._same_past(state)
        return super().remove_object(state, obj_id, strict, need_output)

    def propagate_in_video(self, state, start_frame_idx=None, max_frame_num_to_track=None, reverse=False):
        self.propagate_in_video_preflight(state)
        d = -1 if reverse else 1
        first = min(at for _, outputs, _ in self.books(state) for at in outputs["cond_frame_outputs"])
        start = first if start_frame_idx is None else start_frame_idx
        if start > 0 or not reverse:
            self.begin(state, start, d)
        for answer in super().propagate_in_video(state, start_frame_idx, max_frame_num_to_track, reverse):
            for _, outputs, book in self.books(state):
                if answer[0] in outputs["cond_frame_outputs"]:
                    book.write(d, answer[0])
            yield answer

    def begin(self, state, start, d) -> None:
        for _, outputs, book in self.books(state):
            book.log[d] = book.log.pop(d, set())
            book.kept.setdefault(d, {})
            book.forget()
            book.snapshot = dict(outputs["cond_frame_outputs"])
            root = max((at for at in book.snapshot if at * d < start * d), key=lambda at: at * d, default=None)
            if root is not None and root * d not in book.log[d]:
                book.write(d, root)

    def _run_single_frame_inference(self, inference_state, output_dict, frame_idx, **how):
        book: Book = output_dict["book"]
        d = -1 if how["reverse"] else 1
        if not how["run_mem_encoder"]:  # a prompt
            if not how["is_init_cond_frame"]:
                others = {at: out for at, out in book.snapshot.items() if at != frame_idx}
                output_dict = book.shown(frame_idx, d, others)
                rooted = any(at < frame_idx * d for at in book.log[d])
                how["is_init_cond_frame"] = not (rooted and output_dict["cond_frame_outputs"])
            return super()._run_single_frame_inference(inference_state, output_dict, frame_idx, **how)
        if not any(at * d <= frame_idx * d for at in book.snapshot):
            # A late object is empty before its first prompt.
            nothing = torch.full((1, 1, self.image_size // 4, self.image_size // 4), NO_OBJ_SCORE)
            return {"pred_masks": nothing}, nothing
        shown = book.shown(frame_idx, d, book.snapshot)
        out, masks = super()._run_single_frame_inference(inference_state, shown, frame_idx, **how)
        book.write(d, frame_idx, out)
        return out, masks


def built_as_documented(weights):
    config = OmegaConf.load(TINY).model
    config._target_ = f"{__name__}.AsDocumented"
    config.add_all_frames_to_correct_as_cond = True  # a correction becomes a memory: sam2's own setting
    predictor = instantiate(config, _recursive_=True).eval()
    predictor.load_state_dict(weights)
    return predictor


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(ours with everything off, sam2's as documented, a folder with a video)"""
    ours = reconfigured(tiny_predictor(), Sam2LongConfig.sam2())
    ours.row_budget = 1  # objects one by one, as sam2 has them: the same bits
    folder = jpeg_folder(tmp_path_factory.mktemp("video") / "frames", noise_video(FRAMES), (WIDTH, HEIGHT))
    return ours, built_as_documented(ours.state_dict()), str(folder)


OBJECTS = st.integers(1, 3)
PLACES = st.integers(0, FRAMES - 1)
POINTS = st.lists(st.tuples(st.integers(0, WIDTH), st.integers(0, HEIGHT), st.sampled_from([1, 1, 0])), min_size=1,
                  max_size=3)  # fmt: skip
BOXES = st.tuples(st.integers(0, 40), st.integers(0, 24), st.integers(41, WIDTH), st.integers(25, HEIGHT))
DONE: Counter = Counter()


class Alike(RuleBasedStateMachine):
    """Each rule asks both the same, and their answers must be equal."""

    both: tuple

    @initialize()
    def open(self):
        self.ours, self.theirs, folder = self.both
        self.states = [(self.theirs, self.theirs.init_state(folder)), (self.ours, self.ours.init_state(folder))]
        self.prompted: dict[int, set[int]] = {}
        DONE["runs"] += 1

    def ask(self, method, *said, **more):
        DONE[method] += 1
        one, two = (self.answer(*each, method, *said, **more) for each in self.states)
        self.equal(one, two)
        return one

    def answer(self, predictor, state, method, *said, **more):
        found = getattr(predictor, method)(state, *said, **more)
        if isinstance(found, tuple) and isinstance(found[1], list) and len(found) == 3:
            return found[0], list(found[1]), found[2].clone()
        return found

    def equal(self, one, two):
        if isinstance(one, torch.Tensor):
            assert isinstance(two, torch.Tensor) and one.shape == two.shape and one.dtype == two.dtype
            # Where nothing is, all logits are -1024; enlarging that, as we do, costs the last bit.
            one, two = (masks.clamp(min=-1000) for masks in (one, two))
            apart = (one - two).abs().amax(dim=(1, 2, 3)).tolist()
            assert torch.equal(one, two), f"logits differ by {apart}, object by object"
            DONE["masks"] += len(one)
            DONE["masks with something and not all"] += sum(bool(0 < (row > 0).float().mean() < 1) for row in one)
        elif isinstance(one, list | tuple):
            assert len(one) == len(two), (one, two)
            for each in zip(one, two, strict=True):
                self.equal(*each)
        else:
            assert one == two, (one, two)

    @rule(frame=PLACES, obj=OBJECTS, points=POINTS, more=st.booleans())
    def click(self, frame, obj, points, more):
        where, labels = [point[:2] for point in points], [point[2] for point in points]
        self.ask("add_new_points_or_box", frame, obj, points=where, labels=labels, clear_old_points=not more)
        self.prompted.setdefault(obj, set()).add(frame)

    @rule(frame=PLACES, obj=OBJECTS, box=BOXES, points=st.one_of(st.none(), POINTS))
    def box(self, frame, obj, box, points):
        more = {"points": [p[:2] for p in points], "labels": [p[2] for p in points]} if points else {}
        self.ask("add_new_points_or_box", frame, obj, box=box, **more)
        self.prompted.setdefault(obj, set()).add(frame)

    @rule(frame=PLACES, obj=OBJECTS, box=BOXES, empty=st.integers(0, 9))
    def mask(self, frame, obj, box, empty):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[box[1] : box[3], box[0] : box[2]] = empty != 0
        self.ask("add_new_mask", frame, obj, mask=mask)
        self.prompted.setdefault(obj, set()).add(frame)

    @precondition(lambda self: self.prompted)  # of no object: sam2 makes an empty one, we refuse
    @rule(frame=PLACES, pick=st.integers(0, 99), need_output=st.booleans())
    def clear(self, frame, pick, need_output):
        obj = sorted(self.prompted)[pick % len(self.prompted)]
        frames = sorted(self.prompted[obj])
        if frames and pick % 4:  # mostly where there is something to clear
            frame = frames[pick // 4 % len(frames)]
        self.ask("clear_all_prompts_in_frame", frame, obj, need_output=need_output)
        self.prompted[obj].discard(frame)

    @rule(obj=st.integers(1, 4), need_output=st.booleans(), everything=st.integers(0, 3))
    def forget(self, obj, need_output, everything):
        if everything == 3:
            self.ask("reset_state")
            self.prompted.clear()
        else:
            self.ask("remove_object", obj, need_output=need_output)
            self.prompted.pop(obj, None)

    def can_go(self):
        return bool(self.prompted) and all(self.prompted.values())

    @rule()
    def preflight(self):
        if self.can_go():
            self.ask("propagate_in_video_preflight")
            return
        for (predictor, state), error in zip(self.states, (RuntimeError, StateError), strict=True):
            with pytest.raises(error):
                predictor.propagate_in_video_preflight(state)
            with pytest.raises(error):
                next(iter(predictor.propagate_in_video(state)))

    @precondition(can_go)
    @rule()
    def forwards(self):
        self.track(None, None, False, None)

    @precondition(can_go)
    @rule(start=PLACES)
    def backwards(self, start):
        self.track(start, None, True, None)

    @precondition(can_go)
    @rule(
        start=st.one_of(st.none(), PLACES), count=st.one_of(st.none(), st.integers(0, FRAMES)),
        reverse=st.booleans(), leave=st.one_of(st.none(), st.integers(1, 3)),
    )  # fmt: skip
    def in_part(self, start, count, reverse, leave):
        self.track(start, count, reverse, leave)

    def track(self, start, count, reverse, leave):
        """Frame by frame; sometimes left before the end."""
        DONE["backwards" if reverse else "forwards"] += 1
        options = {"start_frame_idx": start, "max_frame_num_to_track": count, "reverse": reverse}
        passes = [iter(predictor.propagate_in_video(state, **options)) for predictor, state in self.states]
        frames = 0
        while leave is None or frames < leave:
            found = [next(each, None) for each in passes]
            self.equal(*found)
            if found[0] is None:
                break
            frames += 1
        for each in passes:
            each.close()
        DONE["frames"] += frames


def play(both, examples, **more):
    machine = type("Machine", (Alike,), {"both": both})
    quiet = settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck), **more
    )
    run_state_machine_as_test(machine, settings=quiet)


def test_sam2s_methods_in_any_order_answer_alike(both):
    play(both, FEW, derandomize=True)
