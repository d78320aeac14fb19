"""The sites of a specification as text, in model and guide, and the evidence."""

from .spec import DISCRETE, Spec

ZEROS = "torch.zeros({dim}, dtype=torch.float64)"
NOISE = 0.8
RATES = "torch.arange(1.0, {n}, dtype=torch.float64)"


def _prior(spec: Spec, loc: str = "") -> str:
    """p(z), of an event or of a scalar."""
    size = "()" if spec.scalar else str(spec.dim)
    event = "" if spec.scalar else ".to_event(1)"
    loc = loc or f"torch.zeros({size}, dtype=torch.float64)"
    return f"dist.Normal({loc}, torch.ones((), dtype=torch.float64)){event}"


def _code(spec: Spec, name: str = "z") -> str:
    """A latent with a last dimension, for a network."""
    return f"{name}.unsqueeze(-1)" if spec.scalar else name


def model_latents(spec: Spec) -> str:
    """p(z), and ``code``, what the decoder gets."""
    obs = ", obs=labels" if spec.labels else ""
    if spec.latent == "categorical":
        probs = RATES.format(n=spec.dim + 1)
        y = f'y = pyro.sample("y", dist.Categorical({probs} / {probs}.sum()){obs})'
        return f"{y}\ncode = nn.functional.one_hot(y, {spec.dim}).double()"
    if spec.latent in ("onehot", "relaxed"):
        probs = RATES.format(n=spec.dim + 1)
        return (
            f'y = pyro.sample("y", dist.OneHotCategorical({probs} / {probs}.sum()){obs})\ncode = y'
        )
    if spec.latent == "bernoulli":
        half = "torch.tensor(0.3, dtype=torch.float64)"
        fill = f", *[1 - y] * {spec.dim - 1}"
        return (
            f'y = pyro.sample("y", dist.Bernoulli({half}){obs})\ncode = torch.stack([y{fill}], -1)'
        )
    if spec.latent == "mixed":
        probs = "torch.tensor([0.3, 0.7], dtype=torch.float64)"
        y = f'y = pyro.sample("y", dist.Categorical({probs}){obs})'
        shift = (
            "1.5 * y"
            if spec.scalar
            else f"1.5 * y.unsqueeze(-1) * torch.ones({spec.dim}, dtype=torch.float64)"
        )
        prior = _prior(spec, f"({shift}).double()")
        return f'{y}\nz = pyro.sample("z", {prior})\ncode = {_code(spec)}'
    if spec.latent == "two":
        z2 = f'z2 = pyro.sample("z2", {_prior(spec)})'
        loc = f"top({_code(spec, 'z2')}).tanh()" + (".squeeze(-1)" if spec.scalar else "")
        return f'{z2}\nz = pyro.sample("z", {_prior(spec, loc)})\ncode = {_code(spec)}'
    if spec.latent in ("lognormal", "beta"):
        ones = f"torch.ones({'()' if spec.scalar else spec.dim}, dtype=torch.float64)"
        fn = (
            f"dist.LogNormal(0 * {ones}, {ones})"
            if spec.latent == "lognormal"
            else f"dist.Beta(2 * {ones}, 3 * {ones})"
        )
        event = "" if spec.scalar else ".to_event(1)"
        return f'z = pyro.sample("z", {fn}{event})\ncode = {_code(spec)}'
    return f'z = pyro.sample("z", {_prior(spec)})\ncode = {_code(spec)}'


def observed(spec: Spec) -> str:
    """p(x | z), in the inner plate if there is one, and that plate's latent."""
    lines = ["out = decoder(code)" + (" + theta.unsqueeze(-1)" if spec.outside else "")]
    value = "batch.transpose(0, 1)" if spec.inner and spec.data_dim == -1 else "batch"
    if spec.data_dim == -2 and not spec.inner:
        value = "batch.unsqueeze(1)"
    site = [
        f"fn = dist.Normal(out, {NOISE}).to_event(1)"
        if spec.likelihood == "normal"
        else "fn = dist.Bernoulli(logits=out).to_event(1)"
    ]
    if spec.mask == "dist":
        rows = "total > -0.3"
        site.append(f"fn = fn.mask({rows})")
    site.append(f'pyro.sample("x", fn, obs={value})')
    if not spec.inner:
        return "\n".join(lines + site)
    if spec.inner == "latent":
        site = [
            'v = pyro.sample("v", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))',
            "out = out + v.unsqueeze(-1)",
            *site,
        ]
    plate = f'with pyro.plate("inner", 2, dim={-3 - spec.data_dim}):'
    return "\n".join([*lines, plate, *(f"    {line}" for line in site)])


