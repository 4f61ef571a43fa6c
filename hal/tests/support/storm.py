# A random workload that never ends: it is killed with the guest it runs in. Arguments: directory, seed. Creates, grows, cuts,
# renames, links, unlinks, attributes, synchronises. Errors (full, gone) are part of it; what is left is bounded. Source: ours.
import os
import random
import sys

# Names of files and directories, about: an emulated guest lists an inode in some 6 ms, on a busy machine in 40, and lists 26 volumes.
# They are enough for directories of several blocks, and for extents, attributes and orphans.
FILES_MAX = 300
DIRS_MAX = 40

root, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
os.chdir(root)
dirs, files = ["."], []


def name():
    return rng.choice(dirs) + "/" + "%x" % rng.getrandbits(32) + "n" * rng.choice([0, 0, 10, 100, 240])


def write(path, flags):
    fd = os.open(path, os.O_RDWR | flags, 0o600 + rng.randrange(64))
    for _ in range(rng.randrange(1, 4)):
        at = rng.choice([0, 0, rng.randrange(1 << 16), rng.randrange(1 << 22)])
        os.pwrite(fd, rng.randbytes(rng.choice([1, 50, 3000, 70000])), at)
    if rng.random() < 0.2:
        os.posix_fallocate(fd, rng.randrange(1 << 20), 1 << 18)
    if rng.random() < 0.2:
        os.fsync(fd)
    os.close(fd)


def create():
    path = name()
    write(path, os.O_CREAT | os.O_EXCL)
    files.append(path)


def directory():
    if len(dirs) >= DIRS_MAX:
        return rename()
    path = name()
    os.mkdir(path)
    dirs.append(path)


def crowd():
    path = rng.choice(dirs)
    for _ in range(rng.randrange(200)):
        new = path + "/c%x" % rng.getrandbits(40)
        os.close(os.open(new, os.O_CREAT | os.O_WRONLY))
        files.append(new)


def remove():
    os.unlink(files.pop(rng.randrange(len(files))))


def hold():
    # An orphan: unlinked while open.
    path = files.pop(rng.randrange(len(files)))
    held.append(os.open(path, os.O_RDONLY))
    os.unlink(path)
    if len(held) > 5:
        os.close(held.pop(0))


def rename():
    i = rng.randrange(len(files))
    new = name()
    os.rename(files[i], new)
    files[i] = new


def link():
    new = name()
    os.link(rng.choice(files), new)
    files.append(new)


def symlink():
    new = name()
    os.symlink("t" * rng.choice([5, 59, 60, 500]), new)
    files.append(new)


def attribute():
    os.setxattr(rng.choice(files), "user.a%d" % rng.randrange(4), rng.randbytes(rng.choice([1, 60, 800])))


held = []
steps = [create] * 8 + [directory] * 2 + [crowd] + [remove] * 4 + [hold, rename, rename, link, symlink, attribute, attribute]
steps += [lambda: write(rng.choice(files), 0)] * 3 + [lambda: os.truncate(rng.choice(files), rng.randrange(1 << 17))] * 2
while True:
    try:
        (rng.choice(steps) if len(files) < FILES_MAX else remove)()
    except (OSError, IndexError, ValueError):
        if len(files) > 20 and rng.random() < 0.3:
            try:
                remove()
            except OSError:
                pass
