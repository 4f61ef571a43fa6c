# A small XFS tree with one of every structure, for tests that damage it. Argument: directory. Source: ours.
import os
import random
import subprocess
import sys

os.chdir(sys.argv[1])
random.seed(5)


def write(path, data, at=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(fd, data, at)
    os.close(fd)


for k in range(40):
    write("file %d" % k, bytes([97 + k % 26]) * k * 37)
for n in [3, 20, 300, 1200]:
    os.mkdir("dir %d" % n)
    for k in range(n):
        os.link("file 3", "dir %d/a name that takes some room %d" % (n, k))
for n in [20, 300, 700, 1000]:
    os.symlink("s" * n, "link %d" % n)
os.setxattr("link 300", "trusted.on.link", b"y" * 300, follow_symlinks=False)
os.mkfifo("fifo")
os.mknod("device", 0o20644, os.makedev(5, 1))
write("far", b"f", 1 << 40)
# Every other block, so that the tree of extents has several blocks.
fd = os.open("pieces", os.O_WRONLY | os.O_CREAT)
for k in range(900):
    os.pwrite(fd, b"piece", k * 8192)
os.close(fd)
subprocess.run(["fallocate", "-l", "300000", "unwritten"])
for name, count, size in [("few", 2, 5), ("some", 12, 150), ("many", 150, 120), ("large", 3, 9000)]:
    write("attributes " + name, b"a")
    for k in range(count):
        os.setxattr("attributes " + name, "user.attribute %d" % k, bytes([65 + k % 26]) * (size + k))
subprocess.run(["setfacl", "-m", "u:1000:rw,g:7:r", "file 5"], stderr=subprocess.DEVNULL)
os.mkdir("churn")
for k in range(400):
    write("churn/%d" % k, b"")
for k in range(400):
    if k % 61:
        os.unlink("churn/%d" % k)
