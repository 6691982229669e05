"""The pretended device itself: what CUDA does, it does; what CUDA would count, it counts."""

import copy
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.rehearsal.device import DeviceTensor, PretendedCuda
from tests.rehearsal.ledger import FROM_DEVICE, TO_DEVICE
from tests.rehearsal.traffic import Race


@pytest.fixture
def gpu():
    with PretendedCuda(devices=2) as machine:
        yield machine


@pytest.fixture(params=[False, True], ids=["grad mode", "inference mode"])
def either_mode(request):
    with torch.inference_mode(request.param):
        yield


def here(x=None, device="cuda:0"):
    return (torch.arange(12.0).reshape(3, 4) if x is None else torch.as_tensor(x)).to(device)


# ---- computing -----------------------------------------------------------------------------------------------


OPERATIONS = {
    "arithmetic": lambda x: (x + 1) * x - x / 3,
    "a 0-dim number of the host": lambda x: x * torch.tensor(2.0),
    "comparison": lambda x: torch.where(x > 5, x, 0.5),
    "matmul": lambda x: x @ x.mT,
    "linear": lambda x: F.linear(x, x[:2], x[0, :2]),
    "reduction": lambda x: x.softmax(-1).sum(0),
    "indices": lambda x: x[:, [2, 0]],
    "a mask": lambda x: x[x > 5],
    "gather": lambda x: x.gather(1, (x.long() % 4)),
    "cat and stack": lambda x: torch.stack([torch.cat([x, x]), torch.cat([x, -x])]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "convolution": lambda x: F.conv2d(x[None, None], x[None, None, :2, :2]),
    "enlarging": lambda x: F.interpolate(x[None, None], size=(7, 9), mode="bilinear", align_corners=False),
    "layer norm": lambda x: F.layer_norm(x, (4,)),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "pooling": lambda x: F.max_pool2d(x[None], 2, 1),
    "top": lambda x: x.topk(2).values,
    "sorting": lambda x: x.flip(1).sort().values,
    "complex": lambda x: torch.view_as_real(torch.view_as_complex(x.view(3, 2, 2)) ** 2),
    "splitting": lambda x: x.split(2)[1] + x.unbind(0)[0] + x.chunk(2, 1)[0].sum(),
    "views": lambda x: x.view(2, 6).t().unflatten(0, (2, 3)).permute(2, 0, 1).flatten(1).expand(2, 6).narrow(1, 1, 3),
    "contiguous": lambda x: x.t().contiguous(),
    "clone": lambda x: x.clone().fill_(3),
    "repeat": lambda x: x.repeat_interleave(2, dim=1),
    "as a type": lambda x: x.half().float().int().bool(),
    "new ones": lambda x: x.new_zeros(2, 2) + x.new_tensor([1.0, 2.0]) + x.new_full((2,), 3),
    "ones like it": lambda x: torch.ones_like(x) + torch.zeros_like(x) + torch.full_like(x, 3),
    "a scatter": lambda x: torch.zeros(5).to(x.device).scatter_add_(0, x.long().flatten() % 5, x.flatten()),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_computes_the_cpus_bits(name, gpu, either_mode):
    there = OPERATIONS[name](here())
    assert isinstance(there, DeviceTensor) and there.device == torch.device("cuda:0") and there.is_cuda
    expected = OPERATIONS[name](torch.arange(12.0).reshape(3, 4))
    assert there.shape == expected.shape and there.stride() == expected.stride() and there.dtype == expected.dtype
    assert torch.equal(there.cpu(), expected)


def test_what_is_done_in_place_is_seen_in_every_view(gpu, either_mode):
    x = here()
    first, kept = x[0], x
    x += 1
    x[1, 2:] = 7
    x[2] = torch.zeros(4, device="cuda:0")
    x[:, 0].mul_(10)
    x.clamp_(max=30)
    x[x > 29] = -1
    assert kept is x
    assert first.tolist() == [10, 2, 3, 4]
    assert x.tolist() == [[10, 2, 3, 4], [-1, 6, 7, 7], [0, 0, 0, 0]]


def test_shapes_may_change_in_place(gpu, either_mode):
    x = here()
    assert x.unsqueeze_(0) is x and x.shape == (1, 3, 4)
    assert x.squeeze_(0).t_().shape == (4, 3) and x.stride() == (1, 4)
    out = torch.empty(0, device="cuda:0")
    assert torch.add(here(), 1, out=out) is out
    assert torch.equal(out.cpu(), here().cpu() + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, 3, device="cuda:1"),
        lambda: torch.full((2, 3), 0.0, device=torch.device("cuda", 1)),
        lambda: torch.tensor([[0.0] * 3] * 2, device="cuda:1"),
        lambda: torch.zeros(2, 3).to("cuda:1"),
        lambda: torch.zeros(2, 3).cuda(1),
        lambda: torch.zeros(2, 3).to(torch.ones(1, device="cuda:1")),
        lambda: torch.ones(1, device="cuda:1").new_zeros(2, 3),
        lambda: torch.zeros(2, 3, device="cuda:0").to("cuda:1"),
        lambda: torch.from_numpy(np.zeros((2, 3), np.float32)).to("cuda:1", non_blocking=True),
        lambda: copy.deepcopy(torch.zeros(2, 3, device="cuda:1")),
    ],
)
def test_every_way_onto_the_device(make, gpu, either_mode):
    made = make()
    assert made.device == torch.device("cuda:1") and made.shape == (2, 3)
    assert made.dtype == torch.float32 and made.cpu().abs().sum() == 0


