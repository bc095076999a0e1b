"""A SLURM of one's own: munge, a controller, and nodes that are all this machine."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
NODES = {"whole": 2, "one": 1, "two": 1}
"""Cores of each node."""

SETTINGS = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ReturnToService=2
KillWait=5
{nodes}
PartitionName=node Nodes=whole Default=YES MaxTime=INFINITE State=UP
PartitionName=pair Nodes=one,two MaxTime=INFINITE State=UP
"""


def find_obstacle() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    search = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=search) is None]
    if missing:
        return f"there is no {', '.join(missing)}: apt-get install slurm-wlm"
    return None if os.geteuid() == 0 else "slurmd has to be started by root"


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody uses."""
    taken = [socket.socket() for _ in range(count)]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


@contextmanager
def running(place: Path) -> Iterator[dict[str, str]]:
    """The environment of a SLURM that is up; its files are in a folder."""
    host, ports = socket.gethostname().partition(".")[0], free_ports(1 + len(NODES))
    line = "NodeName={} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs={} State=UNKNOWN"
    nodes = [line.format(name, host, port, NODES[name]) for name, port in zip(NODES, ports[1:], strict=True)]
    for folder in ("state", *(f"spool-{name}" for name in NODES)):
        (place / folder).mkdir()
    (place / "munge.key").write_bytes(os.urandom(1024))
    (place / "munge.key").chmod(0o400)
    settings = place / "slurm.conf"
    settings.write_text(SETTINGS.format(host=host, ports=ports, place=place, nodes="\n".join(nodes)))
    environment = {**os.environ, "SLURM_CONF": str(settings)}
    environment["PATH"] = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    files = [f"--{name}-file={place}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    try:
        run(["munged", "--force", f"--socket={place}/munge.socket", *files], environment)
        run(["slurmctld", "-f", str(settings)], environment)
        for name in NODES:
            run(["slurmd", "-N", name, "-f", str(settings)], environment)
        wait_until_idle(environment)
        yield environment
    finally:
        for file in [*place.glob("slurmd-*.pid"), place / "slurmctld.pid", place / "munge.pid"]:
            if file.is_file():
                os.kill(int(file.read_text()), signal.SIGTERM)


def run(command: list[str], environment: dict[str, str]) -> str:
    """Stdout of a command that must succeed."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until_idle(environment: dict[str, str]) -> None:
    """Wait until all nodes have reported."""
    for _ in range(60):
        states = run(["sinfo", "--noheader", "--Node", "--format=%T"], environment).split()
        if states == ["idle"] * len(NODES):
            return
        time.sleep(1)
    raise AssertionError(run(["sinfo"], environment))