def guide_latents(spec: Spec) -> str:
    """q(z | x)."""
    text = _guide_sites(spec)
    if spec.labels:
        lines = text.split("\n")
        first = next(i for i, line in enumerate(lines) if line.startswith('y = pyro.sample("y"'))
        lines[first] = "y = labels\nif labels is None:\n    " + lines[first]
        text = "\n".join(lines)
    if spec.inner != "latent":
        return text
    move = ".transpose(0, 1)" if spec.data_dim == -1 else ""
    plate = f'with pyro.plate("inner", 2, dim={-3 - spec.data_dim}):'
    v = f"    loc, raw = (inner(batch){move}).unbind(-1)\n"
    v += '    pyro.sample("v", dist.Normal(loc, (0.3 * raw.tanh() - 0.3).exp()))'
    return f"{text}\n{plate}\n{v}"


def _guide_sites(spec: Spec) -> str:
    lift = ".unsqueeze(1)" if spec.data_dim == -2 else ""
    mark = ', infer={"enumerate": "parallel"}' if spec.enumerate else ""
    if spec.latent in DISCRETE or spec.latent == "relaxed":
        logits = f"encoder(flat){lift}"
        name = {
            "categorical": "Categorical",
            "onehot": "OneHotCategorical",
            "bernoulli": "Bernoulli",
            "relaxed": "RelaxedOneHot",
        }[spec.latent]
        if spec.latent == "relaxed":
            fn = f"fn = {name}(logits={logits})\nfn.temperature, fn.hard = 0.5, False"
            return f'{fn}\ny = pyro.sample("y", fn)'
        first = "[..., 0]" if spec.latent == "bernoulli" else ""
        return f'y = pyro.sample("y", dist.{name}(logits={logits}{first}){mark})'
    if spec.latent == "gaussian" and spec.exact:
        return _exact(spec)
    scale = (
        "(0.3 * raw.tanh() - 0.3).exp()"
        if spec.latent != "gaussian"
        else "(0.3 * raw.tanh() + 0.2).exp()"
    )
    event = "" if spec.scalar else ".to_event(1)"
    split = f"loc, raw = encoder(flat){lift}.chunk(2, -1)" + (
        "\nloc, raw = loc.squeeze(-1), raw.squeeze(-1)" if spec.scalar else ""
    )
    if spec.noise:
        split += "\nloc = loc + torch.randn_like(loc)"
    if spec.latent == "delta":
        return f'{split}\npyro.sample("z", dist.Delta(loc, event_dim={0 if spec.scalar else 1}))'
    if spec.latent == "auxiliary":
        log_density = "-(2 * torch.ones_like(loc)).log()" + ("" if spec.scalar else ".sum(-1)")
        fn = f"dist.Normal(loc, {scale}){event}"
        u = f'u = pyro.sample("u", {fn}, infer={{"is_auxiliary": True}})'
        fn = f"dist.Delta(2 * u, log_density={log_density}, event_dim={0 if spec.scalar else 1})"
        return f'{split}\n{u}\npyro.sample("z", {fn})'
    if spec.latent == "mixed":
        return _mixed(spec, split, scale, event, lift, mark)
    if spec.latent == "two":
        given = f"top({_code(spec, '{}')}).tanh()" + (".squeeze(-1)" if spec.scalar else "")
        first, second = ("z", "z2") if spec.reverse else ("z2", "z")
        a = f'{first} = pyro.sample("{first}", dist.Normal(loc, {scale}){event})'
        fn = f"dist.Normal(0.5 * loc + {given.format(first)}, {scale}){event}"
        return f'{split}\n{a}\npyro.sample("{second}", {fn})'
    if spec.latent == "beta":
        return f'{split}\npyro.sample("z", dist.Beta(1 + loc.exp(), 1 + raw.exp()){event})'
    name = "LogNormal" if spec.latent == "lognormal" else "Normal"
    return f'{split}\npyro.sample("z", dist.{name}(loc, {scale}){event})'


