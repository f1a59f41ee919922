#!/bin/sh
# Installs the servers that ours is compared with, on Debian or Ubuntu, and lets none of them run
# by itself: the benchmarks start them. As root: sh benchmarks/install_peers.sh
set -eu
apt-get update
apt-get install -y --no-install-recommends ngircd prosody ejabberd
if [ -d /run/systemd/system ]; then
    systemctl disable --now ngircd prosody ejabberd
fi
