"""A Slurm of one node of a test's own: munged, slurmctld and slurmd, run as root."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from processes import wait_until
from services.postgres import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
FOLDERS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

# The node says that it has more cores than this machine may have, and GPUs that are none: the
# page's jobs ask for them, and two of its tasks fit at a time. Processes are found by their
# parents, because a container has no control groups to give.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=60
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    if os.geteuid() != 0:
        return "needs root, as slurmd does"
    absent = [name for name in PROGRAMS if shutil.which(name, path=FOLDERS) is None]
    return f"needs {', '.join(absent)}: apt install slurm-wlm munge" if absent else None


class Slurm:
    """A cluster of one node, this machine; `environment` leads its commands to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lcg-slurm-"))
        self.folder.chmod(0o755)
        host = platform.node().partition(".")[0]
        ports = {"controller": free_port(), "daemon": free_port()}
        config = self.folder / "slurm.conf"
        config.write_text(CONFIG.format(folder=self.folder, host=host, **ports))
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        for name in ("gpu0", "gpu1"):
            (self.folder / name).touch()
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        self.environment = {"SLURM_CONF": str(config), "PATH": FOLDERS}
        self._daemons: list[subprocess.Popen] = []
        try:
            self._start_munged()
            self._start("slurmctld", "-D", "-i", "-c")
            wait_until(lambda: "UP" in self.call("scontrol", "ping", check=False), 60, self.logs)
            self._start("slurmd", "-D", "-N", host)
            wait_until(lambda: "idle" in self.call("sinfo", "-h", "-o", "%t"), 60, self.logs)
        except BaseException:
            self.close()
            raise

    def _start_munged(self) -> None:
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}
        files |= {"seed-file": "seed"}
        words = [f"--{option}={self.folder / 'munge'}.{end}" for option, end in files.items()]
        self._start("munged", "--foreground", "--force", *words)
        wait_until((self.folder / "munge.socket").exists, 60, self.logs)

    def _start(self, program: str, *words: str) -> None:
        with (self.folder / f"{program}.out").open("w") as out:
            path = shutil.which(program, path=FOLDERS)
            environment = os.environ | self.environment
            daemon = subprocess.Popen([path, *words], env=environment, stdout=out, stderr=out)
        self._daemons.append(daemon)

    def logs(self) -> str:
        """The ends of what the daemons have written."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"{f.name}:\n{f.read_text(errors='replace')[-3000:]}" for f in files)

    def call(self, program: str, *words: str, check: bool = True) -> str:
        """Return what one of Slurm's commands prints."""
        environment = os.environ | self.environment
        words = [shutil.which(program, path=FOLDERS), *words]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{words}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def submit(self, script: Path, *options: str, **environment: str) -> str:
        """Hand a script in, from its own folder and with these variables; returns the job's id."""
        words = [shutil.which("sbatch", path=FOLDERS), "--parsable", *options, str(script)]
        environment = os.environ | self.environment | environment
        done = subprocess.run(
            words, cwd=script.parent, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr + self.logs()
        return done.stdout.strip()

    @property
    def version(self) -> str:
        """As sbatch says it."""
        return self.call("sbatch", "--version").strip()

    def close(self) -> None:
        """End all jobs and then the daemons, the last one first."""
        if len(self._daemons) == 3:
            self.call("scancel", "--user=root", check=False)
            wait_until(lambda: not self.call("squeue", "-h", check=False), 120, self.logs)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
