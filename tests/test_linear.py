"""The products of ``Linear`` against torch's."""

import pytest
import torch
from torch import nn

from pyro_vae.nets.linear import Linear, applies


@pytest.mark.parametrize("leading", [(128,), (2, 64)])
def test_large_products_are_those_of_torch(leading):
    """Values, gradients, and the gradients of a gradient, which semi-amortised inference needs."""
    torch.manual_seed(0)
    ours = Linear(300, 400)
    h = torch.randn(*leading, 300, requires_grad=True)
    weights = torch.randn(400)
    theirs = nn.Linear(300, 400)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for layer in (ours, theirs):
        value = (layer(h).tanh() @ weights).sum()
        grads = torch.autograd.grad(value, [h, *layer.parameters()], create_graph=True)
        again = torch.autograd.grad(grads[0].square().sum(), [h, *layer.parameters()])
        functional = torch.func.grad(lambda h, layer=layer: (layer(h).tanh() @ weights).sum())(h)
        results.append([value, *grads, *again, functional])
    before = str(ours(h).grad_fn.next_functions)
    assert "ProductBackward" in before or not applies(h)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
