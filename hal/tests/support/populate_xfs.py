# Adds to what populate.py makes what only XFS has or does differently: shared extents, all forms of directories and attributes, project
# ids, flags. Arguments: directory, attributes of the item with most of them, entries of the largest directory. Source: ours.
import fcntl
import os
import random
import struct
import subprocess
import sys

FICLONERANGE = 0x4020940D
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
root, attributes, entries = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.chdir(root)
random.seed(11)
os.mkdir("xfs")
os.chdir("xfs")


def write(path, data, at=0):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, data, at)
    os.close(fd)


def attr(path, name, value):
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as e:
        print("xattr", path, name, len(value), e)


# Shared extents, within a file and between files, and what becomes of them when they are written.
write("shared", random.randbytes(1 << 20))
for name in ["clone", "clone-written", "clone-parts"]:
    a, b = os.open("shared", os.O_RDONLY), os.open(name, os.O_RDWR | os.O_CREAT)
    try:
        if name == "clone-parts":
            for k in range(16):
                fcntl.ioctl(b, FICLONERANGE, struct.pack("qQQQ", a, 65536 * (k % 4), 65536, 131072 * k))
        else:
            fcntl.ioctl(b, FICLONERANGE, struct.pack("qQQQ", a, 0, 0, 0))
        if name == "clone-written":
            for k in range(5):
                os.pwrite(b, b"changed", 200000 * k + 3)
    except OSError as e:
        print("no reflink", e)
    os.close(a), os.close(b)
# Directories from none to many names, so that every form and every step between them is there.
for n in [0, 1, 2, 3, 5, 8, 13, 20, 40, 60, 100, 200, 400, 900, 2000]:
    d = "dir-%d" % n
    os.mkdir(d)
    for k in range(n):
        os.symlink("t", d + "/name %d %s" % (k, "z" * (k % 40)))
    for k in range(0, n, 7):
        os.unlink(d + "/name %d %s" % (k, "z" * (k % 40)))
os.mkdir("names")
for k in range(300):
    write("names/%03d" % k + "n" * 252, b"")
os.mkdir("most")
write("linked", b"l")
for k in range(entries):
    os.link("linked", "most/entry %d of a large directory" % k)
# A directory with holes: whole blocks of it are emptied.
os.mkdir("holes")
for k in range(3000):
    os.link("linked", "holes/%05d with a rather long name to fill blocks sooner" % k)
for k in range(700, 2300):
    os.unlink("holes/%05d with a rather long name to fill blocks sooner" % k)
# Attributes: every size around the limits of the forms, and many.
for k, size in enumerate([0, 1, 100, 254, 255, 256, 700, 1500, 3000, 4032, 4096, 8192, 20000, 65535, 65536]):
    write("value-%d" % size, b"v")
    attr("value-%d" % size, "user.value", random.randbytes(size))
    attr("value-%d" % size, "security.label", b"s" * (k * 3))
    attr("value-%d" % size, "trusted." + "t" * 200, b"t")
write("attributes", b"a")
for k in range(attributes):
    attr("attributes", "user.attribute number %d" % k, b"%d" % k * (k % 20))
for k in range(0, attributes, 3):
    os.removexattr("attributes", "user.attribute number %d" % k)
write("attributes-large", b"a")
for k in range(6):
    attr("attributes-large", "user.%d" % k, random.randbytes(60000 + k))
write("attributes-gone", b"a")
attr("attributes-gone", "user.large", b"x" * 10000)
os.removexattr("attributes-gone", "user.large")
os.mkdir("dir-attributes")
for k in range(50):
    attr("dir-attributes", "user.%d" % k, b"d" * k * 10)
os.symlink("s" * 1023, "symlink-1023")
attr("symlink-1023", "trusted.long", b"l" * 3000)
os.symlink("s" * 300, "symlink-300")
# Project ids and flags of the file system's own.
for name, project, flags in [("project", 4000000000, 0), ("nodump", 0, 0x80), ("extsize", 0, 0x800)]:
    write(name, b"p")
    fd = os.open(name, os.O_RDONLY)
    buf = bytearray(28)
    fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buf)
    had, size, _, _ = struct.unpack_from("<IIII", buf)
    struct.pack_into("<I", buf, 0, had | flags)
    struct.pack_into("<I", buf, 4, 1 << 20 if flags == 0x800 else size)
    struct.pack_into("<I", buf, 12, project)
    try:
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, buf)
    except OSError as e:
        print("fssetxattr", name, e)
    os.close(fd)
os.mkdir("inherit")
subprocess.run(["chattr", "+P", "inherit"], stderr=subprocess.DEVNULL)
write("inherit/child", b"c")
# Unwritten extents, written in places, and holes punched.
write("unwritten", b"")
subprocess.run(["fallocate", "-l", "8M", "unwritten"])
for k in range(0, 100, 3):
    write("unwritten", b"w" * 5000, k * 70000)
subprocess.run(["fallocate", "-p", "-o", "1M", "-l", "300000", "unwritten"])
subprocess.run(["fallocate", "-z", "-o", "3M", "-l", "500000", "unwritten"])
for name, device in [("null", (1, 3)), ("large", (511, 262143)), ("major", (259, 5))]:
    os.mknod(name, 0o20644, os.makedev(*device))
# Chunks of inodes that are mostly free again.
os.mkdir("churn")
for k in range(3000):
    write("churn/%d" % k, b"")
for k in range(3000):
    if k % 97:
        os.unlink("churn/%d" % k)
