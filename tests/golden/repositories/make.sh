#!/usr/bin/env bash
# Makes a set of small repositories with one build of the program, for every later build to open:
#
#     bash tests/golden/repositories/make.sh target/release/windlass NAME
#
# writes NAME-clear.tar.gz, NAME-sealed.tar.gz and NAME.sums beside this script. It is run once per format that is worth keeping, and
# never again: `tests/tests/house/repositories.rs` reads what it made. Needs e2fsprogs. Source: ours.
set -euo pipefail
program=$(realpath "$1") name=$2 here=$(realpath "$(dirname "$0")")
work=$(mktemp -d /tmp/windlass-golden.XXXXXX); trap 'rm -rf "$work"' EXIT
cd "$work"
unset "${!WINDLASS_@}"

files() {
  mkdir -p "$1/docs/old" "$1/cache"
  local at
  for at in 1 2 3; do
    head -c $((at * 1700)) /dev/zero | openssl enc -aes-128-ctr -K "${2}0$at" -iv 00 2>/dev/null > "$1/docs/$at.bin"
  done
  echo "plain text $2" > "$1/docs/old/note.txt"
  echo "left out" > "$1/docs/draft.tmp"
  echo "left out too" > "$1/cache/c"
  truncate -s 40000 "$1/docs/hole"; printf end >> "$1/docs/hole"
  ln -sf docs/1.bin "$1/link"; ln -f "$1/docs/1.bin" "$1/docs/again"
  echo "cannot be read" > "$1/broken"
}
image() { rm -f "$2"; truncate -s 4M "$2"; mke2fs -q -F -t ext4 -b 1024 -O ^has_journal -d "$1" "$2"; }

files one a; files two b
image one one.img; image two two.img
# An item that cannot be read: its inode is no inode.
debugfs -w -R "sif /broken mode 0" one.img 2>/dev/null
head -c 20000 /dev/zero | openssl enc -aes-128-ctr -K 77 -iv 00 > whole.img 2>/dev/null
printf golden > passphrase; chmod 600 passphrase

# windlass with exit code 3 (done, some items named) as good as 0.
run() { "$program" --alone --quiet "$@" || [ $? -eq 3 ]; }
sums() { (cd "$2" && find . \( -type f -o -type l \) -print0 | sort -z | xargs -0 sha256sum | sed "s|^|$1  |") >> "$name.sums"; }
keep() { # repository policy point volume
  rm -rf out; mkdir out
  run restore "$2@$3" --volume "$4" --to out/tree >/dev/null 2>&1
  sums "$1 $2@$3 $4" out/tree
}
keep_image() { run restore "$2@$3" --to-device out.img >/dev/null 2>&1; printf '%s %s@%s -  %s  -\n' "$1" "$2" "$3" "$(sha256sum < out.img | cut -d' ' -f1)" >> "$name.sums"; rm out.img; }

: > "$name.sums"
for kind in clear sealed; do
  export WINDLASS_REPO=file://$work/$kind
  if [ $kind = clear ]; then run repo init --no-encryption; else
    export WINDLASS_PASSPHRASE_FILE=$work/passphrase; run repo init; fi
  # Selections and several volumes; one item that cannot be read.
  run policy set files --volume ./one.img=ext4 --volume ./two.img=ext4 --exclude '*.tmp' --exclude /cache --block-size 4KiB
  run policy set whole --volume ./whole.img=image --block-size 4KiB --keep-last 3
  run backup files; run backup whole
  if [ $kind = clear ]; then
    # A changed selection, marks, a point that is gone, and damage that a check wrote into the log.
    run policy set files --include /docs --include /link
    echo "a second time" > two/docs/old/note.txt; image two two.img
    run backup files
    printf changed | dd of=whole.img bs=1 seek=9000 conv=notrunc status=none
    run backup whole; run backup whole; run backup whole
    run point hold files@1 --reason "audit, until March"
    run point note files@1 "before the upgrade"
    run point tag files@3 year:2026 kept
    run point expire whole@4
    keep clear files 1 1; keep clear files 1 2; keep clear files 3 1; keep clear files 3 2
    keep_image clear whole 6
    cp -r clear before
    # The second image's object of its first point goes: a check of everything finds it.
    victim=$(find clear -path '*obj*' -type f -printf '%s %p\n' | sort -n | tail -1 | cut -d' ' -f2)
    rm "$victim"
    run check files@1 --read-data >/dev/null 2>&1
    run check whole@6 --read-data >/dev/null 2>&1
    "$program" --alone points files; "$program" --alone points whole
    mv clear damaged; mv before clear
  else
    keep sealed files 1 1; keep_image sealed whole 2
  fi
done
for kind in clear damaged sealed; do
  tar --sort=name --owner=0 --group=0 --numeric-owner -c $kind | gzip -9n > "$here/$name-$kind.tar.gz"
done
cp "$name.sums" "$here/"
ls -l "$here"
