"""Saved models: the same model comes back from the folder alone; what is damaged is refused."""

import hashlib
import json
import shutil
import struct

import pytest
import torch
from torch import nn

from pyro_vae import (
    IAF,
    VAE,
    Bernoulli,
    Binomial,
    ContinuousBernoulli,
    DiagonalNormal,
    DiscretizedLogistic,
    FullRankNormal,
    LowRankNormal,
    MixtureOfNormals,
    NeuralSpline,
    Normal,
    RealNVP,
    StandardNormal,
    conv_decoder,
    conv_encoder,
    load,
    mlp,
    residual_decoder,
    residual_encoder,
    save,
)
from pyro_vae.families import (
    DiagonalLaplace,
    FlowPrior,
    GumbelSoftmax,
    MixturePrior,
    Planar,
    PowerSpherical,
    UniformOneHot,
    UniformSphere,
    VampPrior,
    VonMisesFisher,
)
from pyro_vae.models import PerDatumVAE
from pyro_vae.nets import BatchNormMean, BFloat16
from pyro_vae.training.description import build, describe

D, SHAPE = 64, (1, 8, 8)
X = torch.rand(6, D, generator=torch.Generator().manual_seed(0)).round()


def net(outputs, inputs=D):
    return mlp(inputs, 8, outputs)


def with_guide(encoder, dim=2):
    return VAE(StandardNormal(dim), Bernoulli(net(D, dim)), encoder)


def with_prior(prior, encoder=None, dim=2):
    return VAE(prior, Bernoulli(net(D, dim)), encoder or DiagonalNormal(net(2 * dim)))


def with_likelihood(decoder):
    return VAE(StandardNormal(2), decoder, DiagonalNormal(net(4)))


def with_vamp_prior():
    encoder = DiagonalNormal(net(4))
    return with_prior(VampPrior(encoder, torch.rand(5, D), peak=2.0), encoder)


ZOO = {
    "diagonal": lambda: with_guide(DiagonalNormal(net(4))),
    "laplace": lambda: with_guide(DiagonalLaplace(net(4))),
    "low rank": lambda: with_guide(LowRankNormal(net(8), rank=2)),
    "full rank": lambda: with_guide(FullRankNormal(net(FullRankNormal.outputs(2)))),
    "mixture": lambda: with_guide(MixtureOfNormals(net(MixtureOfNormals.outputs(2, 3)), 3)),
    "planar": lambda: with_guide(Planar(net(9), 2, context=5, depth=3)),
    "IAF": lambda: with_guide(IAF(net(9, D), 2, context=5, depth=3, hidden=(7, 6))),
    "RealNVP": lambda: with_guide(RealNVP(net(11), 3, context=5, depth=2, hidden=(7,)), 3),
    "spline": lambda: with_guide(NeuralSpline(net(20), 2, hidden=(7, 5), bins=4)),
    "power spherical": lambda: with_prior(UniformSphere(3), PowerSpherical(net(4)), 3),
    "von Mises-Fisher": lambda: with_prior(UniformSphere(3), VonMisesFisher(net(4)), 3),
    "Gumbel": lambda: with_prior(UniformOneHot(3), GumbelSoftmax(net(3), 0.3, hard=True), 3),
    "mixture prior": lambda: with_prior(MixturePrior(2, components=3)),
    "flow prior": lambda: with_prior(FlowPrior(2, depth=3, hidden=(7, 6))),
    "spline prior": lambda: with_prior(FlowPrior(2, depth=3, bins=4)),
    "vamp prior": with_vamp_prior,
    "normal": lambda: with_likelihood(Normal(net(D, 2), scale=0.3)),
    "learned scale": lambda: with_likelihood(Normal(net(D, 2), scale=0.3, learned=True)),
    "binomial": lambda: with_likelihood(Binomial(net(D, 2), total_count=16)),
    "continuous": lambda: with_likelihood(ContinuousBernoulli(net(D, 2))),
    "logistic": lambda: with_likelihood(DiscretizedLogistic(net(2 * D, 2))),
    "conv": lambda: VAE(
        StandardNormal(2),
        Bernoulli(conv_decoder(2, SHAPE)),
        DiagonalNormal(conv_encoder(SHAPE, 4)),
    ),
    "residual": lambda: VAE(
        StandardNormal(2),
        Bernoulli(residual_decoder(2, SHAPE)),
        DiagonalNormal(residual_encoder(SHAPE, 4)),
    ),
    "tanh, batch normalisation, bfloat16": lambda: VAE(
        StandardNormal(2),
        Bernoulli(BFloat16(mlp(2, 8, D, activation=nn.Tanh))),
        DiagonalNormal(BatchNormMean(net(4), 2, spread=0.7)),
    ),
    "layers of torch": lambda: VAE(
        StandardNormal(2),
        Bernoulli(nn.Sequential(nn.Linear(2, 9, bias=False), nn.LeakyReLU(0.3), nn.Linear(9, D))),
        DiagonalNormal(
            nn.Sequential(
                nn.Unflatten(1, SHAPE),
                nn.Conv2d(1, 3, (3, 1), stride=2, padding=(1, 0), bias=False),
                nn.GroupNorm(3, 3),
                nn.ELU(0.5),
                nn.Flatten(),
                nn.Dropout(0.2),
                nn.Linear(48, 4),
            )
        ),
    ),
    "double": lambda: with_guide(DiagonalNormal(net(4))).double(),
}


