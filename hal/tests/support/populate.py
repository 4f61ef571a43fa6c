# Fills a freshly mounted file system with what file systems hold and with what trips readers. Arguments: directory, entries of the
# large directory, real files (3000; "small" is none). What a kind of file system cannot hold is left out. Source: ours.
import ctypes
import fcntl
import os
import random
import socket
import struct
import subprocess
import sys

root = sys.argv[1]
small = "small" in sys.argv[3:]
real = 0 if small else int((sys.argv + ["3000"])[3])
os.chdir(root)
random.seed(7)


libc = ctypes.CDLL(None, use_errno=True)
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820


def fallocate(path, keep_size, length):
    fd = os.open(path, os.O_RDWR)
    libc.fallocate(fd, keep_size, ctypes.c_long(0), ctypes.c_long(length))
    os.close(fd)


def chattr(path, flag=0, project=None):
    # What a kind of file system does not have stays as it is.
    fd = os.open(path, os.O_RDONLY)
    try:
        if flag:
            (old,) = struct.unpack_from("<I", fcntl.ioctl(fd, FS_IOC_GETFLAGS, b"\0" * 8))
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("<Q", old | flag))
        if project is not None:
            buf = bytearray(28)
            fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buf)
            struct.pack_into("<I", buf, 12, project)
            fcntl.ioctl(fd, FS_IOC_FSSETXATTR, buf)
    except OSError as e:
        print("chattr", path, e)
    os.close(fd)


def write(path, data, at=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(fd, data, at)
    os.close(fd)


# A real tree.
if real:
    subprocess.run("(cd /usr/share && find . -xdev -type f -size -100k | head -%d | tar cf - -T -) | tar xf -" % real, shell=True)
os.mkdir("x")
os.chdir("x")
for size in [0, 1, 59, 60, 61, 100, 160, 1023, 1024, 1025, 4095, 4096, 4097, 12 * 4096, 12 * 4096 + 1, 65536, 1 << 20, 5 << 20]:
    write("size-%d" % size, random.randbytes(size))
# Sparse, in many pieces, far out.
write("sparse", b"!", 0)
for at in [4096 * 100, 4096 * 5000, (1 << 32) + 5, (1 << 34) + 77, (1 << 43) + 1]:
    try:
        write("sparse", b"data at %d" % at, at)
        os.truncate("sparse", at + 12345)
    except OSError as e:
        print("this file system ends before", at, e)
write("hole-only", b"")
os.truncate("hole-only", 1 << 30)
# Thousands of extents: every other block.
fd = os.open("fragments", os.O_WRONLY | os.O_CREAT)
for k in range(1200 if small else 6000):
    os.pwrite(fd, b"%d" % k, k * 8192)
os.close(fd)
for name, keep_size, length in [("falloc", 0, 1 << 20), ("beyond", 1, 3 << 20), ("mixed", 0, 2 << 20)]:
    write(name, b"start")
    fallocate(name, keep_size, length)
write("mixed", b"x" * 10000, 500000)
# Longer than what an inode holds inline, and inline all the same.
write("grown", b"a few bytes")
os.truncate("grown", 3 << 20)
write("regrown", b"x" * 140)
os.truncate("regrown", 61)
os.truncate("regrown", 5000)
# Links and special files.
os.link("size-100", "hard-1")
os.link("size-100", "hard-2")
for n in [1, 58, 59, 60, 61, 200, 1000]:
    os.symlink("t" * n, "link-%d" % n)
os.mkfifo("fifo")
s = socket.socket(socket.AF_UNIX)
s.bind("socket")
os.mknod("chr-old", 0o20600, os.makedev(5, 1))
os.mknod("chr-new", 0o20600, os.makedev(300, 70000))
os.mknod("blk", 0o60640, os.makedev(259, 3))
# Names.
for name in [b"\xff\xfe not utf-8", b"new\nline", b" ", b"-rf", b"\x01\x02", b"n" * 255, "ünï".encode()]:
    write(name, b"named")
# Attributes.
def attr(path, name, value):
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as e:
        print("xattr", path, name, len(value), e)


for k, value in enumerate([b"", b"v", b"v" * 50, b"v" * 500, b"\0\1\2" * 300, b"w" * 3000, b"w" * 60000]):
    name = "attr-%d" % k
    write(name, b"a")
    attr(name, "user.one", value)
    attr(name, "user.second", b"2")
    attr(name, "trusted.t", b"t" * k)
write("attrs", b"")
for k in range(40):
    attr("attrs", "user.a%d" % k, b"%d" % k)
os.symlink("nowhere", "link-attr")
attr("link-attr", "trusted.on-link", b"yes")
os.mkdir("dir-attr")
attr("dir-attr", "user.dir", b"d" * 200)


def acl(path, kind, entries):
    attr(path, "system.posix_acl_" + kind, struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries))


none = 0xFFFFFFFF
acl("attr-1", "access", [(1, 6, none), (2, 7, 1000), (2, 4, 70000), (4, 4, none), (8, 5, 2000), (0x10, 7, none), (0x20, 4, none)])
acl("dir-attr", "default", [(1, 7, none), (2, 5, 1001), (4, 5, none), (0x10, 5, none), (0x20, 0, none)])
write("capable", b"#!")
attr("capable", "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
# Owners, modes, flags.
write("owned", b"o")
os.chown("owned", 70001, 4000000000)
write("setuid", b"s")
os.chmod("setuid", 0o6755)
os.mkdir("sticky")
os.chmod("sticky", 0o1777)
for name, flag in [("i", 0x10), ("a", 0x20), ("A", 0x80), ("d", 0x40), ("c", 0x4), ("S", 0x8)]:
    write("flag-" + name, b"f")
    chattr("flag-" + name, flag)
for name, project in [("owned", 77), ("capable", 4294967294), ("dir-attr", 1000)]:
    chattr(name, project=project)
# Times.
for name, ns in [("1901", -2147483648), ("1969", -1), ("1970", 0), ("2038", 2147483648), ("2200", 7258118400), ("2446", 15032385535)]:
    write("time-" + name, b"t")
    os.utime("time-" + name, ns=(ns * 10**9 + 1, ns * 10**9 + 123456789))
# Directories.
os.mkdir("many")
for k in range(int(sys.argv[2])):
    write("many/entry number %d" % k, b"") if k % 50 == 0 else os.link("size-1", "many/entry number %d" % k)
for k in range(0, int(sys.argv[2]), 3):
    os.unlink("many/entry number %d" % k)
d = "deep"
for k in range(40):
    os.mkdir(d)
    d += "/d%d" % k
os.mkdir("emptied")
for k in range(300 if small else 2000):
    write("emptied/%d" % k, b"")
for k in range(300 if small else 2000):
    os.unlink("emptied/%d" % k)
