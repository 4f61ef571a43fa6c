# Breaks the free space of a small XFS volume into pieces of 16 KiB, then makes inodes until nothing fits. Argument: directory, which must
# be a volume of its own. Source: ours.
import os
import sys

os.chdir(sys.argv[1])
stat = os.statvfs(".")
assert os.path.ismount(".") and stat.f_blocks * stat.f_frsize < 1 << 28, "not a small volume"
os.mkdir("pieces")
count = 0
try:
    while count < 8000:
        fd = os.open("pieces/%d" % count, os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(fd, 0, 16384)
        os.close(fd)
        count += 1
except OSError:
    pass
os.fsync(os.open(".", os.O_RDONLY))
for k in range(0, count, 2):
    os.unlink("pieces/%d" % k)
os.fsync(os.open(".", os.O_RDONLY))
os.mkdir("inodes")
try:
    for k in range(14000):
        os.close(os.open("inodes/%d" % k, os.O_WRONLY | os.O_CREAT))
except OSError:
    pass
