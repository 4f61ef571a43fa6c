# Breaks the free space of an XFS volume into pieces of 16 KiB, then makes inodes until nothing fits. Argument: directory. Source: ours.
import os
import sys

os.chdir(sys.argv[1])
os.mkdir("pieces")
count = 0
try:
    while True:
        fd = os.open("pieces/%d" % count, os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(fd, 0, 16384)
        os.close(fd)
        count += 1
except OSError:
    pass
os.sync()
for k in range(0, count, 2):
    os.unlink("pieces/%d" % k)
os.sync()
os.mkdir("inodes")
try:
    for k in range(4000):
        os.close(os.open("inodes/%d" % k, os.O_WRONLY | os.O_CREAT))
except OSError:
    pass