def trained(make):
    """A VAE whose weights and buffers are not those of a new one, in train mode."""
    torch.manual_seed(0)
    vae = make()
    for value in vae.state_dict().values():
        if value.is_floating_point() and value.ndim:
            value.add_(0.1 * torch.rand_like(value))
    return vae.train()


def behaviour(vae, x=X):
    """Numbers that depend on every part, and on every draw."""
    torch.manual_seed(1)
    x = x.to(next(vae.parameters()).dtype)
    with torch.no_grad():
        z = vae.encoder(x).sample()
        p = vae.decoder(z)
        return [z, p.mean, p.log_prob(x), vae.sample(3)]


@pytest.mark.parametrize("name", ZOO)
def test_the_same_model_comes_back(name, tmp_path):
    vae = trained(ZOO[name])
    before = torch.get_rng_state()
    save(vae, tmp_path / "saved")
    assert all(module.training for module in vae.modules())
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    again = load(str(tmp_path / "moved"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in again.modules())
    torch.testing.assert_close(behaviour(again), behaviour(vae.eval()), rtol=0, atol=0)
    torch.testing.assert_close(again.state_dict(), vae.state_dict(), rtol=0, atol=0)
    assert [*dict(again.named_parameters())] == [*dict(vae.named_parameters())]


def test_shared_modules_stay_shared(tmp_path):
    save(with_vamp_prior(), tmp_path)
    vae = load(tmp_path)
    assert vae.prior.encoder is vae.encoder


def test_a_loaded_model_can_be_trained_on(tmp_path):
    save(trained(ZOO["diagonal"]), tmp_path)
    vae = load(tmp_path)
    optim = torch.optim.SGD(vae.parameters(), lr=0.1)
    before = vae.encode(X)
    (-vae.decoder(vae.encoder(X).rsample()).log_prob(X)).sum().backward()
    optim.step()
    assert not torch.equal(vae.encode(X), before)


def test_a_model_without_amortisation(tmp_path):
    table = DiagonalNormal(nn.Embedding(9, 4))
    vae = PerDatumVAE(StandardNormal(2), Bernoulli(net(D, 2)), table)
    save(vae, tmp_path)
    rows = torch.arange(9)
    assert torch.equal(load(tmp_path).encoder(rows).mean, vae.encoder(rows).mean)


class OwnNet(nn.Module):
    def __init__(self, outputs=4):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(36, outputs)

    def forward(self, x):
        return self.out(self.norm(self.conv(x.view(-1, *SHAPE))).flatten(1))


def own():
    return with_guide(DiagonalNormal(OwnNet()))


def test_own_networks_are_loaded_into_a_model(tmp_path):
    vae = trained(own)
    save(vae, tmp_path)
    with pytest.raises(ValueError, match=r"into=model\) for networks .*can build, got OwnNet"):
        load(tmp_path)
    target = own()
    assert load(tmp_path, into=target) is target
    assert not target.encoder.net.norm.training
    torch.testing.assert_close(behaviour(target), behaviour(vae.eval()), rtol=0, atol=0)


def test_a_pair_of_modules(tmp_path):
    model, guide = nn.Linear(2, 3), OwnNet()
    save(nn.ModuleList([model, guide]), tmp_path)
    model_again, guide_again = load(tmp_path, into=nn.ModuleList([nn.Linear(2, 3), OwnNet()]))
    assert torch.equal(model_again.weight, model.weight)
    assert torch.equal(guide_again.out.weight, guide.out.weight)


class Renamed(Bernoulli):
    """A subclass does something else: it must not come back as its parent."""


def _tied():
    vae = VAE(StandardNormal(2), Bernoulli(nn.Linear(2, 2)), DiagonalNormal(nn.Linear(2, 2)))
    vae.encoder.net.weight = vae.decoder.net.weight
    return vae


def test_what_would_not_come_back_the_same_is_loaded_into(tmp_path):
    added = ZOO["diagonal"]()
    added.more = nn.Linear(1, 1)
    for number, vae in enumerate((with_likelihood(Renamed(net(D, 2))), added, _tied())):
        save(vae, tmp_path / str(number))
        with pytest.raises(ValueError, match=r"expected load.path, into=model"):
            load(tmp_path / str(number))
        load(tmp_path / str(number), into=vae)


def test_the_layers_of_a_network_are_described_as_they_are(tmp_path):
    vae = ZOO["conv"]()
    vae.encoder.net[1] = nn.Tanh()
    save(vae, tmp_path)
    assert isinstance(load(tmp_path).encoder.net[1], nn.Tanh)


def test_defaults_are_left_out():
    assert describe(StandardNormal(3)) == {"class": "StandardNormal", "dim": 3}
    assert describe(nn.Conv2d(1, 2, 3))["class"] == "torch.nn.Conv2d"
    assert "groups" not in describe(nn.Conv2d(1, 2, 3))


# the folder of a run


def test_the_folder_of_a_run_has_its_model_inside(tmp_path):
    vae = trained(ZOO["diagonal"])
    (tmp_path / "config.json").write_text('{"dataset": "digits"}')
    (tmp_path / "best.pt").touch()
    with pytest.raises(ValueError, match="of a run without a saved model: scripts/train"):
        load(tmp_path)
    save(vae, tmp_path / "model")
    assert torch.equal(load(tmp_path).encode(X), vae.eval().encode(X))
    with pytest.raises(ValueError, match=r"the format 'pyro_vae model 1' .*, got .*config\.json"):
        save(vae, tmp_path, overwrite=True)
    assert (tmp_path / "config.json").read_text() == '{"dataset": "digits"}'


def test_nothing_is_overwritten_unasked(tmp_path):
    first, second = trained(ZOO["diagonal"]), ZOO["diagonal"]()
    save(first, tmp_path)
    with pytest.raises(
        ValueError, match=r"expected a folder without a model, got .*overwrite=True"
    ):
        save(second, tmp_path)
    assert torch.equal(load(tmp_path).encode(X), first.eval().encode(X))
    save(second, tmp_path, overwrite=True)
    assert torch.equal(load(tmp_path).encode(X), second.encode(X))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_save_that_is_interrupted_is_refused(tmp_path, monkeypatch):
    save(trained(ZOO["diagonal"]), tmp_path)
    config = (tmp_path / "config.json").read_bytes()
    save(ZOO["diagonal"](), tmp_path, overwrite=True)
    (tmp_path / "config.json").write_bytes(config)  # as if killed before the second file
    with pytest.raises(ValueError, match=r"got a damaged .*model\.safetensors"):
        load(tmp_path)


# damage


@pytest.fixture
def saved(tmp_path):
    save(trained(ZOO["diagonal"]), tmp_path / "saved")
    return tmp_path / "saved"


def test_every_damaged_byte_of_the_weights_is_refused(saved):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    for i in (*range(0, 300), *range(300, len(content), 97)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load(saved)
    for length in (0, 1, 8, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load(saved)


def edit(change):
    def apply(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def forged(content):
    """Weights that are not weights, with their right checksum."""

    def apply(folder):
        (folder / "model.safetensors").write_bytes(content)
        edit(lambda c: c.update(sha256=hashlib.sha256(content).hexdigest()))(folder)

    return apply


def deep(config):
    for _ in range(300):
        config["model"] = {"class": "torch.nn.Sequential", "*": [config["model"]]}


DAMAGE = {
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        FileNotFoundError,
        r"expected a folder with config\.json and model\.safetensors, got .*saved",
    ),
    "no config": (
        lambda f: (f / "config.json").unlink(),
        FileNotFoundError,
        r"expected .*config\.json beside the weights, got none",
    ),
    "no folder": (shutil.rmtree, FileNotFoundError, "expected a folder .*saved: it does not exist"),
    "text": (
        lambda f: (f / "config.json").write_text("{"),
        ValueError,
        "expected JSON in .*config",
    ),
    "a list": (lambda f: (f / "config.json").write_text("[]"), ValueError, "of the format"),
    "another format": (edit(lambda c: c.update(format="x")), ValueError, "of the format"),
    "no checksum": (edit(lambda c: c.pop("sha256")), ValueError, "expected sha256 and model in"),
    "no structure": (edit(lambda c: c.pop("model")), ValueError, "expected sha256 and model in"),
    "unknown class": (
        edit(lambda c: c["model"].update({"class": "os.system"})),
        ValueError,
        r"structure of a model in .*config\.json, got .*class that pyro_vae can build, got 'os",
    ),
    "known to torch": (
        edit(lambda c: c["model"].update({"class": "torch.nn.Transformer"})),
        ValueError,
        "expected the structure of a model",
    ),
    "no class": (edit(lambda c: c.update(model={})), ValueError, "expected the structure"),
    "a number": (edit(lambda c: c.update(model=3)), ValueError, "expected the structure"),
    "missing argument": (
        edit(lambda c: c["model"].pop("prior")),
        ValueError,
        "expected the structure of a model in .*TypeError",
    ),
    "wrong argument": (
        edit(lambda c: c["model"]["prior"].update(dim="two")),
        ValueError,
        "expected the structure of a model",
    ),
    "dangling share": (
        edit(lambda c: c["model"].update(encoder={"shared": ".nowhere"})),
        ValueError,
        "expected the structure of a model",
    ),
    "too deep": (edit(deep), ValueError, "expected the"),
    "other size": (
        edit(lambda c: c["model"]["prior"].update(dim=3)),
        ValueError,
        "expected the VAE that .*saved was saved from, got another structure: prior.loc of shape",
    ),
    "no safetensors": (forged(b"weights"), ValueError, "expected weights in .*safetensors, got"),
    "empty header": (
        forged(struct.pack("<Q", 2) + b"{}"),
        ValueError,
        "got another structure: prior.loc, which is not in the file; ",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_by_name(saved, name):
    damage, kind, message = DAMAGE[name]
    damage(saved)
    with pytest.raises(kind, match=f"(?s){message}"):
        load(saved)


def test_other_structures_are_refused(saved, tmp_path):
    message = "expected the VAE that .*another structure: encoder.net.0.weight of shape"
    with pytest.raises(ValueError, match=message):
        load(saved, into=with_guide(DiagonalNormal(mlp(D, 9, 4))))
    with pytest.raises(ValueError, match=r"expected prior.loc of torch.float32, got torch.float64"):
        load(saved, into=ZOO["double"]())
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"expected a folder with config\.json"):
        load(tmp_path / "file")
    with pytest.raises(ValueError, match="expected a folder to save in, got the file"):
        save(own(), tmp_path / "file")
    with pytest.raises(TypeError, match="expected a module to save, got function"):
        save(own, tmp_path / "other")


def test_only_the_packages_classes_are_built():
    with pytest.raises(ValueError, match="expected the description of a module"):
        build({"shape": [2]})
    with pytest.raises(ValueError, match="that pyro_vae can build, got 'ModuleList'"):
        build({"class": "ModuleList"})
