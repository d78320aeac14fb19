"""Systems of the literature as configurations: ``scripts/train.py --preset r3 --data-dir DIR``.

Other options override those of a preset.
"""

from dataclasses import replace

from .config import Config

_MNIST = Config(dataset="mnist", epochs=10)


PRESETS: dict[str, Config] = {
    # The classic: one hidden layer of 400 units, z = 20, dynamic binarisation, Adam.
    "r1": replace(_MNIST, preset="r1"),
    # A beta-VAE with two hidden layers (Higgins et al. 2017): E[log p(x | z)] - beta KL.
    "r2": replace(_MNIST, preset="r2", hidden=(512, 256), beta=4.0, epochs=20),
    # A convolutional VAE with a latent space one can look at.
    "r3": replace(
        _MNIST, preset="r3", architecture="conv", latent_dim=2, epochs=20, num_samples=100
    ),
    # A residual convolutional VAE of grey pixels, x ~ N(f(z), s^2 I), its scale s learned.
    #
    # Its published form minimises c KL + 1/D sum_d (x_d - f_d)^2 with c = 0.0025 and D = 784.
    # The negative ELBO of the normal likelihood is KL + 1/(2 s^2) sum_d (x_d - f_d)^2 + constant.
    # With a weight beta of the KL, and multiplied by 2 s^2 / D, its squared error is the published
    # one, and its KL has the weight c = 2 s^2 beta / D.
    # - With beta = 1, s^2 = c D / 2 = 0.98: noise as large as the contrast of the images, which is
    #   why the published results are blurred.
    # - With s = 0.1, about the error that a good decoder leaves, beta = c D / (2 s^2) = 98.
    # The learned scale finds the noise that is there, at beta = 1.
    "r4": replace(
        _MNIST,
        preset="r4",
        architecture="residual",
        pixels="grey",
        likelihood="normal",
        learn_scale=True,
        latent_dim=16,
    ),
    # Auto-Encoding Variational Bayes (Kingma & Welling 2013): tanh, 500 hidden units, Adagrad,
    # batches of 100. Choose --latent-dim from 3, 5, 10, 20, 200.
    "r5": replace(
        _MNIST,
        preset="r5",
        hidden=(500,),
        activation="tanh",
        optimiser="adagrad",
        lr=0.02,
        batch_size=100,
        objective="analytic",
        epochs=20,
    ),
}
