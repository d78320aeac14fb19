"""Neural networks, from (..., in) to (..., out) for any leading dimensions.

They use no distributions and no programs. May import: nothing of the package.
"""

from .batch_norm import BatchNormMean
from .chain import FutureGRU, GatedTransition
from .channel import FactorisedTaps, SupportLogits
from .codes import ChannelsFirst, RecurrentLogits, code_decoder, code_encoder
from .conv import ConvTranspose2d, conv_decoder, conv_encoder
from .denoiser import Denoiser, ResidualMLP, UNet, WithNoiseLevel
from .dense import Flat, mlp, set_output_bias
from .linear import Linear
from .precision import BFloat16
from .recurrent import CausalLayer, DilatedDecoder, RecurrentDecoder, RecurrentEncoder
from .residual import ResidualBlock, residual_decoder, residual_encoder
from .scaling import Divide, Log1p, Symmetric
from .timed import products_by

__all__ = [
    "BFloat16",
    "BatchNormMean",
    "CausalLayer",
    "ChannelsFirst",
    "ConvTranspose2d",
    "Denoiser",
    "DilatedDecoder",
    "Divide",
    "FactorisedTaps",
    "Flat",
    "FutureGRU",
    "GatedTransition",
    "Linear",
    "Log1p",
    "RecurrentDecoder",
    "RecurrentEncoder",
    "RecurrentLogits",
    "ResidualBlock",
    "ResidualMLP",
    "SupportLogits",
    "Symmetric",
    "UNet",
    "WithNoiseLevel",
    "code_decoder",
    "code_encoder",
    "conv_decoder",
    "conv_encoder",
    "mlp",
    "products_by",
    "residual_decoder",
    "residual_encoder",
    "set_output_bias",
]
