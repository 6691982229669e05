"""What travels together between host and device, and what is done with it before it has arrived."""

import pytest
import torch

from sam2long import Sam2LongConfig
from sam2long.network.devices import HOST, Outgoing, moved_together
from tests.fakes import MASK, OTHER, THIRD, collect, noise_video, same, tiny_predictor
from tests.rehearsal.counting import on_gpu
from tests.rehearsal.device import PretendedCuda
from tests.rehearsal.ledger import FROM_DEVICE, TO_DEVICE

DEVICE = torch.device("cuda:0")
UNSURE = Sam2LongConfig(certainty_threshold=1e9, max_lag=6)  # masks wait, on the host
VIDEO = noise_video(18)
MIXED = [
    torch.tensor([[1.5, -2.0]]),
    torch.tensor([True, False, True]),
    torch.arange(5),
    torch.ones(2, 3, dtype=torch.bfloat16),
    torch.zeros(0, 4),
    torch.tensor(7.0),
]


@pytest.fixture
def gpu():
    with PretendedCuda() as machine:
        yield machine


def test_tensors_of_all_types_go_over_in_one_copy(gpu):
    there = moved_together([*MIXED, MIXED[0]], DEVICE)
    assert len(gpu.ledger.copied(TO_DEVICE)) <= 2 and not gpu.ledger.blocking and not gpu.ledger.waits
    for sent, found in zip([*MIXED, MIXED[0]], there, strict=True):
        assert found.device == DEVICE and found.dtype == sent.dtype and torch.equal(found.cpu(), sent)


def test_what_leaves_comes_with_the_next_numbers_in_one_copy(gpu):
    there, outgoing = [tensor.to(DEVICE) for tensor in MIXED if tensor.numel()], Outgoing()
    numbers = torch.tensor([[1.0, 2.0]]).to(DEVICE)
    gpu.ledger.clear()
    assert all(outgoing.on_host(tensor) is None for tensor in there), "nothing has been sent yet"
    assert outgoing.read_out(numbers) == [[1.0, 2.0]]
    assert len(gpu.ledger.waits) == 1 and len(gpu.ledger.copied(FROM_DEVICE)) == 1 and not gpu.ledger.blocking
    for tensor in there:
        copy = outgoing.on_host(tensor)
        assert copy.device == HOST and copy.dtype == tensor.dtype and torch.equal(copy, tensor.cpu())
    outgoing.read_out(numbers)
    assert outgoing.on_host(there[0]) is None, "a copy is kept until the next trip"


def test_on_a_cpu_nothing_travels():
    tensor = torch.ones(3)
    assert Outgoing().on_host(tensor) is tensor
    assert moved_together([tensor, tensor], HOST)[1] is tensor


def corrected(predictor, tmp_path, reverse=False):
    """Masks of a video that is tracked, corrected where checkpoints are just arriving, saved, read back and left."""
    start = 17 if reverse else 0
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, start, 1, torch.from_numpy(MASK))
    predictor.add_new_mask(state, start, 2, torch.from_numpy(OTHER))
    masks = {}
    for count, (frame, _, found) in enumerate(predictor.propagate_in_video(state, start, reverse=reverse)):
        masks[frame] = found.cpu()
        if count == 7:
            predictor.save_state(state, tmp_path / "state")
            at = frame
        if count == 11:
            masks["corrected"] = predictor.add_new_mask(state, frame, 1, torch.from_numpy(THIRD))[2].cpu()
    state = predictor.load_state(tmp_path / "state", VIDEO)
    after = collect(predictor, state, start_frame_idx=at - 1 if reverse else at + 1, reverse=reverse)
    masks |= {("loaded", frame): found.cpu() for frame, found in after.items()}
    masks["clicked"] = predictor.add_new_points_or_box(state, 9, 2, points=[[30, 30]], labels=[1])[2].cpu()
    masks |= {("again", frame): found.cpu() for frame, found in collect(predictor, state, start_frame_idx=6).items()}
    return masks


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_masks_that_waited_on_the_host_and_checkpoints_are_the_cpus_to_the_bit(tmp_path, reverse):
    predictor = tiny_predictor(sam2long=UNSURE, dtype="float32")
    expected = corrected(predictor, tmp_path, reverse)
    with on_gpu(predictor):
        assert same(corrected(predictor, tmp_path, reverse), expected)


def test_a_checkpoint_can_be_gone_back_to_before_it_has_arrived():
    predictor = tiny_predictor(sam2long=UNSURE, dtype="float32")
    with on_gpu(predictor):
        state = predictor.init_state(VIDEO)
        predictor.add_new_mask(state, 0, 1, torch.from_numpy(MASK))
        frames = predictor.propagate_in_video(state)
        checkpoints = None
        while checkpoints is None or checkpoints._arriving is None:
            next(frames)
            checkpoints = state.session.objects[1].checkpoints[1]
        arriving = checkpoints._arriving[0]
        assert arriving.time not in checkpoints.times
        assert checkpoints.latest(arriving.time, DEVICE, None) is arriving
        earlier = checkpoints.latest(arriving.time - 1, DEVICE, None)
        assert earlier is None or earlier.time < arriving.time
        checkpoints.drop_after(arriving.time - 1)
        assert checkpoints._arriving is None
