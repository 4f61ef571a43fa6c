# First process of a guest: does one job with images in a folder, then powers off. The host's kernel never mounts an odd or damaged
# image; this one may hang or die, and costs nothing. Started by guest.rs, which writes before this text: WORK (the folder on the host, with
# the file `job`, or nothing when it is mounted already), SUPPORT (the scripts beside this one), MODULES (where modules to load are, or
# nothing), DISKS (names of disks 0, 1, ...), SLOWER (how many times as long this processor takes). Source: ours; linux/loop.h, mount(2).
#
#   job line              does                                                                        writes
#   walk IMAGE            mounts it read-only, journal untouched, and lists it                        IMAGE.list
#   replay IMAGE          mounts it (journal replayed), unmounts it, then walk                        IMAGE.list
#   fill IMAGE ARG...     mounts it, runs populate.py in it with the arguments, then walk             IMAGE.list, IMAGE.said
#   storm N SEED          mounts disk N and runs storm.py in it, together with the other storms
#   kill MILLISECONDS     waits so long from when each storm has made STORM_INODES inodes, then ends the guest as a power failure does
#
# IMAGE.list starts with "mounted" or "refused ERRNO" and ends with "end"; without the end the job did not finish.
import ctypes
import fcntl
import glob
import os
import runpy
import signal
import struct
import subprocess
import sys
import time
import traceback

# What each storm has to get done before the clock runs, and the longest wait for that: a dozen interpreters start slowly.
STORM_INODES = 150
STORM_SECONDS_MAX = 150 * int(SLOWER)
SECONDS_PER_IMAGE = 60 * int(SLOWER)
MS_RDONLY, MNT_DETACH = 1, 2
LOOP_CTL_GET_FREE, LOOP_CONFIGURE = 0x4C82, 0x4C0A
LO_READ_ONLY, LO_AUTOCLEAR = 1, 4
POWER_OFF = 0x4321FEDC
libc = ctypes.CDLL(None, use_errno=True)


def power_off(sync=False):
    sys.stdout.flush()
    if sync:
        os.sync()
    libc.reboot(ctypes.c_int(POWER_OFF))


def cut_power():
    """Ends the guest as it stands. A power-off would shut its devices down first, which the file systems see: they abort their journals and
    note errors, as no power failure lets them."""
    sys.stdout.flush()
    # A process's disks have no such shutdown, and a reset would start its job again.
    if not WORK:
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("b")
        # The reset ends qemu.
        time.sleep(60)
    power_off()


def mount(source, at, kind, flags=0, data=None):
    if libc.mount(source.encode(), at.encode(), kind.encode(), ctypes.c_ulong(flags), data and data.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount " + source)


def loop(path, writes):
    with open("/dev/loop-control") as control:
        name = "/dev/loop%d" % fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    backing = os.open(path, os.O_RDWR if writes else os.O_RDONLY)
    device = os.open(name, os.O_RDWR if writes else os.O_RDONLY)
    config = bytearray(304)
    struct.pack_into("<II", config, 0, backing, 0)
    struct.pack_into("<I", config, 60, LO_AUTOCLEAR | (0 if writes else LO_READ_ONLY))
    fcntl.ioctl(device, LOOP_CONFIGURE, config)
    os.close(backing)
    return name, device


def kind(path):
    with open(path, "rb") as volume:
        return "xfs" if volume.read(4) == b"XFSB" else "ext4"


class Mounted:
    def __init__(self, path, at, writes, data):
        name, device = loop(path, writes)
        try:
            if kind(path) == "xfs":
                mount(name, at, "xfs", 0 if writes else MS_RDONLY, None if writes else "norecovery,nouuid")
            else:
                mount(name, at, "ext4", 0 if writes else MS_RDONLY, data)
        finally:
            os.close(device)
        self.at = at

    def __enter__(self):
        return self

    def __exit__(self, *_):
        libc.umount2(self.at.encode(), MNT_DETACH)


def writable(path, job):
    # Acknowledged by umount: the write-back is over when it returns.
    with Mounted(path, "/mnt/fs", True, "errors=continue"):
        job()


def walk(path, out):
    with Mounted(path, "/mnt/fs", False, "noload,errors=continue"):
        out.write("mounted\n")
        oracle.walk("/mnt/fs", out)


def listed(path, before):
    """In a child with a time limit: `before`, then the listing."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS_PER_IMAGE)
        try:
            with open(path + ".list", "w") as out:
                try:
                    before()
                    walk(path, out)
                except OSError as e:
                    out.write("refused %d\n" % e.errno)
                out.write("end\n")
        except BaseException as e:
            print("guest:", path, repr(e), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    libc.umount2(b"/mnt/fs", MNT_DETACH)
    # The next image may end this guest: what is known by now stays.
    os.sync()


def populate(path, args):
    def job():
        # In a child of its own: it changes directory, and a new interpreter takes a second here.
        child = os.fork()
        if child == 0:
            said = os.open(path + ".said", os.O_WRONLY | os.O_CREAT)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.argv[1:] = ["/mnt/fs"] + args
            try:
                runpy.run_path(SUPPORT + "/populate.py")
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)

    writable(path, job)


def storm(number, seed):
    disk = DISKS[int(number)]
    at = "/mnt/" + disk
    os.mkdir(at)
    mount("/dev/" + disk, at, kind("/dev/" + disk))
    subprocess.Popen(["/usr/bin/python3", SUPPORT + "/storm.py", at, seed])


def used(disk):
    stat = os.statvfs("/mnt/" + disk)
    return stat.f_files - stat.f_ffree


def wait_for_storms():
    waited = 0
    while waited < STORM_SECONDS_MAX and any(used(disk) < STORM_INODES for disk in DISKS):
        time.sleep(1)
        waited += 1
    print("guest: inodes when the clock starts:", [used(disk) for disk in DISKS], flush=True)


def main():
    os.environ["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin"
    mount("proc", "/proc", "proc")
    for name in ["loop", "quota_tree", "quota_v2"]:
        for module in glob.glob(MODULES + "/**/" + name + ".ko", recursive=True) if MODULES else []:
            with open(module, "rb") as file:
                libc.syscall(313, file.fileno(), b"", 0)
    mount("tmpfs", "/tmp", "tmpfs")
    if WORK:
        mount("tmpfs", "/mnt", "tmpfs")
        os.mkdir("/mnt/given")
        mount("none", "/mnt/given", "hostfs", 0, WORK)
    os.mkdir("/mnt/fs")
    sys.path.insert(0, SUPPORT)
    global oracle
    import oracle

    oracle.HASH_BYTES_MAX = 64 << 20
    oracle.LOOKUPS_MAX = 2000
    print("guest: up", flush=True)
    with open("/mnt/given/job") as job:
        lines = [line.split() for line in job]
    for what, name, *args in lines:
        path = "/mnt/given/" + name
        if what == "walk":
            listed(path, lambda: None)
        elif what == "replay":
            listed(path, lambda: writable(path, lambda: None))
        elif what == "fill":
            listed(path, lambda: populate(path, args))
        elif what == "storm":
            storm(name, args[0])
        elif what == "kill":
            wait_for_storms()
            time.sleep(int(name) / 1000 * int(SLOWER))
            cut_power()


try:
    main()
except BaseException as e:
    print("guest:", repr(e), flush=True)
finally:
    power_off(sync=True)
