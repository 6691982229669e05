"""The ray engine gives the files of the single process, also when a worker dies."""

import json

import pytest

from eval import datasets, runner
from eval.trackers import TrackerSpec
from tests.eval import trees
from tests.eval.test_runner import DRIFT, files

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    import os

    mark = tmp_path_factory.mktemp("mark") / "died"
    environment = {"env_vars": {"FAKE_TRACKER_MARK": str(mark), "PYTHONPATH": os.getcwd()}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield mark
    ray.shutdown()


@pytest.mark.slow
def test_two_workers_and_one_that_dies_give_the_single_process_files(cluster, tmp_path):
    dataset = datasets.open_dataset("davis17-val", trees.davis17(tmp_path / "data"))
    runner.run(dataset, DRIFT, tmp_path / "single")
    dies = TrackerSpec(method="tests.eval.fake_tracker:dies", model="none")
    result = runner.run(dataset, dies, tmp_path / "dies", engine="ray", workers=2)
    assert cluster.exists()  # a worker did die
    assert result.failed == {}
    mine, single = files(tmp_path / "dies"), files(tmp_path / "single")
    said = [json.loads(each.pop("manifest.json")) for each in (mine, single)]
    assert mine == single
    assert said[0] | {"tracker": said[1]["tracker"]} == said[1]

    breaks = TrackerSpec(method="tests.eval.fake_tracker:breaks", model="none")
    result = runner.run(dataset, breaks, tmp_path / "breaks", engine="ray", workers=2)
    assert set(result.failed) == {"vid_a"}
    assert result.done == ["vid_b"]
