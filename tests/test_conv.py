"""The transposed convolution beside torch's."""

import pytest
import torch
from torch import nn

from pyro_vae.nets.conv import ConvTranspose2d

TRANSPOSED = {  # arguments of a transposed convolution
    "doubling": ((3, 5, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "one output": ((3, 1, 3), {"padding": 1}),
    "two outputs, an even kernel": ((3, 2, (2, 4)), {"padding": (0, 2)}),
    "no bias": ((3, 1, 1), {"bias": False}),
    "dilated": ((3, 1, 3), {"dilation": 2}),
    "groups": ((4, 2, 3), {"groups": 2}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution_is_that_of_torch(name, dtype):
    torch.manual_seed(0)
    args, kwargs = TRANSPOSED[name]
    ours, trusted = ConvTranspose2d(*args, **kwargs), nn.ConvTranspose2d(*args, **kwargs)
    trusted.load_state_dict(ours.state_dict())
    ours, trusted = ours.to(dtype), trusted.to(dtype)
    x = torch.randn(4, args[0], 5, 6, dtype=dtype)
    for rows in (x, x[:0], x.contiguous(memory_format=torch.channels_last)):
        with torch.no_grad():
            torch.testing.assert_close(ours(rows), trusted(rows))
    a, b = (x.clone().requires_grad_() for _ in range(2))
    for net, leaf in ((ours, a), (trusted, b)):
        net(leaf).square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(ours.weight.grad, trusted.weight.grad)
    torch.testing.assert_close(ours(x[0]), trusted(x[0]))  # one image without a batch
