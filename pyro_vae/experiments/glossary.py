"""What every number of a result means: see ``scripts/evaluate.py --explain``."""

GLOSSARY: dict[str, str] = {
    "split": "the part of the data set",
    "dataset": "the data set: a name, or the path of a file or folder",
    "pixels": "what is observed of an image; numbers of other kinds of pixels do not compare",
    "data_seed": "seeds the split and the static binarisation",
    "seed": "seeds the draws of this evaluation",
    "unit": "what one datum is called: an image, or the row of a table",
    "pair": "the function that returned the two programs and their data",
    "num_data": "how many data (images) the means below are over",
    "num_images": "how many data (the first ones) the means of this table are over",
    "num_samples": "K: importance samples for each datum",
    "log_px": "log p(x), estimated from K importance samples; a lower bound in expectation",
    "elbo": "evidence lower bound E_q[log p(x, z) - log q(z | x)] = -rate - distortion",
    "rate": "KL(q(z | x) || p(z)): nats that z carries; called validation_kl in metrics.csv",
    "distortion": "-E_q[log p(x | z)]: nats that the reconstruction misses",
    "bias": "of log_px, estimated by the jackknife; negative, smaller for larger K",
    "jackknife_log_px": "log_px - bias: closer to log p(x), but no bound",
    "smoothed_log_px": "log_px with the largest weights smoothed by a Pareto tail",
    "bits_per_dimension": "-log2 p(x) per pixel; a code length only where p(x) is a probability",
    "effective_sample_size": "of the K weights of a datum, how many count; between 1 and K",
    "log_px_standard_error": "Monte-Carlo error of log_px for these very data: falls with K",
    "log_px_data_error": "error of log_px as a figure of all such data: falls with their number",
    "trustworthy_share": "share of data whose Pareto k is small enough to trust log_px",
    "active_units": "latent dimensions whose posterior mean varies over the data (> 0.01)",
    "kl_total": "the rate again, from draws of z: mutual information + marginal",
    "kl_mutual_information": "what z tells of which datum it came from; at most log N for N data",
    "kl_mutual_information_standard_error": "of the mutual information, by Monte Carlo",
    "kl_marginal": "KL(q(z) || p(z)), aggregate posterior to prior: the two parts below",
    "kl_total_correlation": "dependence between the dimensions of z in the aggregate posterior",
    "kl_dimension_wise": "KL of each dimension of the aggregate posterior to the prior, summed",
    "log_px_by_importance_sampling": "log_px of the same data from the K samples above",
    "simulated_lower_bound": "on data drawn from the model: log p(x) at least (annealing)",
    "simulated_upper_bound": "on the same data: log p(x) at most, in expectation",
    "simulated_by_importance_sampling": "on the same data: log_px from K samples of the guide",
    "approximation": "nats lost because the guide's family lacks the posterior",
    "amortisation": "nats lost because the encoder misses the family's best member",
    "num_simulations": "how many pairs (z, x) were drawn from the model",
    "num_draws": "draws of the guide among which each true z is ranked",
    "p_values": "for each latent: chance of ranks this uneven if the guide were the posterior",
    "smallest_p_value": "the least of them; below 0.01 / number of latents the guide is off",
    "histogram": "counts of ranks, one list for each bin, one number for each latent",
    "auroc_log_px": "chance that a strange image has the smaller log p(x)",
    "auroc_regret": "chance that a strange image has the larger likelihood regret",
}


def explain(name: str) -> str:
    """What a number of a result means; empty for names that are not in the glossary.

    >>> explain("bias")
    'of log_px, estimated by the jackknife; negative, smaller for larger K'
    """
    return GLOSSARY.get(name, "")
