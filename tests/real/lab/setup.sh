#!/usr/bin/env bash
# A real Slurm of one node, with accounting and an sshd on loopback, so that oumi's `slurm` cloud can be driven end to end.
#
# FOR A THROWAWAY MACHINE ONLY, Debian 12 or alike, as root: it runs daemons as root, and lets root in over ssh on loopback with a
# key it makes. It needs no systemd. Run again it starts what is not running.
#
#   tests/real/lab/setup.sh           then: export OUMI_SLURM_CONNECTIONS=root@localhost
#   tests/real/lab/setup.sh stop      ends what it started
#
# Then, with requirements.txt of the folder above installed:
#   oumi launch up -c tests/real/lab/slurm.yaml --cluster root@localhost --detach
# For SkyPilot on top of it, see sky.sh.
set -euo pipefail

lab=/opt/oumi-lab
run=/run/oumi-lab
log=/var/log/oumi-lab
spool=/var/spool/oumi-lab
host=$(hostname -s)

# In the order of their dependence.
daemons=(munged mariadbd slurmdbd slurmctld slurmd sshd)

runs() { # <daemon>; one that is dead and not yet reaped does not
  [ -s "$run/$1.pid" ] || return 1
  case $(ps -o stat= -p "$(cat "$run/$1.pid")") in
    '' | Z*) return 1 ;;
  esac
}

# Tries for half a minute.
until_ok() { # <what> <command…>
  local what=$1 end=$((SECONDS + 30))
  shift
  while [ "$SECONDS" -lt "$end" ]; do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.5
  done
  echo "error: $what was not seen within 30 s; see $log" >&2
  exit 1
}

stop() {
  local at name
  for ((at = ${#daemons[@]} - 1; at >= 0; at--)); do
    name=${daemons[at]}
    if runs "$name"; then
      kill "$(cat "$run/$name.pid")"
      has_ended() { ! runs "$name"; }
      until_ok "the end of $name" has_ended
    fi
  done
}

packages() {
  local program missing=
  for program in slurmctld slurmd slurmdbd munged sshd mariadbd rsync; do
    command -v "$program" >/dev/null || missing=$program
  done
  [ -n "$missing" ] || return 0
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Their own services stay off: everything here is started by this script.
  apt-get install -y -qq --no-install-recommends \
    slurm-wlm slurmdbd munge mariadb-server openssh-server openssh-client rsync
}

start_munged() { # the daemons of Slurm trust each other by it
  runs munged && return 0
  [ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
  chown munge:munge /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  install -d -o munge -g munge -m 755 /run/munge
  touch "$run/munged.pid"
  chown munge:munge "$run/munged.pid"
  runuser -u munge -- /usr/sbin/munged --force --pid-file="$run/munged.pid"
  until_ok munged munge --no-input
}

start_mariadbd() { # for the accounting: `oumi launch status` asks sacct
  runs mariadbd && return 0
  install -d -o mysql -g mysql /run/mysqld
  setsid mariadbd --user=mysql --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M >"$log/mariadbd.log" 2>&1 </dev/null &
  echo $! >"$run/mariadbd.pid"
  until_ok mariadbd mariadb-admin ping
  mariadb -e 'create database if not exists slurm_acct_db'
}

configure_slurm() {
  mkdir -p /etc/slurm
  # Root needs no password: it is known by the socket.
  cat >/etc/slurm/slurmdbd.conf <<EOF
AuthType=auth/munge
DbdHost=localhost
SlurmUser=root
LogFile=$log/slurmdbd.log
PidFile=$run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
EOF
  chmod 600 /etc/slurm/slurmdbd.conf
  # A gigabyte stays for the daemons.
  cat >/etc/slurm/slurm.conf <<EOF
ClusterName=lab
SlurmctldHost=$host
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.pid
StateSaveLocation=$spool/slurmctld
SlurmdSpoolDir=$spool/slurmd
SlurmctldLogFile=$log/slurmctld.log
SlurmdLogFile=$log/slurmd.log
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=300
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
NodeName=$host CPUs=$(nproc) RealMemory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 1024)) State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
}

start_slurmdbd() {
  runs slurmdbd && return 0
  slurmdbd
  until_ok slurmdbd sacctmgr -n list cluster
  [ -n "$(sacctmgr -n list cluster lab)" ] || sacctmgr -i add cluster lab >/dev/null
  [ -n "$(sacctmgr -n list account lab)" ] || sacctmgr -i add account lab description=lab organization=lab >/dev/null
  sacctmgr -n list association user=root account=lab | grep -q . || sacctmgr -i add user root account=lab >/dev/null
}

start_slurmctld() {
  runs slurmctld || slurmctld
}

start_slurmd() {
  runs slurmd || slurmd
}

start_sshd() {
  install -d -m 700 ~/.ssh
  [ -s ~/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
  touch ~/.ssh/authorized_keys
  chmod 600 ~/.ssh/authorized_keys
  grep -qFf ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys || cat ~/.ssh/id_ed25519.pub >>~/.ssh/authorized_keys
  if ! runs sshd; then
    ssh-keygen -A >/dev/null
    mkdir -p /run/sshd "$lab/sshd.d"
    cat >"$lab/sshd_config" <<EOF
ListenAddress 127.0.0.1
PidFile $run/sshd.pid
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
Include $lab/sshd.d/*.conf
EOF
    /usr/sbin/sshd -f "$lab/sshd_config"
    until_ok sshd ssh-keyscan -T 2 localhost
  fi
  ssh-keygen -F localhost >/dev/null 2>&1 || ssh-keyscan -T 5 localhost 127.0.0.1 2>/dev/null >>~/.ssh/known_hosts
  # Oumi has Slurm write its logs there and does not make it.
  mkdir -p ~/oumi_slurm_logs
}

case "${1:-start}" in
  stop) stop ;;
  start)
    packages
    mkdir -p "$run" "$log" "$lab" "$spool/slurmctld" "$spool/slurmd"
    grep -qw "$host" /etc/hosts || echo "127.0.0.1 $host" >>/etc/hosts
    configure_slurm
    for daemon in "${daemons[@]}"; do "start_$daemon"; done
    is_up() { sinfo -h -o %T | grep -Eq 'idle|mixed|alloc'; }
    until_ok "the node of Slurm" is_up
    echo "slurm: $(sinfo -h -o '%P %a %D %T %N'), over ssh: $(ssh -o BatchMode=yes root@localhost sinfo --version)"
    ;;
  *)
    echo "usage: setup.sh [start|stop]" >&2
    exit 2
    ;;
esac
