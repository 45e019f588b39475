#!/bin/sh
# What a user does with the service, under a real `systemd --user` in namespaces of its own. Prints one line
# for each thing that the test looks at. $GATEWAY is the program, $HOUSE a folder.
set -u
mount --make-rprivate / && mount -t tmpfs tmpfs /run || exit 90
mkdir -p /run/systemd/system /run/user/0 "$HOUSE/config/systemd/user" && chmod 700 /run/user/0
export XDG_RUNTIME_DIR=/run/user/0 HOME="$HOUSE" XDG_CONFIG_HOME="$HOUSE/config" PATH="$PATH"
# A target that needs nothing: no unit of the machine is started.
printf '[Unit]\nDefaultDependencies=no\n' > "$HOUSE/config/systemd/user/nothing.target"
systemd=/lib/systemd/systemd; [ -x $systemd ] || systemd=/usr/lib/systemd/systemd
SYSTEMD_LOG_TARGET=null $systemd --user --unit=nothing.target </dev/null >"$HOUSE/systemd.log" 2>&1 &
poll() { n=0; until eval "$1" >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 300 ] || { echo "never: $1"; return 1; }; sleep 0.1; done; }
poll '[ -S /run/user/0/systemd/private ]' || exit 91

configure() { printf 'state_dir: %s\nlisten: 127.0.0.1:%s\nlifecycle: { respawn: %s }\n' "$HOUSE/state" "${2:-0}" "$1" > "$HOUSE/gateway.yaml"; }
of() { systemctl --user show -p "$1" --value gateway.service; }
active() { [ "$(of ActiveState)" = active ] && "$GATEWAY" status --state-dir "$HOUSE/state"; }
say() { echo "$1: $(of ActiveState), restarts $(of NRestarts), $([ "$(of MainPID)" = "$main" ] && echo same process || echo other process)"; main=$(of MainPID); }
reload() { for i in $(seq "$1"); do systemctl --user reload gateway || echo "reload refused"; done; poll active; }
mkdir -p "$HOUSE/config/systemd/user/gateway.service.d"
printf '[Service]\nWatchdogSec=1\n' > "$HOUSE/config/systemd/user/gateway.service.d/quick.conf"
main=none

configure exec
"$GATEWAY" service install --user --now --config "$HOUSE/gateway.yaml" >/dev/null || exit 92
poll active; say installed
reload 20; say "20 by exec"
configure in-process; reload 1; reload 5; say "6 in place"
configure spawn; reload 1; say "last in place"
reload 1; say "1 by spawn"
reload 5; say "5 by spawn"
echo "broken: true" >> "$HOUSE/gateway.yaml"; reload 1; say "broken configuration"
configure exec; reload 1; main=$(of MainPID)
kill -9 "$main"; poll '[ "$(of NRestarts)" = 1 ] && active'; say killed
kill -STOP "$main"; poll '[ "$(of NRestarts)" = 2 ] && active'; say "stopped by SIGSTOP"
configure supervisor; reload 1; main=$(of MainPID)
systemctl --user reload gateway; poll '[ "$(of NRestarts)" = 3 ] && active'; say "by supervisor"
configure exec; reload 1; main=$(of MainPID)
echo "broken: true" >> "$HOUSE/gateway.yaml"; systemctl --user restart gateway 2>/dev/null
poll '[ "$(of ActiveState)" = failed ]'; echo "will not start: $(of ActiveState), exit $(of ExecMainStatus), restarts $(of NRestarts)"
configure exec; systemctl --user reset-failed gateway; systemctl --user start gateway; poll active
systemctl --user stop gateway; echo "stopped: $(of ActiveState), left: $(pgrep -c -x gateway)"
"$GATEWAY" service uninstall --user >/dev/null; echo "uninstalled: $(ls "$HOUSE/config/systemd/user" | grep -c '^gateway\.\(service\|socket\)$') files"

configure exec "$PORT"
"$GATEWAY" service install --user --now --socket --config "$HOUSE/gateway.yaml" >/dev/null
poll active; systemctl --user stop gateway.service 2>/dev/null
echo "socket alone: $(of ActiveState)"
"$GATEWAY" send --url "http://127.0.0.1:$PORT" "it waits in the socket"
poll active; reload 3; main=$(of MainPID); say "socket"
"$GATEWAY" service status --user | grep -c active
"$GATEWAY" service uninstall --user >/dev/null; echo "left: $(pgrep -c -x gateway)"
systemctl --user exit