def test_the_current_and_the_default_device(gpu):
    with torch.device("cuda:1"):
        assert torch.zeros(1).device.index == 1
    with torch.cuda.device(1):
        assert torch.zeros(1, device="cuda").device.index == 1
    assert torch.zeros(1, device="cuda").device.index == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(1).to("cuda:2")


def test_modules_move_and_come_back(gpu):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    expected = module(torch.ones(1, 1, 5, 5))
    module.to("cuda:0")
    assert {p.device.type for p in (*module.parameters(), *module.buffers())} == {"cuda"}
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())
    assert torch.equal(module(torch.ones(1, 1, 5, 5, device="cuda")).cpu(), expected)
    again = copy.deepcopy(module)
    module.to("cpu")
    assert torch.equal(module(torch.ones(1, 1, 5, 5)), expected)
    assert torch.equal(again(torch.ones(1, 1, 5, 5, device="cuda")).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_chooses_as_cuda_does(dtype, gpu):
    """CUDA's lists, not the CPU's: there layer norm, softmax and sums stay in the low precision."""
    x, weight = here(), torch.ones(4, 4, device="cuda:0")
    with torch.inference_mode(), torch.autocast("cuda", dtype=dtype):
        low = F.linear(x, weight)
        assert low.dtype == (x @ weight).dtype == dtype
        assert F.conv2d(x[None, None], weight[None, None, :2, :2]).dtype == dtype
        assert F.scaled_dot_product_attention(x[None], x[None], x[None]).dtype == dtype
        assert F.layer_norm(low, (4,)).dtype == low.softmax(-1).dtype == low.sum().dtype == torch.float32
        assert torch.cat([low, x]).dtype == torch.float32  # the widest
        assert F.gelu(low).dtype == dtype
        with torch.autocast("cuda", enabled=False):
            assert F.linear(x, weight).dtype == torch.float32
    assert F.linear(x, weight).dtype == torch.float32


def test_generators_repeat_themselves(gpu):
    def drawn():
        return torch.randn(3, device="cuda", generator=torch.Generator(device="cuda").manual_seed(4))

    assert drawn().device.type == "cuda" and torch.equal(drawn().cpu(), drawn().cpu())
    assert torch.Generator(device="cuda:1").device == torch.device("cuda:1")
    assert torch.Generator().device == torch.device("cpu")


def test_other_threads_have_it_too(gpu):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(2, device="cuda") + here()[0, :2]))
    thread.start()
    thread.join()
    assert found[0].tolist() == [0, 1]


def test_the_host_is_itself_within_and_afterwards():
    from torch.cuda import is_available

    before = is_available()
    with PretendedCuda():
        assert type(torch.zeros(2) + 1) is torch.Tensor
        left = torch.zeros(2, device="cuda")
    assert torch.cuda.is_available() is before and torch.cuda.Event.__module__ != "tests.rehearsal.runtime"
    with pytest.raises(RuntimeError, match="after it was gone"):
        left + 1


