import pytest
import torch

from sam2long.method.modulation import rank_weights, weight_keys


def test_weights_follow_the_rank_not_the_size():
    weights = rank_weights(torch.tensor([[3.0, -1.0, 100.0]]), 0.95, 1.05)
    assert weights.tolist() == [pytest.approx([1.0, 0.95, 1.05])]


def test_ties_keep_input_order():
    assert rank_weights(torch.tensor([[10.0, 10.0, 2.0]]), 0.9, 1.1).tolist() == [pytest.approx([1.0, 1.1, 0.9])]


def test_rows_are_ranked_separately():
    weights = rank_weights(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 0.9, 1.1)
    assert weights.tolist() == [pytest.approx([0.9, 1.1]), pytest.approx([1.1, 0.9])]


def test_a_lone_memory_gets_the_low_weight():
    assert rank_weights(torch.tensor([[7.0]]), 0.95, 1.05).tolist() == [pytest.approx([0.95])]


@pytest.mark.parametrize(
    ("logits", "low", "high"), [((2,), 0.9, 1.1), ((2, 0), 0.9, 1.1), ((1, 2), 1.1, 0.9), ((1, 2), 0, 1)]
)
def test_wrong_shapes_and_bounds_are_refused(logits, low, high):
    with pytest.raises(ValueError):
        rank_weights(torch.zeros(*logits), low, high)


def test_keys_are_weighted_and_values_are_not():
    memory, pos = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    weights = torch.tensor([0.5, 1.0, 1.5, 2.0, 1.0])[:, None].expand(5, 2)
    keys = memory + weight_keys(memory, pos, weights)
    assert torch.allclose(keys, weights[..., None] * (memory + pos), atol=1e-6)
