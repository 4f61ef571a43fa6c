# Prints what the kernel says about every inode below a mounted directory: the oracle of the tests against a kernel.
# One line of key=value per inode and one per name; bytes in hex. Uses lstat, statx (birth time), listxattr, FS_IOC_GETFLAGS,
# FS_IOC_FSGETXATTR (project), FIEMAP and a hash of the contents. Source: ours; linux/fiemap.h, linux/fs.h.
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
libc = ctypes.CDLL(None, use_errno=True)


def birth(path):
    buf = ctypes.create_string_buffer(256)
    if libc.statx(-100, path, 0x100, 0xFFF, buf) != 0:
        raise OSError(ctypes.get_errno())
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
        if last:
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


def inode(path, st):
    f = ["I", "ino=%d" % st.st_ino, "mode=%o" % st.st_mode, "own=%d:%d" % (st.st_uid, st.st_gid), "links=%d" % st.st_nlink]
    f.append("rdev=%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev)))
    if not stat.S_ISDIR(st.st_mode):
        f.append("size=%d" % st.st_size)
    for name, ns in (("a", st.st_atime_ns), ("m", st.st_mtime_ns), ("c", st.st_ctime_ns)):
        f.append("%s=%d.%d" % (name, ns // 10**9, ns % 10**9))
    f.append("b=" + birth(path))
    # XFS shows ACLs to root a second time, in its own form.
    names = sorted((n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith("trusted.SGI_ACL_")), key=os.fsencode)
    f.append("x=" + ",".join(os.fsencode(n).hex() + ":" + os.getxattr(path, n, follow_symlinks=False).hex() for n in names))
    if stat.S_ISLNK(st.st_mode):
        f.append("target=" + os.readlink(path).hex())
    if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        buf = bytearray(28)
        fcntl.ioctl(fd, FS_IOC_FSGETXATTR, buf)
        f.append("project=%d" % struct.unpack_from("<I", buf, 12)[0])
        f.append("flags=%x" % struct.unpack("<I", fcntl.ioctl(fd, FS_IOC_GETFLAGS, b"\0" * 8)[:4])[0])
        f.append("gen=%d" % struct.unpack("<I", fcntl.ioctl(fd, FS_IOC_GETVERSION, b"\0" * 8)[:4])[0])
        if stat.S_ISREG(st.st_mode):
            f.append("extents=" + fiemap(fd))
            digest = hashlib.sha256()
            if st.st_size <= 256 << 20:
                while piece := os.read(fd, 1 << 20):
                    digest.update(piece)
            f.append("sha=" + digest.hexdigest())
        os.close(fd)
    return " ".join(f)


def walk(path, parent, seen, out):
    st = os.lstat(path)
    if st.st_ino not in seen:
        seen.add(st.st_ino)
        out.write(inode(path, st) + "\n")
    if stat.S_ISDIR(st.st_mode):
        for name in os.listdir(path):
            child = os.path.join(path, name)
            out.write("N %d %s %d\n" % (st.st_ino, name.hex(), os.lstat(child).st_ino))
            walk(child, st.st_ino, seen, out)


walk(os.fsencode(sys.argv[1]), 0, set(), open(sys.argv[2], "w"))