# ---- what CUDA refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.cat([x, torch.ones(1, 4)]),
        lambda x: x @ torch.ones(4, 2),
        lambda x: F.linear(x, torch.ones(4, 4)),
        lambda x: torch.where(torch.ones(3, 4, dtype=torch.bool), x, x),
        lambda x: x.add_(torch.ones(4)),
        lambda x: x + torch.ones(4, device="cuda:1"),
        lambda x: F.conv2d(torch.ones(1, 1, 5, 5), x[None, None]),
        lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
    ],
)
def test_operands_on_two_devices_are_named_with_file_and_line(mix, gpu, either_mode):
    with pytest.raises(RuntimeError, match=r"(?s)on the same device.* at test_device.py:\d+"):
        mix(here())


def test_numpy_wants_the_host(gpu):
    with pytest.raises(TypeError, match=r"can't convert cuda:0 .*at test_device.py:\d+"):
        here().numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        np.asarray(here())
    assert here().cpu().numpy().shape == (3, 4)


# ---- waits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "look, what",
    [
        (lambda x: x[0, 0].item(), "item"),
        (lambda x: float(x.sum()), "item"),
        (lambda x: bool(x[0, 0] > 0), "item"),
        (lambda x: int(x.max()), "item"),
        (lambda x: [0] * 9 if x.sum() > 3 else None, "item"),
        (lambda x: torch.arange(9)[x[0, 1].long()], "item"),
        (lambda x: x[x > 3], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.masked_select(x > 3), "masked_select"),
        (lambda x: x.long().unique(), "_unique2"),
        (lambda x: x.tolist(), "blocking copy"),
        (lambda x: x.cpu(), "blocking copy"),
        (lambda x: torch.zeros(3, 4).copy_(x), "blocking copy"),
        (lambda x: f"{x[0, 0]:.2f}", "item"),
    ],
)
def test_every_hidden_wait_is_counted_and_named(look, what, gpu, either_mode):
    x = here()
    gpu.ledger.clear()
    look(x)
    (wait,) = gpu.ledger.hidden
    assert wait.what == what and wait.place.startswith("test_device.py:")


@pytest.mark.parametrize(
    "send",
    [
        lambda x: torch.ones(4).to("cuda:0"),
        lambda x: torch.ones(4).pin_memory().to("cuda:0"),
        lambda x: torch.ones(4).to("cuda:0", non_blocking=True),  # from pageable memory it may wait all the same
        lambda x: torch.tensor([1, 2], device="cuda:0"),
        lambda x: x.copy_(torch.ones(3, 4)),
        lambda x: x[[1, 2]],  # a list of indices is a tensor of the host
        lambda x: x[torch.tensor([1, 2])],
        lambda x: torch.empty(3, 4).copy_(x, non_blocking=True),  # into pageable memory
        lambda x: x.new_tensor([1.0]),
    ],
)
def test_blocking_copies_are_counted_and_named(send, gpu, either_mode):
    x = here()
    gpu.ledger.clear()
    send(x)
    (copied,) = gpu.ledger.blocking
    assert copied.place.startswith("test_device.py:")


def test_work_on_the_device_alone_waits_for_nothing(gpu, either_mode):
    x, index, mask = here(), here([1, 0]), here([True, False, True])
    gpu.ledger.clear()
    x[index].sum(0)
    x[mask] = 0.0  # filled, not looked for
    x[1] = 5
    x[torch.arange(2, device="cuda:0"), index]
    torch.where(x > 2, x, 0.0).argmax()
    assert gpu.ledger.waits == [] and gpu.ledger.copies == []
    assert gpu.ledger.launched > 5


