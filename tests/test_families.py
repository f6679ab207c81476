# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every family of encoders on eight devices, divided in every way, and as the start of each of the three systems."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest
import toy_models

from xlkd.models import encoder as encoders
from xlkd.models import hf, layout
from xlkd.models.families import list_families

ENCODERS = toy_models.ROOT / "xlkd" / "models" / "encoders"
SIZES = {
    "vocab_size": 2000,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 384,
    "pad_token_id": 0,
}
CONFIGS = {  # one model type of each family
    "bert": {},
    "modernbert": {"local_attention": 32, "global_attn_every_n_layers": 3, "attention_dropout": 0.1},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}


def save_encoder(folder: pathlib.Path, model_type: str) -> pathlib.Path:
    """Saves a small random encoder with the tokenizer of the packaged multilingual one."""
    tokenizer = hf.load_tokenizer(ENCODERS / "multilingual")
    sizes = SIZES | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    architecture = layout.read_architecture({"model_type": model_type} | sizes | CONFIGS[model_type])
    params = {"encoder": encoders.init(architecture, jax.random.key(0), 1.0)}
    return hf.save(folder, architecture, jax.device_get(params), tokenizer=tokenizer)


def test_each_family_has_a_case():
    families = list_families()
    assert {id(families[model_type]) for model_type in CONFIGS} == {id(family) for family in families.values()}


SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from xlkd.models import branches, hf
from xlkd.models.encoder import Encoder
from xlkd.runtime import mesh as meshes
from xlkd.spec.stage import Mesh

random = np.random.default_rng(0)
mask = (np.arange(40) < random.integers(3, 41, (8, 1))).astype(np.int32)
batch = {"ids": random.integers(5, 900, (8, 40)).astype(np.int32), "mask": mask, "types": 0 * mask}
key = jax.random.key(7)

def make_loss(architecture, kind):
    encoder = Encoder(architecture, scan=True, remat="dots" if kind == "whole" else "none")

    def weigh(hidden):
        weights = 2 + jnp.cos(jnp.arange(hidden.size, dtype=jnp.float32)).reshape(hidden.shape)
        return (jnp.square(hidden) * weights).mean()

    def loss(params, batch):
        if kind == "whole":
            states = encoder.apply({"params": params}, *batch.values(), train=True, key=key)
            return weigh(states[-1] * batch["mask"][..., None]) + weigh(states[0])
        hidden = branches.run_trunk(encoder, params["trunk"], batch, key)
        return weigh(branches.run_branches(encoder, params["trunk"], params["branches"], hidden, batch["mask"], key))

    return loss

def differentiate(params, loss, sizes, count):
    mesh = meshes.build_mesh(Mesh(**sizes), jax.devices()[:count])
    shardings = meshes.make_shardings(mesh, params)
    placed = jax.device_put(params, shardings)
    rows = meshes.place_batch(mesh, batch, 8)
    run = jax.jit(jax.value_and_grad(meshes.trace_with_mesh(mesh, loss)), out_shardings=(None, shardings))
    return jax.device_get(run(placed, rows))

results = {}
for folder in sys.argv[1:]:
    checkpoint = hf.load(folder)
    params = checkpoint.params["encoder"]
    trunk, stacked = branches.split_encoder(params, 2, 2)
    for kind, tree, sizes in (
        ("whole", params, {"data": 2, "fsdp": 2, "tensor": 2}),
        ("branches", {"trunk": trunk, "branches": stacked}, {"data": 2, "fsdp": 2, "branch": 2}),
    ):
        loss = make_loss(checkpoint.architecture, kind)
        (first, expected), (second, gradient) = (
            differentiate(tree, loss, each, count) for each, count in (({"data": 1}, 1), (sizes, 8))
        )
        scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
        worst = max(np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (expected, gradient))))
        moving = [bool(np.abs(x).max()) for x in jax.tree.leaves(expected)]
        results[f"{checkpoint.architecture.model_type} {kind}"] = [
            abs(float(first) - float(second)) / abs(float(first)), float(worst / scale), sum(moving), len(moving)
        ]
print(json.dumps(results))
"""


def test_loss_and_gradient_are_the_same_on_eight_devices(tmp_path):
    folders = [str(save_encoder(tmp_path / model_type, model_type)) for model_type in CONFIGS]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, *folders]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads(process.stdout.splitlines()[-1])
    assert len(results) == 2 * len(CONFIGS)
    for name, (loss, gradient, moving, leaves) in results.items():
        assert loss < 1e-5, name
        assert gradient < 1e-5, name
        assert moving >= leaves - 2, name  # the bias of keys has no gradient, nor has a table of unused token types


SYSTEMS = {
    "gxlt": (
        "--config.stages=english,skd_map",
        "--config.report.compare=skd_map:english",
        "--config.english.data.train=atlas?split=train&languages=en&size=64",
        "--config.english.data.eval=atlas?split=validation&languages=en&size=6",
        "--config.english.budget.steps=30",
        "--config.data.train=atlas?split=train&languages=en,es&size=16&seed=1",
        "--config.data.eval=atlas?split=test&languages=en,es&size=4&pairs=all",
    ),
    "mblm": (),
    "mmkd": ("--config.stages=full",),
}


def start_system(system, encoder, workdir, devices=1, flags=()):
    command = [sys.executable, "-m", "xlkd.main", f"--config=configs/{system}.py", f"--workdir={workdir}"]
    settings = [f"--config.encoder.path={encoder}", "--config.budget.steps=30", "--config.save.every=10", *flags]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *settings, *SYSTEMS[system]],
        env=environment | {"XLKD_CACHE": str(workdir.parent / "cache")},
        cwd=toy_models.ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def hash_weights(workdir):
    return {
        str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(workdir.glob("stages/*/export/**/*.safetensors"))
    }


@pytest.mark.long
@pytest.mark.parametrize("model_type", [name for name in CONFIGS if name != "bert"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_starts_from_each_family_and_resumes_after_a_kill(system, model_type, tmp_path):
    encoder = save_encoder(tmp_path / "encoder", model_type)
    whole = start_system(system, encoder, tmp_path / "whole")
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    expected = hash_weights(tmp_path / "whole")
    assert expected

    killed = start_system(system, encoder, tmp_path / "killed")
    while killed.poll() is None and not list((tmp_path / "killed").glob("stages/*/checkpoints/20")):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    resumed = start_system(system, encoder, tmp_path / "killed")
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    assert "restored step" in output
    assert hash_weights(tmp_path / "killed") == expected


@pytest.mark.long
@pytest.mark.parametrize("model_type", [name for name in CONFIGS if name != "bert"])
def test_branches_of_each_family_train_on_eight_devices_with_a_trimmed_vocabulary(model_type, tmp_path):
    encoder = save_encoder(tmp_path / "encoder", model_type)
    flags = ("--config.mesh.branch=2", "--config.mesh.fsdp=2", "--config.encoder.trim_vocab=True")
    run = start_system("mblm", encoder, tmp_path / "run", 8, flags)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert "vocabulary:" in output
