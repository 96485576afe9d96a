"""`FinetuneConfig`: groups, flat names, faults in one message, and what older runs saved."""

import copy
import hashlib
import json
import pickle
from dataclasses import fields, replace

import pytest

from emoser.finetune import FinetuneConfig
from emoser.finetune.config import FLAT_NAMES, GROUPS, Augmentation
from emoser.finetune.settings import ScheduleSettings

CONFIG = FinetuneConfig(
    "emoser-tiny",
    corpus_weights={"a": 2.0},
    restricted_labels={"a": ("sad", "happy")},
    augmentation=Augmentation(noise_decibels=(1.0, 2.0)),
    epochs=3,
    schedule="newbob",
    wrapper="paper",
)


def test_a_setting_has_one_place_and_its_flat_name():
    assert len(FLAT_NAMES) == sum(len(fields(group)) for group in GROUPS.values())
    assert all(
        getattr(CONFIG, name) == getattr(getattr(CONFIG, group), key)
        for name, (group, key) in FLAT_NAMES.items()
        if name not in GROUPS
    )
    assert (CONFIG.schedule.epochs, CONFIG.schedule.decay) == (3, "newbob")
    assert CONFIG.model.padding == "paper"
    with pytest.raises(AttributeError, match="epoch"):
        CONFIG.epoch  # noqa: B018


@pytest.mark.parametrize("change", [replace, FinetuneConfig.replace], ids=["dataclasses", "own"])
def test_a_changed_setting_leaves_the_others_of_its_group(change):
    longer = change(CONFIG, epochs=9, mode="frozen")
    assert (longer.schedule.epochs, longer.schedule.decay, longer.model.mode) == (
        9, "newbob", "frozen",
    )  # fmt: skip
    constant = change(CONFIG, schedule="constant")
    assert (constant.schedule.epochs, constant.schedule.decay) == (3, "constant")
    group = change(CONFIG, schedule=ScheduleSettings(epochs=5))
    assert (group.schedule.epochs, group.schedule.decay) == (5, "cosine")
    assert change(longer, epochs=3, mode="partial") == CONFIG


def test_groups_and_flat_names_may_be_mixed_and_the_flat_name_counts():
    config = FinetuneConfig(schedule=ScheduleSettings(epochs=5, warmup=0.5), epochs=7)
    assert (config.schedule.epochs, config.schedule.warmup) == (7, 0.5)


def test_all_faults_of_all_groups_are_in_one_message():
    with pytest.raises(ValueError, match="must be") as error:
        FinetuneConfig(epochs=0, warmup=1.0, batch_size=0, seed=1, mode="full", accumulation=0)
    assert str(error.value) == (
        "model: mode is 'full', must be one of entire, partial, frozen, lora, last-k; "
        "data: batch_size is 0, must be above 0; "
        "schedule: epochs is 0, must be above 0, or 'auto'; "
        "warmup is 1.0, must be at least 0 and below 1; "
        "run: accumulation is 0, must be above 0"
    )


def test_an_unknown_setting_is_refused_with_the_nearest_name():
    with pytest.raises(TypeError, match="no setting is called 'epoch'; the nearest is 'epochs'"):
        FinetuneConfig(epoch=3)
    with pytest.raises(TypeError, match="'warm_up'; the nearest is 'warmup'"):
        replace(CONFIG, warm_up=0.1)
    with pytest.raises(TypeError, match="'lr'"):
        FinetuneConfig.from_dict({"optimisation": {"lr": 0.1}})


def test_saved_settings_are_grouped_and_flat_ones_of_older_runs_are_read():
    saved = json.loads(json.dumps(CONFIG.to_dict()))
    assert list(saved) == ["base", *GROUPS]
    assert saved["schedule"]["epochs"] == 3
    flat = json.loads(json.dumps(CONFIG.flat()))
    assert (flat["schedule"], flat["wrapper"], flat["epochs"]) == ("newbob", "paper", 3)
    assert FinetuneConfig.from_dict(saved) == FinetuneConfig.from_dict(flat) == CONFIG


def test_the_identity_is_that_of_states_saved_before_there_were_groups():
    config = FinetuneConfig(
        "emoser-tiny",
        corpus_weights={"a": 2.0},
        schedule="newbob",
        wrapper="paper",
        keep_head=False,
        crop_seconds=8.0,
        augmentation=Augmentation(),
        encoder_learning_rate=1e-5,
        head_learning_rate=1e-4,
        epochs=10,
    )
    text = json.dumps(config.identity(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "d24f3e7dfa8c209c"
    assert config.replace(layer_decay=0.9).identity() != config.identity()
    clipped = Augmentation(clipping_probability=0.1)
    assert config.replace(augmentation=clipped).identity() != config.identity()


def test_a_configuration_is_copied_pickled_and_printed_by_what_it_changes():
    assert copy.deepcopy(CONFIG) == pickle.loads(pickle.dumps(CONFIG)) == CONFIG
    config = FinetuneConfig("emoser-tiny", epochs=3, schedule="newbob")
    assert repr(config) == "FinetuneConfig('emoser-tiny', epochs=3, schedule='newbob')"
    assert eval(repr(config)) == config