def test_pinned_memory_travels_without_waiting_and_arrives_when_waited_for(gpu, either_mode):
    x = torch.arange(3.0).pin_memory()
    assert x.is_pinned() and not torch.arange(3.0).is_pinned() and torch.empty(2, pin_memory=True).is_pinned()
    there = x.to("cuda:0", non_blocking=True) * 2
    back = there.to("cpu", non_blocking=True)
    buffer = torch.empty(3, pin_memory=True).copy_(there, non_blocking=True)
    assert back.is_pinned() and back.isnan().all() and buffer.isnan().all()
    event = torch.cuda.current_stream().record_event()
    assert gpu.ledger.waits == [] and not gpu.ledger.blocking and not event.query()
    event.synchronize()
    assert event.query() and back.tolist() == buffer.tolist() == [0, 2, 4]
    assert [(wait.what, wait.asked) for wait in gpu.ledger.waits] == [("event", True)]
    assert len(gpu.ledger.copied(TO_DEVICE)) == 1 and len(gpu.ledger.copied(FROM_DEVICE)) == 2
    assert {copied.bytes for copied in gpu.ledger.copies} == {12}


def test_what_is_known_to_be_over_is_not_waited_for(gpu):
    x = here()
    earlier = torch.cuda.Event()
    earlier.record()
    x + 1
    later = torch.cuda.current_stream().record_event()
    x + 2
    gpu.ledger.clear()
    later.synchronize()
    earlier.synchronize()
    later.synchronize()
    assert len(gpu.ledger.waits) == 1
    torch.cuda.synchronize()
    torch.cuda.current_stream().synchronize()
    assert [wait.what for wait in gpu.ledger.waits] == ["event", "device"]


def test_streams_run_beside_each_other_until_one_waits_for_another(gpu):
    side, x = torch.cuda.Stream(), here()
    with torch.cuda.stream(side):
        back = (x + 1).to("cpu", non_blocking=True)
    torch.cuda.current_stream().synchronize()
    assert back.isnan().all()
    torch.cuda.current_stream().wait_stream(side)
    x + 1
    torch.cuda.current_stream().synchronize()
    assert torch.equal(back, here().cpu() + 1)


def test_a_buffer_on_its_way_may_go_back_to_the_device_but_not_be_overwritten(gpu):
    back = (here() + 1).to("cpu", non_blocking=True)
    assert torch.equal(back.to("cuda:0", non_blocking=True).cpu(), here().cpu() + 1)  # one stream, in order
    buffer = torch.zeros(2).pin_memory()
    buffer.to("cuda:0", non_blocking=True)
    torch.cuda.synchronize()
    buffer += 1  # it has left
    buffer.to("cuda:0", non_blocking=True)
    buffer.numpy()[:] = 5
    with pytest.raises(Race, match=r"at test_device.py:\d+"):
        torch.cuda.synchronize()


# ---- counting ------------------------------------------------------------------------------------------------


def test_kernels_flops_bytes_and_memory(gpu, either_mode):
    a, b = torch.ones(8, 16, device="cuda"), torch.ones(16, 4, device="cuda")
    held = gpu.ledger.in_use
    gpu.ledger.clear()
    c = a @ b
    view = c.t()[1:]
    assert dict(gpu.ledger.kernels) == {"mm": 1}
    assert gpu.ledger.flops == 2 * 8 * 16 * 4
    assert gpu.ledger.bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert gpu.ledger.in_use == held + 4 * 8 * 4
    del c
    assert gpu.ledger.in_use == held + 4 * 8 * 4  # the view keeps it
    del view
    assert gpu.ledger.in_use == held and gpu.ledger.peak == held + 4 * 8 * 4
    assert torch.cuda.max_memory_allocated() == gpu.ledger.peak


def test_a_network_is_counted_without_being_computed():
    layer = nn.Linear(1 << 12, 1 << 12, bias=False)
    with (
        PretendedCuda(compute=False, answer=lambda x: torch.full(x.shape, 0.5, dtype=x.dtype)) as gpu,
        torch.inference_mode(),
    ):
        out = F.scaled_dot_product_attention(*[layer.to("cuda")(torch.zeros(1, 2, 64, 1 << 12, device="cuda"))] * 3)
        assert out.inner.is_meta and out.shape == (1, 2, 64, 1 << 12)
        assert gpu.ledger.flops == 2 * 128 * (1 << 24) + 2 * 2 * 2 * 64 * 64 * (1 << 12)
        assert gpu.ledger.peak >= 4 << 24
        assert out.sum().item() == 0.5 and out[0, 0, :1, :3].tolist() == [[0.5] * 3]
