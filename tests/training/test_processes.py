"""Training by two processes, which `torchrun` begins; what each of them does stands in `main`."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unpool import distributed, train
from unpool.errors import OptionError
from unpool.recipes import SegmentationRecipe
from unpool.recipes.segment import Phase
from unpool.segment import learner as networks
from unpool.training.loop import Step
from unpool.training.run import Run
from unpool.vision.images import write_image, write_mask

TINY = SegmentationRecipe(
    "tiny",
    phases=(
        Phase("coarse", stages=1, steps=2, lr=1e-2),
        Phase("fine", stages=2, steps=4, lr=1e-2, older_lr=1e-3, trunk_lr=1e-3),
    ),
    trunk=((1, 6), (1, 8)),
    code=None,
    size=32,
    batch=4,
    crop_long_side=(32, 64),
    dropout=0.2,
    trunk_norm=True,
    checkpointing=True,
    validate_every=2,
    save_every=2,
    statistics_passes=2,
    long_side=48,
)
PLAIN = dataclasses.replace(
    TINY,
    name="without batch norm and dropout, whose results depend on the parts of a batch",
    network="FCN",
    phases=(Phase("all", 1, 4, 1e-2, trunk_lr=1e-3),),
    accumulate=2,
    trunk=((1, 6), (1, 8), (1, 8)),
    code=8,
    stride=4,
    window=3,
    pad=1,
    dropout=0.0,
    bf16=False,
    optimizer="sgd",
)


class StopError(Exception):
    pass


def main(data, output):
    """What each process does; it writes its findings to a file of its own."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    written, learners, build = [], [], networks.build

    def audit(event, arguments):
        """Note what is written below `output`, by whichever way."""
        path = str(arguments[0]) if arguments else ""
        writes = event in ("os.rename", "os.remove", "os.mkdir")
        writes |= event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        if writes and path.startswith(str(output)):
            written.append(path)

    def remember(*arguments):
        learners.append(build(*arguments))
        return learners[-1]

    networks.build = remember
    sys.addaudithook(audit)
    found = {"whole": train(data, output / "whole", TINY)["miou"]}
    found["state"] = digest(learners[-1])
    same = dataclasses.replace(TINY, start=str(output / "whole/weights"), average_with_start=1)
    train(data, output / "same", same)
    found["same"] = digest(learners[-1])
    found["stopped"] = stop_and_resume(data, output / "stopped")
    try:
        train(data, output / "odd", dataclasses.replace(TINY, batch=5))
    except OptionError as error:
        found["odd"] = str(error)
    train(data, output / "plain", PLAIN)
    found["written"] = len(written)
    rank = int(os.environ["RANK"])
    (output / f"{rank}.json").write_text(json.dumps(found))


def digest(learner):
    tensors = learner.state_dict().items()
    parts = [name.encode() + tensor.numpy().tobytes() for name, tensor in tensors]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def stop_and_resume(data, folder):
    log = Run.log

    def stop(self, record, report):
        log(self, record, report)
        if isinstance(record, Step) and record.n == 5:
            raise StopError

    Run.log = stop
    try:
        train(data, folder, TINY)
    except StopError:
        assert distributed.world() == 1  # the processes have parted
    finally:
        Run.log = log
    return train(data, folder, TINY, resume=True)["miou"]


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Ten images with a bright square on dark ground."""
    root, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for i in range(10):
        labels = np.zeros((40, 52), np.uint8)
        y, x = rng.integers(2, 16, 2)
        labels[y : y + 20, x : x + 20] = 1
        image = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8) + 150 * labels[..., None]
        write_image(root / f"images/{i}.png", image)
        write_mask(root / f"masks/{i}.png", labels)
    (root / "classes.txt").write_text("background\nsquare\n")
    return root


@pytest.fixture(scope="module")
def two(squares, tmp_path_factory):
    """The folder of runs by two processes, and what each of them found."""
    output = tmp_path_factory.mktemp("two")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, __file__, squares, output],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "find_unused_parameters" not in done.stderr
    return output, [json.loads((output / f"{rank}.json").read_text()) for rank in range(2)]


def weights(folder):
    return (folder / "weights/model.safetensors").read_bytes()


def test_the_replicas_end_the_same(two):
    """Weights, statistics and figures, after two phases, the growth of a stage, and validations."""
    _, (first, second) = two
    assert first["state"] == second["state"]
    assert first["same"] == second["same"]
    assert first["whole"] == second["whole"] == first["stopped"] == second["stopped"]


def test_a_mean_is_taken(two):
    """With fraction 1 the initial weights are back, except for the statistics of batch norm."""
    output, _ = two
    old, new = (
        load_file(output / name / "weights/model.safetensors") for name in ("whole", "same")
    )
    for name, tensor in old.items():
        if "running" not in name and tensor.is_floating_point():
            assert torch.equal(new[name], tensor), name


def test_the_first_process_alone_writes(two):
    output, (first, second) = two
    assert first["written"] > 0
    assert second["written"] == 0
    lines = (output / "whole/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert json.loads((output / "whole/env.json").read_text())["processes"] == 2


def test_a_resumed_run_equals_an_uninterrupted_one(two):
    output, _ = two
    assert weights(output / "stopped") == weights(output / "whole")


def test_a_batch_that_cannot_be_divided_is_refused(two):
    output, found = two
    for process in found:
        assert "got a batch of 5 for 2 parts (1 to accumulate, 2 processes)" in process["odd"]
    assert not (output / "odd").exists()


def test_two_processes_learn_what_one_does(two, squares, tmp_path):
    output, _ = two
    train(squares, tmp_path / "one", PLAIN)
    one, other = (
        load_file(folder / "weights/model.safetensors")
        for folder in (tmp_path / "one", output / "plain")
    )
    moved = 0.0
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-6)
        moved += float(tensor.norm())
    assert moved > 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
