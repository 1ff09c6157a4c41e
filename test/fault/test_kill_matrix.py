# SPDX-License-Identifier: Apache-2.0
"""A part of the matrix of deaths: every third point of each verb and victim, every sixth with runtime v1, every
fifteenth with images (`make kill-matrix` tries all)."""
import pytest

from fault import image_matrix, kill_matrix


@pytest.fixture(scope="module")
def tracer(tmp_path_factory):
    return kill_matrix.build(tmp_path_factory.mktemp("tracer"))


@pytest.mark.parametrize("victim", kill_matrix.VICTIMS)
@pytest.mark.parametrize("runtime, every", [("v2", 3), ("v1", 6)])
def test_killed_at_every_so_many_points(daemon, tracer, victim, runtime, every):
    matrix = kill_matrix.Matrix(daemon, tracer, runtime)
    for verb in kill_matrix.VERBS:
        matrix.row(verb, victim, every)
    matrix.end()
    assert not matrix.failures, "\n".join(matrix.failures)
    # Fewer would mean that the tracer has not seen the calls.
    assert matrix.points >= 15, f"only {matrix.points} points"


def test_images_at_every_so_many_points(daemon, tracer):
    matrix = image_matrix.ImageMatrix(daemon, tracer)
    for victim, verbs in image_matrix.VERBS.items():
        for verb in verbs:
            matrix.row(verb, victim, 15)
    matrix.end()
    assert not matrix.failures, "\n".join(matrix.failures)
    assert matrix.points >= 25, f"only {matrix.points} points"


def test_the_tracer_kills_before_the_call(tracer, tmp_path):
    """The call at the chosen point has no effect, those before it have."""
    import subprocess
    program = tmp_path / "program"
    source = tmp_path / "program.c"
    source.write_text("""
        #include <stdio.h>
        #include <sys/stat.h>
        int main(void) { getchar(); mkdir("a", 0755); mkdir("b", 0755); mkdir("c", 0755); return 0; }
        """)
    subprocess.run(["cc", "-o", program, source], check=True)
    victim = subprocess.Popen([program], stdin=subprocess.PIPE, cwd=tmp_path)
    killer = kill_matrix.Killer(tracer, victim.pid, 3)
    victim.communicate(b"x\n", timeout=10)
    killer.process.wait(10)
    killer.thread.join(10)
    assert killer.has_killed and victim.returncode == -9, killer.lines
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists() and not (tmp_path / "c").exists(), killer.lines
