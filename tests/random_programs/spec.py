"""A random specification: which features a pair (model, guide) has."""

import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

CONTINUOUS = ("gaussian", "normal", "two", "lognormal", "beta", "delta", "auxiliary")
DISCRETE = ("categorical", "bernoulli", "onehot")


@dataclass(frozen=True)
class Spec:
    """The features of a pair; the defaults are a plain variational autoencoder."""

    seed: int
    latent: str = "normal"
    """One of CONTINUOUS or DISCRETE, "mixed" (y and z given y), or "relaxed" (Gumbel-Softmax)."""
    batch: int = 4
    dim: int = 2
    observed: int = 2
    scalar: bool = False
    """Latents without an event dimension (then dim = 1)."""
    exact: bool = False
    """The guide is the posterior (latent "gaussian")."""
    likelihood: str = "normal"
    """Or "bernoulli"."""
    inner: str = ""
    """An inner plate around "observed" sites only, or with a "latent" of its own."""
    data_dim: int = -1
    """The dimension of the data plate; the inner plate has the other of -1 and -2."""
    outside: str = ""
    """A "global" latent, or latents in a "sibling" plate at the data plate's dimension."""
    sibling: int = 1
    """The size of the sibling plate."""
    subsample: bool = False
    """The data plate subsamples half of its rows."""
    scale: str = ""
    """poutine.scale around "all" sites, the "latent" ones of both programs, or the "model"."""
    mask: str = ""
    """"poutine" around the data plate's sites, "latent" around latent ones, or "dist" on x's."""
    model_factor: str = ""
    """"inside" or "outside" of the data plate."""
    guide_factor: str = ""
    deterministic: str = ""
    style: str = "closure"
    """Or "method" (PyroModule), "nn" (nn.Module), "module" (pyro.module)."""
    strict: bool = False
    """Networks take (N, D) only."""
    labels: str = ""
    """The argument ys=None of discrete programs is "given", or left "out"."""
    keyword: bool = False
    """Arguments by name."""
    reverse: bool = False
    """The guide draws the second site first (latents "two" and "mixed")."""
    enumerate: bool = False
    """The guide marks its discrete site for enumeration."""
    noise: bool = False
    """The guide draws noise of its own for its mean (latent "gaussian"), as dropout does."""
    dtype: str = "float64"
    """Of the data."""

    def __str__(self) -> str:
        values = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return (
            "Spec("
            + ", ".join(f"{name}={value!r}" for name, value, default in values if value != default)
            + ")"
        )

    @property
    def nesting(self) -> int:
        """How many dimensions the plates take up."""
        return 2 if self.inner else 1

    @property
    def discrete(self) -> bool:
        """Whether a site is discrete."""
        return self.latent in DISCRETE or self.latent == "mixed"

    @property
    def local(self) -> bool:
        """Whether each datum has a weight of its own."""
        return not self.outside

    @property
    def features(self) -> list[str]:
        """What the tables group by."""
        flags = [
            self.latent,
            f"{self.latent} exact" if self.exact else "",
            f"likelihood {self.likelihood}",
        ]
        names = (
            "inner",
            "outside",
            "scale",
            "mask",
            "model_factor",
            "guide_factor",
            "deterministic",
            "labels",
        )
        flags += [f"{name} {getattr(self, name)}" if getattr(self, name) else "" for name in names]
        switches = ("scalar", "subsample", "strict", "keyword", "reverse", "enumerate", "noise")
        flags += [name if getattr(self, name) else "" for name in switches]
        flags += [f"style {self.style}", "data at -2" if self.data_dim == -2 else ""]
        return [
            flag
            for flag in [*flags, "" if self.dtype == "float64" else f"data {self.dtype}"]
            if flag
        ]


Feature = Callable[[random.Random, Spec], dict[str, object]]

FEATURES: list[Feature] = [
    lambda r, s: {"inner": r.choice(("observed", "latent")), "data_dim": r.choice((-1, -2))},
    lambda r, s: {"outside": "global"},
    lambda r, s: {"outside": "sibling", "sibling": r.choice((1, 2, s.batch))},
    lambda r, s: {"subsample": True},
    lambda r, s: {"scale": r.choice(("all", "latent", "model"))},
    lambda r, s: {"mask": r.choice(("poutine", "latent", "dist"))},
    lambda r, s: {"model_factor": r.choice(("inside", "outside"))},
    lambda r, s: {"guide_factor": r.choice(("inside", "outside"))},
    lambda r, s: {"deterministic": r.choice(("inside", "outside"))},
    lambda r, s: {"style": r.choice(("method", "nn", "module"))},
    lambda r, s: {"strict": True},
    lambda r, s: {"keyword": True},
    lambda r, s: {"scalar": True},
    lambda r, s: {"reverse": True},
    lambda r, s: {"enumerate": True},
    lambda r, s: {"labels": r.choice(("given", "out"))},
    lambda r, s: {"exact": True},
    lambda r, s: {"noise": True},
    lambda r, s: {"likelihood": "bernoulli"},
]


def draw(seed: int) -> Spec:
    """The specification of a seed: a latent structure, sizes, and features that go together."""
    r = random.Random(seed)
    kinds = (*CONTINUOUS, "normal", "gaussian", *DISCRETE, "mixed", "mixed")
    sizes = {"batch": r.randint(1, 6), "dim": r.randint(1, 3), "observed": r.randint(1, 3)}
    spec = Spec(seed, latent="relaxed" if r.random() < 0.02 else r.choice(kinds), **sizes)
    for feature in r.sample(FEATURES, r.randint(1, 5)):
        spec = replace(spec, **feature(r, spec))  # type: ignore[arg-type]
    if r.random() < 0.03:
        spec = replace(
            Spec(seed, likelihood="bernoulli", **sizes), dtype=r.choice(("uint8", "float32"))
        )
    if spec.discrete and r.random() < 0.15:  # few others would see the score of a masked draw
        spec = replace(spec, mask="latent", enumerate=False, labels="")
    return consistent(spec)


def consistent(spec: Spec) -> Spec:
    """The same specification without the features that do not go with the others."""
    if spec.latent == "relaxed":
        return Spec(
            spec.seed,
            "relaxed",
            spec.batch,
            max(spec.dim, 2),
            spec.observed,
            style=spec.style,
            keyword=spec.keyword,
        )
    if spec.latent == "gaussian":
        spec = replace(spec, likelihood="normal", inner="", strict=False, mask="", data_dim=-1)
    else:
        spec = replace(spec, exact=False)
    if spec.noise and spec.latent == "gaussian":
        return Spec(
            spec.seed, "gaussian", spec.batch, spec.dim, spec.observed, noise=True, style=spec.style
        )
    spec = replace(spec, noise=False)
    if spec.exact:  # the posterior of a model with anything outside is another one
        spec = replace(spec, outside="")
    if not spec.discrete:
        spec = replace(spec, enumerate=False, labels="")
    if spec.labels == "given":
        spec = replace(spec, enumerate=False)
    if spec.latent not in ("two", "mixed"):
        spec = replace(spec, reverse=False)
    if spec.enumerate:  # enumeration adds dimensions on the left in plain Pyro too
        spec = replace(spec, strict=False, subsample=False, deterministic="")
    if spec.data_dim == -2:
        spec = replace(spec, strict=False)
    if spec.latent in DISCRETE:
        spec = replace(spec, scalar=False, dim=max(spec.dim, 2))
    return replace(spec, dim=1) if spec.scalar else spec
