"""The body to be expected of a person: ridge regression, kept whole in JSON, known to the network and to generation."""

import json

import numpy as np
import pytest
import torch

from totalgen.data.archive import pack
from totalgen.data.demographics import Demographics
from totalgen.data.recipes import PetCt
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage
from totalgen.schema import build
from totalgen.settings import TrainingSettings
from totalgen.tasks.petct import Person
from totalgen.tasks.task import Box
from totalgen.tasks.template import RIDGE, Template
from totalgen.training.diffusion import make_items, train_diffusion
from totalgen.weights import load_weights, save_weights

SMALL = dict(
    stage="global", family="edm", shape=(16, 16, 24), channels=4, multipliers=(1,), blocks=1, attention=(), batch=4,
    microbatch=2, items=8, lr=0.01, rampup_items=8, loader_processes=0, picture_steps=1000, precision="float32",
)  # fmt: skip


def people(count, seed=0):
    random = np.random.default_rng(seed)
    return [
        Demographics("FM"[n % 2], random.uniform(20, 90), random.uniform(1.5, 1.9), random.uniform(45, 120))
        for n in range(count)
    ]


def test_the_template_is_a_ridge_regression_on_standardised_demographics():
    persons = people(40)
    volumes = torch.randn(40, 2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    template = Template.fit(zip(persons, volumes, strict=True))
    x = np.stack([person.channels() for person in persons]).astype(float)
    standard = (x - x.mean(0)) / x.std(0)
    rows = np.hstack([np.ones((40, 1)), standard])
    penalty = np.sqrt(RIDGE) * np.eye(5)[1:]  # ridge as rows more of a least-squares problem
    wanted = np.vstack([volumes.reshape(40, -1).numpy(), np.zeros((4, 120))])
    slopes = np.linalg.lstsq(np.vstack([rows, penalty]), wanted, rcond=None)[0]
    fitted = torch.stack([template.of(person) for person in persons]).reshape(40, -1).numpy()
    assert np.abs(fitted - rows @ slopes).max() < 2e-3  # kept in float16


def test_a_linear_body_is_found_and_few_subjects_give_their_mean():
    def body(person):
        return person.height_m * torch.ones(1, 2, 2, 2) + torch.arange(8.0).reshape(1, 2, 2, 2)

    many = Template.fit((person, body(person)) for person in people(3000))
    other = people(1, seed=9)[0]
    assert torch.allclose(many.of(other), body(other), atol=0.01)
    two = people(2)
    few = Template.fit((person, body(person)) for person in two)
    mean = (body(two[0]) + body(two[1])) / 2
    assert torch.allclose(few.of(two[0]), mean, atol=0.35 * float((body(two[0]) - body(two[1])).abs().max()))


def test_subjects_who_are_all_alike_give_their_mean():
    one = people(1)[0]
    template = Template.fit((one, torch.full((1, 2, 2, 2), float(n))) for n in range(3))
    assert torch.allclose(template.of(one), torch.ones(1, 2, 2, 2), atol=1e-3)
    assert not torch.signbit(template.maps).any()  # a run that goes on elsewhere compares the bits


def test_json_keeps_a_template_and_damage_is_noticed():
    template = Template.fit(zip(people(6), torch.randn(6, 2, 3, 3, 3), strict=True))
    kept = json.loads(json.dumps(template.settings))
    again, person = Template.from_settings(kept, (2, 3, 3, 3)), people(1, seed=3)[0]
    assert torch.equal(again.of(person), template.of(person))
    for name, value in dict(float16=kept["float16"][:-8], centre=[1.0], shape=[5, 2, 3, 3, 4]).items():
        with pytest.raises(ValueError, match=r"reshape|damaged"):
            Template.from_settings(kept | {name: value}, (2, 3, 3, 3))
    with pytest.raises(InputError, match="training subjects"):
        Template.fit([])


@pytest.fixture(scope="module")
def root(tmp_path_factory, cropped_cohort):
    root = cropped_cohort(tmp_path_factory.mktemp("cohort"), subjects=4)
    pack(root, PetCt(shape=SMALL["shape"]))
    return root


def train(root, outdir, **changes):
    return train_diffusion(root, outdir, "small", build(TrainingSettings, SMALL | changes))


def test_generation_is_given_what_the_training_was_given(root, tmp_path):
    weights = train(root, tmp_path / "run", template=True)
    stage = load_stage(weights, "global")
    items = make_items(root, build(TrainingSettings, SMALL | dict(template=True)))
    source, box = items.source(0)
    assert stage.task.given == items.task.given
    assert stage.task.given[-2:] == ("template CT", "template SUV")
    given = stage.task.condition(Person(source.demographics), box)
    assert torch.equal(given, items[0][2])
    volumes = [items.archive.tensor(row, "low").mean(0) for row in items.archive.indices("train")]
    statistics = items.archive.statistics
    mean, std = (torch.tensor(statistics[f"low_{name}"]).reshape(2, 1, 1, 1) for name in ("mean", "std"))
    maps, averages = given[4:] * std + mean, torch.stack(volumes).mean(0)
    assert torch.corrcoef(torch.stack([maps.flatten(), averages.flatten()]))[0, 1] > 0.7
    assert abs(float(maps.std() / averages.std()) - 1) < 0.3


def test_a_training_with_a_template_may_begin_with_weights_without_one(root, tmp_path, capsys):
    plain = train(root, tmp_path / "plain")
    begun = train(root, tmp_path / "begun", template=True, items=4, lr=0.0, init_from=plain)
    assert "was not given template CT, template SUV" in capsys.readouterr().err
    one, two = (load_stage(path, "global") for path in (plain, begun))
    box, person = Box.whole(one.task.shape), Person(people(1)[0])
    noisy, sigma = torch.randn(1, 2, *one.task.shape), torch.tensor([2.0])
    made = [each.denoiser(noisy, sigma, each.task.condition(person, box)[None]) for each in (one, two)]
    assert torch.allclose(*made, atol=1e-5)
    with pytest.raises(InputError, match="differs in channels"):
        train(root, tmp_path / "back", init_from=begun)


def condition_of(path):
    task = load_stage(path, "global").task
    return task.condition(Person(people(1)[0]), Box.whole(task.shape))


def test_weights_whose_template_is_damaged_are_refused(root, tmp_path):
    state, configuration = load_weights(train(root, tmp_path / "run", template=True, items=4))
    data = configuration["data"]
    template = data.pop("template")
    broken = dict(gone={}, cut=dict(template=template | dict(float16="AAAA")), none=dict(template=None),
                  other=dict(template=template | dict(shape=[5, 2, 4, 6, 4])), text=dict(template="body"))  # fmt: skip
    for name, change in broken.items():
        path = tmp_path / f"{name}.safetensors"
        save_weights(path, state, configuration | dict(data=data | change))
        with pytest.raises(InputError, match=r"template|describes no network"):
            condition_of(path)
