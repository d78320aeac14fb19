"""The rows of NumPyro, on the CPU; empty where it is not installed (extra ``benchmark``)."""

from typing import Any

from torch import Tensor

from pyro_vae.data import Images

from .options import D, Options, Rows


def _svi(options: Options) -> Any:
    """NumPyro's SVI of row R1, or None on a GPU and where it is not installed."""
    if options.device != "cpu":
        return None
    try:
        import numpyro as npr
        from jax.example_libraries import stax
    except ImportError:
        return None
    from numpyro import distributions as nd

    relu, out = stax.Relu, options.latent
    encode = stax.serial(
        stax.Dense(options.hidden),
        relu,
        stax.FanOut(2),
        stax.parallel(stax.Dense(out), stax.serial(stax.Dense(out), stax.Exp)),
    )
    decode = stax.serial(stax.Dense(options.hidden), relu, stax.Dense(D))

    def model(x: Any) -> None:
        decoder = npr.module("decoder", decode, (len(x), out))
        with npr.plate("data", len(x)):
            z = npr.sample("z", nd.Normal(0, 1).expand([out]).to_event(1))
            npr.sample("x", nd.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        encoder = npr.module("encoder", encode, (len(x), D))
        loc, scale = encoder(x)
        with npr.plate("data", len(x)):
            npr.sample("z", nd.Normal(loc, scale).to_event(1))

    return npr.infer.SVI(model, guide, npr.optim.Adam(1e-3), npr.infer.Trace_ELBO())


def steps(options: Options, x: Tensor) -> Rows:
    """NumPyro's jitted update, and its whole loop in one XLA program."""
    svi = _svi(options)
    if svi is None:
        return {}
    import jax

    batch = jax.numpy.asarray(x.numpy())
    state = [svi.init(jax.random.PRNGKey(0), batch), svi.init(jax.random.PRNGKey(0), batch)]
    update = jax.jit(svi.update)
    loop = jax.jit(
        lambda s: jax.lax.fori_loop(0, options.steps, lambda i, s: svi.update(s, batch)[0], s)
    )

    def one() -> None:
        state[0], loss = update(state[0], batch)
        jax.block_until_ready(loss)

    def whole() -> None:
        state[1] = jax.block_until_ready(loop(state[1]))

    whole.steps = options.steps  # type: ignore[attr-defined]
    return {"NumPyro, jitted update": one, "NumPyro, whole loop in XLA": whole}


def epoch(options: Options, train: Images) -> Rows:
    """NumPyro's epoch in one XLA program: batches are drawn and binarised inside.

    The last, shorter batch is left out.
    """
    svi = _svi(options)
    if svi is None:
        return {}
    import jax

    images, size = jax.numpy.asarray(train.values.numpy()), options.batch

    def batch(indices: Any, key: Any) -> Any:
        return (jax.random.uniform(key, (size, D)) < images[indices] / train.levels).astype(
            jax.numpy.float32
        )

    @jax.jit
    def run(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(images))

        def step(i: Any, s: Any) -> Any:
            indices = jax.lax.dynamic_slice(order, (i * size,), (size,))
            return svi.update(s, batch(indices, jax.random.fold_in(key, i)))[0]

        return jax.lax.fori_loop(0, len(images) // size, step, state)

    key = jax.random.PRNGKey(0)
    state = [svi.init(key, batch(jax.numpy.arange(size), key)), key]

    def one() -> None:
        state[1], now = jax.random.split(state[1])
        state[0] = jax.block_until_ready(run(state[0], now))

    return {"NumPyro, whole epoch in XLA": one}
