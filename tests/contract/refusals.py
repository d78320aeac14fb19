"""The refusals that are part of the contract: which uses of a pair, and in what words."""

WEIGHTS = ("IWAE", "DReG", "STL", "Renyi", "ReweightedWakeSleep")
BOUNDS = (*WEIGHTS, "ScoreFunction_ELBO")
SCORES = ("log_likelihood", "evaluate", "AIS")
CLOSED = ("TraceMeanField_ELBO", "FreeBits")
AROUND = "expected a plate with one row per datum around every sample site of model and guide, "

Refusals = dict[tuple[str, str], str]


def of(pair: str, uses: tuple[str, ...], sentence: str) -> Refusals:
    """One sentence for several uses of a pair; it is how the refusal begins."""
    return {(pair, use): sentence for use in uses}


def others(*names: str) -> str:
    """InfoVAE has one latent site."""
    return f"expected one latent site, in the plate of the data, got {list(names)}"


def not_mixtures() -> Refusals:
    """Stratified_ELBO is for mixtures in the guide alone."""
    from .pairs import PAIRS

    sentence = "expected a guide with one latent site, drawn from a mixture, got "
    bare = [name for name in PAIRS if name != "mixture in the guide"]
    return {(name, "Stratified_ELBO"): sentence for name in bare}


GLOBAL = f"{AROUND}got global sites "
NO_DENSITY = "expected a guide with a density, got a Delta at site 'z': "
NO_FUNCTION = f"{AROUND}got programs that do not take two rows of their arguments "
NO_SUBSAMPLE = "expected plates without a subsample, one row per datum, got "
OWN_ORDER = "expected the guide to draw the model's latent sites in its order "
RANDOM = "expected a guide that is deterministic given its draws, got log q = "
SUMMED = "expected no site of the guide to be summed out, got ['y']"
CONTINUOUS = "expected continuous latents, got sites of the guide that are to be summed out, ['y']"
FAMILIES = "expected families with a closed-form KL, got q = ImplicitMixture and p = Normal"

REFUSALS: Refusals = {
    **not_mixtures(),
    **of("M2, y enumerated", CLOSED, OWN_ORDER),
    **of("M2, y enumerated", (*BOUNDS, "InfoVAE"), SUMMED),
    **of("M2, y enumerated", ("AIS",), CONTINUOUS),
    **of("M2 of the library, y enumerated", (*BOUNDS, "InfoVAE"), SUMMED),
    **of("M2 of the library, y enumerated", ("AIS",), CONTINUOUS),
    **of("M1 + M2, labelled", CLOSED, OWN_ORDER),
    **of("M1 + M2, labelled", ("InfoVAE",), others("z1", "z2")),
    **of("M1 + M2, y enumerated", CLOSED, OWN_ORDER),
    **of("M1 + M2, y enumerated", (*BOUNDS, "InfoVAE"), SUMMED),
    **of("M1 + M2, y enumerated", ("AIS",), CONTINUOUS),
    **of(
        "M2, y enumerated",
        ("AIS",),
        "expected continuous latents, got sites of the guide that are to be summed out, ['y']",
    ),
    **of("diffusion", ("InfoVAE",), others("z1", "z2", "z3")),
    **of("diffusion, one step", (*WEIGHTS, *SCORES), GLOBAL),
    **of("diffusion, one step", ("InfoVAE",), others("end", "u", "z1", "zs", "zt")),
    **of("VQ-VAE", CLOSED, "expected families with a closed-form KL, got q = NearestCode "),
    **of("VQ-VAE", ("AIS",), "expected continuous latents"),
    **of("VQ-VAE", BOUNDS, "expected no pyro.factor in the guide, got one: "),
    **of("scVI", ("InfoVAE",), others("log_library", "z")),
    **of("sparse channel", (*BOUNDS, "InfoVAE"), SUMMED.replace("'y'", "'s'")),
    **of(
        "sparse channel",
        ("AIS",),
        "expected continuous latents, got sites of the guide that are to be summed out, ['s']",
    ),
    **of("two layers", ("InfoVAE",), others("z1", "z2")),
    **of("global and local", (*WEIGHTS, *SCORES), GLOBAL),
    **of("global and local", ("InfoVAE",), others("w", "z")),
    **of("two data plates", BOUNDS, f"{AROUND}got none"),
    **of("two data plates", SCORES, NO_FUNCTION),
    **of("two data plates", ("InfoVAE",), others("z_a", "z_b")),
    **of("subsampling plate", SCORES, NO_SUBSAMPLE),
    **of("AutoNormal", CLOSED, OWN_ORDER),
    **of("AutoNormal", ("InfoVAE",), others("z", "z_unconstrained")),
    **of("AutoNormal", SCORES, NO_FUNCTION),
    **of("AutoDelta", BOUNDS, NO_DENSITY),
    **of("AutoDelta", SCORES, NO_FUNCTION),
    **of("AutoMultivariateNormal", CLOSED, OWN_ORDER),
    **of("AutoMultivariateNormal", (*WEIGHTS, *SCORES), GLOBAL),
    **of("AutoMultivariateNormal", ("InfoVAE",), others("_AutoMultivariateNormal_latent", "w")),
    **of("factors", BOUNDS, "expected no pyro.factor in the guide, got one: "),
    **of(
        "mixture in the model",
        CLOSED,
        "expected a guide that draws every latent site, got ['y'] summed out of the model",
    ),
    **of("mixture in the guide", CLOSED, FAMILIES),
    **of("DeepMarkovModel", ("InfoVAE",), others("z_1", "z_2", "z_3")),
    **of("semi-amortised", ("DReG", "STL", "AIS"), RANDOM),
    **of(
        "GMVAE",
        CLOSED,
        "expected a guide that draws every latent site, got ['y'] summed out of the model",
    ),
    **of("hierarchical VAE", CLOSED, OWN_ORDER),
    **of("hierarchical VAE", ("InfoVAE",), others("z1", "z2", "z3")),
    **of("ladder VAE", ("InfoVAE",), others("z1", "z2")),
}
"""How the sentence begins, by pair and use; every other cell is a number that agrees."""