def _mixed(spec: Spec, split: str, scale: str, event: str, lift: str, mark: str) -> str:
    """q(y | x) q(z | x, y), or q(z | x) q(y | x, z)."""
    as_event = "" if spec.scalar else ".unsqueeze(-1)"
    if spec.reverse:
        z = f'z = pyro.sample("z", dist.Normal(loc, {scale}){event})'
        push = (
            "torch.stack([-z, z], -1)"
            if spec.scalar
            else "torch.stack([-z.sum(-1), z.sum(-1)], -1)"
        )
        y = f'y = pyro.sample("y", dist.Categorical(logits=logits){mark})'
        return f"{split}\n{z}\nlogits = classes(flat){lift} + {push}\n{y}"
    y = f'y = pyro.sample("y", dist.Categorical(logits=classes(flat){lift}){mark})'
    return (
        f'{split}\n{y}\npyro.sample("z", dist.Normal(loc + y.double(){as_event}, {scale}){event})'
    )


def _exact(spec: Spec) -> str:
    """q(z | x) = N(M^-1 W' (x - b), s^2 M^-1), M = W' W + s^2 I."""
    net = "nets['decoder']" if spec.style not in ("method", "nn") else "self.nets['decoder']"
    lines = [
        f"W, b = {net}.weight.detach(), {net}.bias.detach()",
        f"M = W.T @ W + {NOISE**2} * torch.eye({spec.dim}, dtype=torch.float64)",
        "loc = (batch - b) @ torch.linalg.solve(M, W.T).T",
        f"cov = {NOISE**2} * torch.linalg.inv(M)",
    ]
    if spec.scalar:
        return "\n".join([*lines, 'pyro.sample("z", dist.Normal(loc[..., 0], cov[0, 0].sqrt()))'])
    return "\n".join([*lines, 'pyro.sample("z", dist.MultivariateNormal(loc, cov))'])


def truth(spec: Spec) -> str:
    """The evidence of linear-Gaussian and of purely discrete models."""
    if spec.latent == "gaussian":
        noise = f"{NOISE**2} * torch.eye({spec.observed}, dtype=torch.float64)"
        cov = f"cov = decoder.weight @ decoder.weight.T + {noise}"
        density = "dist.MultivariateNormal(decoder.bias, cov).log_prob(x)"
        return f'decoder = nets["decoder"]\n{cov}\ntruth = {density}.detach()'
    if spec.latent not in (*DISCRETE, "relaxed") or spec.strict:
        return "truth = None"
    lines = [
        f"codes = torch.eye({spec.dim}, dtype=torch.float64)",
        f"prior = {RATES.format(n=spec.dim + 1)}",
    ]
    if spec.latent == "bernoulli":
        ones = ", ".join(["1.0"] * (spec.dim - 1))
        zeros = ", ".join(["0.0"] * (spec.dim - 1))
        lines = [f"codes = torch.tensor([[0.0, {ones}], [1.0, {zeros}]], dtype=torch.float64)"]
        lines.append("prior = torch.tensor([0.7, 0.3], dtype=torch.float64)")
    fn = (
        f"dist.Normal(out, {NOISE})"
        if spec.likelihood == "normal"
        else "dist.Bernoulli(logits=out)"
    )
    lines += ['out = nets["decoder"](codes)', f"scores = {fn}.log_prob(x.unsqueeze(1)).sum(-1)"]
    return "\n".join(
        [*lines, "truth = ((prior / prior.sum()).log() + scores).logsumexp(-1).detach()"]
    )
