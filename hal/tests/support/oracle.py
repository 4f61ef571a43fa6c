# Prints what the kernel says about every inode below a mounted directory: the oracle of the tests against a kernel.
# I: key=value for each inode. N: directory, name in hex, inode. E: a directory whose listing ends with an error. L: directory, inode
# of a name that cannot be looked up. What the kernel answers with an error is "!" and its number.
# Uses lstat, statx (birth time), listxattr, FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR (project), FIEMAP and a hash of the contents.
# Runs on the host for ordinary images and in a guest (guest.py) for all others. Source: ours; linux/fiemap.h,
# linux/fs.h.
import ctypes
import fcntl
import hashlib
import os
import stat
import struct
import sys

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_GETVERSION = 0x80087601
FS_IOC_FIEMAP = 0xC020660B
HASH_BYTES_MAX = 256 << 20
# Names of a directory that are all looked up; of those behind, one in 16 is. All are listed.
LOOKUPS_MAX = 1 << 40
libc = ctypes.CDLL(None, use_errno=True)


def said(f, *args):
    try:
        return f(*args)
    except OSError as e:
        return "!%d" % e.errno


def birth(path):
    buf = ctypes.create_string_buffer(256)
    if libc.statx(-100, path, 0x100, 0xFFF, buf) != 0:
        raise OSError(ctypes.get_errno(), "statx")
    if not struct.unpack_from("<I", buf, 0)[0] & 0x800:
        return "-"
    return "%d.%d" % struct.unpack_from("<qI", buf, 0x50)


def fiemap(fd):
    start, out = 0, []
    while True:
        n = 512
        buf = bytearray(32 + 56 * n)
        struct.pack_into("<QQIIII", buf, 0, start, 0xFFFFFFFFFFFFFFFF - start, 0, 0, n, 0)
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buf)
        mapped = struct.unpack_from("<I", buf, 20)[0]
        if mapped == 0:
            break
        last = False
        for i in range(mapped):
            logical, physical, length = struct.unpack_from("<QQQ", buf, 32 + 56 * i)
            flags = struct.unpack_from("<I", buf, 32 + 56 * i + 40)[0]
            out.append((logical, physical, length, flags))
            last = bool(flags & 1)
        if last or out[-1][0] + out[-1][2] <= start:
            break
        start = out[-1][0] + out[-1][2]
    merged = []
    for logical, physical, length, flags in out:
        state = "i" if flags & 0x200 else "u" if flags & 0x800 else "d"
        if merged and merged[-1][3] == state and merged[-1][0] + merged[-1][2] == logical and merged[-1][1] + merged[-1][2] == physical:
            merged[-1][2] += length
        else:
            merged.append([logical, physical, length, state])
    return ",".join("%d:%d:%d:%s" % tuple(e) for e in merged)


def xattrs(path):
    names = sorted(os.fsencode(n) for n in os.listxattr(path, follow_symlinks=False))
    # XFS shows ACLs to root a second time, in its own form.
    names = [n for n in names if not n.startswith(b"trusted.SGI_ACL_")]
    value = lambda n: os.getxattr(path, n, follow_symlinks=False).hex()
    return ",".join(n.hex() + ":" + said(value, n) for n in names)


def digest(fd):
    digest = hashlib.sha256()
    while piece := os.read(fd, 1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def project(fd):
    buf = bytearray(28)
    fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buf)
    return "%d" % struct.unpack_from("<I", buf, 12)[0]


def number(fd, request, shown):
    return shown % struct.unpack("<I", fcntl.ioctl(fd, request, b"\0" * 8)[:4])[0]


def inode(path, st):
    f = ["I", "ino=%d" % st.st_ino, "mode=%o" % st.st_mode, "own=%d:%d" % (st.st_uid, st.st_gid), "links=%d" % st.st_nlink]
    f.append("rdev=%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev)))
    if not stat.S_ISDIR(st.st_mode):
        f.append("size=%d" % st.st_size)
    for name, ns in (("a", st.st_atime_ns), ("m", st.st_mtime_ns), ("c", st.st_ctime_ns)):
        f.append("%s=%d.%d" % (name, ns // 10**9, ns % 10**9))
    f.append("b=" + said(birth, path))
    f.append("x=" + said(xattrs, path))
    if stat.S_ISLNK(st.st_mode):
        f.append("target=" + said(lambda: os.readlink(path).hex()))
    if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
        fd = said(os.open, path, os.O_RDONLY | os.O_NOATIME)
        if isinstance(fd, str):
            return " ".join(f + ["open=" + fd])
        f.append("project=" + said(project, fd))
        f.append("flags=" + said(number, fd, FS_IOC_GETFLAGS, "%x"))
        f.append("gen=" + said(number, fd, FS_IOC_GETVERSION, "%d"))
        if stat.S_ISREG(st.st_mode):
            f.append("extents=" + said(fiemap, fd))
            f.append("sha=" + (said(digest, fd) if st.st_size <= HASH_BYTES_MAX else "-"))
        os.close(fd)
    return " ".join(f)


def listing(path, ino, out):
    names = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                out.write("N %d %s %d\n" % (ino, entry.name.hex(), entry.inode()))
                names.append((entry.name, entry.inode()))
    except OSError as e:
        out.write("E %d !%d\n" % (ino, e.errno))
    return names


def walk(root, out):
    seen, todo = set(), [(os.fsencode(root), None)]
    while todo:
        path, st = todo.pop()
        st = st or os.lstat(path)
        if st.st_ino in seen:
            continue
        seen.add(st.st_ino)
        out.write(inode(path, st) + "\n")
        if not stat.S_ISDIR(st.st_mode):
            continue
        for n, (name, ino) in enumerate(listing(path, st.st_ino, out)):
            # Looked up once: in a directory without an index that is a search.
            if ino in seen or (n > LOOKUPS_MAX and n % 16):
                continue
            child = os.path.join(path, name)
            found = said(os.lstat, child)
            if isinstance(found, str):
                out.write("L %d %d %s\n" % (st.st_ino, ino, found))
            elif found.st_ino == ino:
                todo.append((child, found))


if __name__ == "__main__":
    with open(sys.argv[2], "w") as out:
        walk(sys.argv[1], out)
