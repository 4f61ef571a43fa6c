#!/usr/bin/env bash
# Two Ceph object gateways of one zone on loopback, over one monitor, one manager and one OSD in memory.
#
#   ceph-rgw.sh up DIR PORT     gateways on PORT and PORT+1, keys AK / SK; prints both endpoints when they answer
#   ceph-rgw.sh down DIR        ends the daemons that `up DIR` started, by their pid files
#
# Uses ports PORT..PORT+1 and PORT+100..PORT+299. DIR is emptied. Needs: ceph-mon ceph-osd ceph-mgr radosgw ceph-common curl.
# CEPH_BYTES: size of the in-memory OSD, default 4 GiB. Authentication is on because Debian's gateway refuses without.
set -euo pipefail

dir=$(realpath -m "${2:?usage: ceph-rgw.sh up|down DIR [PORT]}")
conf=$dir/ceph.conf

down() {
  local file pid
  for file in "$dir"/*.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || true
  done
}

write_conf() {
  local port=$1 fsid=$2
  cat >"$conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((port + 100)),v1:127.0.0.1:$((port + 101))]
public network = 127.0.0.0/8
ms bind ipv6 = false
ms bind port min = $((port + 200))
ms bind port max = $((port + 299))
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $dir/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
# A disk that others fill is not the gateways' concern: the monitor keeps a few MiB.
mon data avail crit = 0
mon data avail warn = 0
client mount timeout = 60
mon warn on pool no redundancy = false
run dir = $dir
pid file = $dir/\$name.pid
log file = $dir/\$name.log
admin socket = $dir/\$name.asok
[mon.a]
host = localhost
mon data = $dir/mon
[mgr.x]
mgr data = $dir/mgr
mgr modules =
[osd.0]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = ${CEPH_BYTES:-4294967296}
[client.rgw.a]
rgw data = $dir/rgwa
rgw dns name = localhost
rgw frontends = beast endpoint=127.0.0.1:$port
[client.rgw.b]
rgw data = $dir/rgwb
rgw dns name = localhost
rgw frontends = beast endpoint=127.0.0.1:$((port + 1))
CONF
}

answers() { # URL SECONDS
  local n
  for ((n = 0; n < $2 * 2; n++)); do
    curl -sf -o /dev/null "$1" && return 0
    sleep 0.5
  done
  echo "no answer from $1" >&2
  return 1
}

up() {
  local port=$1 fsid osd_id entity n
  rm -rf "$dir"
  mkdir -p "$dir"/{mon,mgr,osd,rgwa,rgwb}
  fsid=$(cat /proc/sys/kernel/random/uuid)
  write_conf "$port" "$fsid"
  # One keyring for all; every entity may do everything.
  ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
  for entity in client.admin mgr.x osd.0 client.rgw.a client.rgw.b; do
    ceph-authtool "$dir/keyring" --gen-key -n "$entity" \
      --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
  done
  monmaptool --create --clobber --fsid "$fsid" \
    --addv a "[v2:127.0.0.1:$((port + 100)),v1:127.0.0.1:$((port + 101))]" "$dir/monmap"
  ceph-mon -c "$conf" -i a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring"
  ceph-mon -c "$conf" -i a
  ceph -c "$conf" -s
  ceph-mgr -c "$conf" -i x
  osd_id=$(cat /proc/sys/kernel/random/uuid)
  ceph -c "$conf" osd new "$osd_id" 0
  ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$osd_id" --osd-data "$dir/osd"
  ceph -c "$conf" osd crush add osd.0 1.0 root=default host=localhost
  ceph-osd -c "$conf" -i 0
  for ((n = 0; n < 60; n++)); do
    ceph -c "$conf" osd stat | grep -q '1 up' && break
    sleep 1
  done
  # The first gateway makes the pools; the second waits for it, or both make them at once.
  radosgw -c "$conf" -n client.rgw.a
  answers "http://127.0.0.1:$port/" 120
  radosgw -c "$conf" -n client.rgw.b
  answers "http://127.0.0.1:$((port + 1))/" 60
  radosgw-admin -c "$conf" user create --uid=windlass --display-name=windlass --access-key=AK --secret-key=SK
}

case $1 in
  up)
    port=${3:?a port}
    log=$(mktemp)
    # In a condition a shell goes on after what fails; in a job of its own it ends.
    up "$port" >"$log" 2>&1 &
    if wait $!; then
      rm -f "$log"
      echo "http://127.0.0.1:$port http://127.0.0.1:$((port + 1))"
    else
      tail -5 "$log" >&2
      rm -f "$log"
      down
      exit 1
    fi
    ;;
  down) down ;;
  *) echo "up or down" >&2; exit 2 ;;
esac
