"""Every connection is an open file: a run raises its limit, or says before it sends anything that it is too low."""

import subprocess

import pytest
from bookings import child, finished
from project import COMMAND, Project, texts

LIMITED = """
import resource, sys
from pipeline.errors import UsageError
from pipeline.runners._open_files import make_room_for
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
try:
    make_room_for(int(sys.argv[3]))
except UsageError as error:
    print(error)
else:
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - int(sys.argv[3]) >= 64)
"""


def limited(soft, hard, concurrency):
    code, said = finished(child(LIMITED, soft, hard, concurrency))
    assert code == 0
    return said.strip()


@pytest.mark.parametrize(("soft", "concurrency"), [(256, 32), (64, 32), (256, 900)])
def test_the_limit_is_raised_as_far_as_a_run_needs(soft, concurrency):
    assert limited(soft, 1000, concurrency) == "True"


def test_a_limit_that_can_not_be_raised_so_far_is_told_with_what_fits():
    said = limited(64, 200, 256)
    assert "[limits] concurrency = 256 needs about 3" in said
    most = int(said.removesuffix(" or less").rpartition(" ")[2])
    assert 100 < most < 136
    assert limited(64, 200, most) == "True"
    assert "lower" not in limited(20, 20, 32), "not even one request fits"


def test_a_limit_that_is_high_enough_is_left_alone():
    assert limited(500, 500, 32) == "True"


def test_a_run_with_more_connections_than_open_files_sends_all_or_nothing(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(300))
    project.job(concurrency=150)

    def under(limit):
        command = ["sh", "-c", f'ulimit -{limit}; exec "$@"', "sh", *COMMAND, "run", "job.toml", "--yes"]
        return subprocess.run(command, cwd=tmp_path, env=project._env(), capture_output=True, text=True, check=False)

    refused = under("n 128")
    assert (refused.returncode, stub.calls) == (2, 0)
    assert "promptmill: [limits] concurrency = 150 needs about" in refused.stderr
    done = under("Sn 128")
    assert (done.returncode, stub.calls) == (0, 300), done.stderr
