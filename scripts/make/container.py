"""Builds and starts the image on a machine without a container engine, as root.

    apt-get install buildah debootstrap
    python -m scripts.make.container build [--bento TAG]     # from a Bento in the store
    python -m scripts.release.check_container                   # starts the image, and checks what the docs promise
    python -m scripts.make.container clean

All files are in build/container/. The base replaces the image that `bentoml containerize` builds on: Debian of the same
release, with the Python and the uv of this .venv, as the official one has a Python of its own. If RUN needs a proxy's
certificates or a cache of packages, list them as `volumes` in a containers.conf, and name that in CONTAINERS_CONF. None
of them gets into the image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "build" / "container"
IMAGE = "localhost/parakeet-stt:latest"
BASE = "localhost/python:3.11-slim-bookworm"  # buildah finds it for the name in service.py, which has no host
PACKAGES = (  # libraries that Python's own modules are linked with
    "ca-certificates", "libbz2-1.0", "libcrypt1", "libexpat1", "libffi8", "liblzma5", "libncursesw6", "libreadline8",
    "libsqlite3-0", "libssl3", "libuuid1", "zlib1g",
)  # fmt: skip
NOT_SERVED = ("site-packages", "test", "config-*", "idlelib", "tkinter", "ensurepip", "__pycache__")
STORAGE = """[storage]
driver = "vfs"
graphroot = "{state}/graph"
runroot = "{state}/run"
"""
# The part of a container engine that is needed here: separate processes, mounts and names, a read-only root with a
# writable /tmp, only harmless devices, and an unprivileged user that can't change to another. The network is the
# caller's.
JAIL = """set -e
mount --bind "$JAIL_ROOT" "$JAIL_ROOT"
mount -t proc proc "$JAIL_ROOT/proc"
mount -o bind,ro /sys "$JAIL_ROOT/sys"
mount -t tmpfs -o mode=755 none "$JAIL_ROOT/dev"
for name in null zero full random urandom; do
    touch "$JAIL_ROOT/dev/$name"
    mount --bind "/dev/$name" "$JAIL_ROOT/dev/$name"
done
mkdir "$JAIL_ROOT/dev/shm"
mount -t tmpfs -o mode=1777,size=64m none "$JAIL_ROOT/dev/shm"
mount --bind "$JAIL_TMP" "$JAIL_ROOT/tmp"
echo "127.0.0.1 localhost" > "$JAIL_ROOT/etc/hosts"
if [ -n "$JAIL_MODELS" ]; then mount -o bind,ro "$JAIL_MODELS" "$JAIL_ROOT/home/bentoml/models"; fi
mount -o remount,bind,ro "$JAIL_ROOT"
exec chroot "$JAIL_ROOT" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """How to run an image, as its own configuration says."""

    user: str
    folder: str
    environment: tuple[str, ...]
    entrypoint: tuple[str, ...]
    size_bytes: int


def environment() -> dict[str, str]:
    """The environment of buildah: no engine, no privileges that a container lacks, all files under `STATE`."""
    settings = STATE / "storage.conf"
    STATE.mkdir(parents=True, exist_ok=True)
    settings.write_text(STORAGE.format(state=STATE))
    own = {"CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot", "BENTOML_DO_NOT_TRACK": "True"}
    return {**os.environ, **own}


