#!/bin/sh
# Put ssh settings and firewall in place so that a mistake locks nobody out for long.
#
#   access.sh pending          exit code 0: what is prepared is in place; 1: it is not
#   access.sh try SECONDS      put it in place; without `confirm` within SECONDS everything is as before
#   access.sh confirm          a new login has worked: it stays
#   access.sh undo             what the timer does
set -eu
folder=/etc/battfleet/access
ssh_live=/etc/ssh/sshd_config.d/00-battfleet.conf
firewall_live=$folder/firewall.live

load() {
  mkdir -p /run/sshd # sshd -t wants it, and it is not there when ssh was never started
  sshd -t
  systemctl reload-or-restart ssh.service
  if [ -e "$firewall_live" ]; then
    nft -f "$firewall_live"
  else
    nft delete table inet battfleet 2>/dev/null || true
  fi
}

keep() { # FILE: remember it, or that there is none
  rm -f "$1.before"
  [ ! -e "$1" ] || cp -p "$1" "$1.before"
}

restore() { # FILE
  rm -f "$1"
  [ ! -e "$1.before" ] || mv "$1.before" "$1"
}

case $1 in
  pending)
    cmp -s "$folder/00-battfleet.conf" "$ssh_live" && cmp -s "$folder/firewall.nft" "$firewall_live"
    ;;
  try)
    nft -c -f "$folder/firewall.nft"
    keep "$ssh_live"
    keep "$firewall_live"
    systemd-run --quiet --collect --unit=battfleet-access-undo --on-active="$2" "$folder/access.sh" undo
    cp "$folder/00-battfleet.conf" "$ssh_live"
    cp "$folder/firewall.nft" "$firewall_live"
    load || { "$folder/access.sh" undo; exit 1; }
    ;;
  confirm)
    systemctl stop battfleet-access-undo.timer
    rm -f "$ssh_live.before" "$firewall_live.before"
    ;;
  undo)
    restore "$ssh_live"
    restore "$firewall_live"
    load
    systemctl stop battfleet-access-undo.timer 2>/dev/null || true
    ;;
esac