def buildah(*arguments: str) -> str:
    """Run buildah; its output. Raises CalledProcessError."""
    done = subprocess.run(["buildah", *arguments], env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def make_base() -> None:
    """Make the base image, unless it exists."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return
    folder = STATE / "base"
    shutil.rmtree(folder, ignore_errors=True)
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(folder)]
    subprocess.run(bootstrap, check=True, stdout=subprocess.DEVNULL)
    for cached in (*folder.glob("var/cache/apt/archives/*.deb"), *folder.glob("var/lib/apt/lists/*_*")):
        cached.unlink()
    copy_python(Path(sys.base_prefix), folder / "usr/local")
    shutil.copy(Path(sys.executable).with_name("uv"), folder / "usr/local/bin/uv")
    subprocess.run(["chroot", str(folder), "/sbin/ldconfig"], check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(folder), "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(folder)


def copy_python(prefix: Path, target: Path) -> None:
    """Copy the interpreter and its library, without the parts that a service does not need."""
    if prefix == Path("/usr"):
        sys.exit("the system's Python can't be copied: make .venv with one that has a folder of its own (PYTHON=)")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    unwanted = shutil.ignore_patterns(*NOT_SERVED)
    shutil.copytree(prefix / "lib" / name, target / "lib" / name, ignore=unwanted, dirs_exist_ok=True)
    for library in prefix.glob("lib/libpython3*.so*"):
        shutil.copy(library, target / "lib")
    shutil.copy(prefix / "bin" / name, target / "bin" / name)
    (target / "bin" / "python3").symlink_to(name)


def build(bento: str) -> None:
    """Build `IMAGE` from a Bento of the store."""
    make_base()
    began = time.monotonic()
    bentoml = Path(sys.executable).with_name("bentoml")
    subprocess.run(
        [bentoml, "containerize", bento, "-t", IMAGE, "--backend", "buildah", "--opt", "pull-never"],
        env=environment(), check=True,
    )  # fmt: skip
    buildah("rmi", "--prune")  # the former image of this name
    print(f"{IMAGE}: {read_image().size_bytes / 1e9:.2f} GB, built in {time.monotonic() - began:.0f} s")


def read_image() -> Image:
    """The configuration and the size of `IMAGE`."""
    described = json.loads(buildah("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    (listed,) = json.loads(buildah("images", "--json", IMAGE))
    return Image(
        user=described["User"],
        folder=described["WorkingDir"],
        environment=tuple(described["Env"]),
        entrypoint=tuple(described["Entrypoint"]),
        size_bytes=_to_bytes(listed["size"]),
    )


def _to_bytes(size: str) -> int:
    number, unit = size.split()
    return int(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])


@contextmanager
def mount() -> Iterator[Path]:
    """A folder with the image's files, while the context lasts."""
    container = buildah("from", "--pull-never", IMAGE)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", container)


@dataclass(frozen=True, slots=True)
class Outside:
    """What a container gets from outside.

    tmp: folder for its /tmp. log: descriptor of a file for its output. models: folder of a BentoML store to be mounted.
    variables: NAME=VALUE.
    """

    tmp: Path
    log: int
    models: Path | None = None
    variables: tuple[str, ...] = ()


def start(image: Image, root: Path, outside: Outside, *command: str) -> subprocess.Popen[bytes]:
    """Start a container. Its first process is the image's entry point, or `command`, and a child of the result.

    When one of the two ends, the other and all processes of the container end too.
    """
    user = ["setpriv", "--reuid", image.user, "--regid", image.user, "--init-groups", "--no-new-privs",
            "--bounding-set=-all", "--inh-caps=-all"]  # fmt: skip
    enter = [*user, "sh", "-c", 'cd "$0" && exec "$@"', image.folder, *(command or image.entrypoint)]
    return subprocess.Popen(
        ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", JAIL, "jail",
         f"HOME=/home/{image.user}", *image.environment, *outside.variables, *enter],
        env={"PATH": os.environ["PATH"], "JAIL_ROOT": str(root), "JAIL_TMP": str(outside.tmp),
             "JAIL_MODELS": str(outside.models or "")}, stdout=outside.log, stderr=outside.log,
    )  # fmt: skip


def main() -> None:
    """Build the image, or remove all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "clean"))
    parser.add_argument("--bento", default="parakeet_stt:latest")
    given = parser.parse_args()
    if given.action == "build":
        build(given.bento)
    else:
        shutil.rmtree(STATE, ignore_errors=True)


if __name__ == "__main__":
    main()
