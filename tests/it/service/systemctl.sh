#!/bin/sh
# A simulated systemctl(1) for tests. It keeps its state in files beside itself and logs every call.
#
#   systemd/calls           all calls, one per line
#   systemd/answers/VERB    the next exit codes, one per line: "hang" never returns, 0 means normal behavior
#   systemd/says            its output on stderr if it fails
#   systemd/unit            the path of the unit
#   systemd/loaded, systemd/enabled, systemd/active
#                           exist if the unit is in that state
#   systemd/end             the exit code of the last run, if it failed
at="${0%/*}/systemd"
mkdir -p "$at/answers"
echo "$*" >> "$at/calls"
[ "$1" != --user ] || shift
verb=$1
ordered="$at/answers/$verb"
answer=0
if [ -s "$ordered" ]; then
    read -r answer < "$ordered"
    tail -n +2 "$ordered" > "$ordered.rest" && mv "$ordered.rest" "$ordered"
fi
case $answer in
0) ;;
hang) exec sleep 600 ;;
*)
    cat "$at/says" >&2 2> /dev/null
    exit "$answer"
    ;;
esac

case $verb in
show)
    if [ -f "$at/loaded" ]; then echo LoadState=loaded; else echo LoadState=not-found; fi
    if [ -f "$at/enabled" ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi
    if [ -f "$at/active" ]; then
        printf 'ActiveState=active\nSubState=running\nMainPID=4711\nResult=success\n'
    elif [ -f "$at/end" ]; then
        printf 'ActiveState=failed\nSubState=failed\nMainPID=0\nResult=exit-code\nExecMainStatus=%s\n' "$(cat "$at/end")"
    else
        printf 'ActiveState=inactive\nSubState=dead\nMainPID=0\nResult=success\n'
    fi
    echo NeedDaemonReload=no
    ;;
daemon-reload)
    rm -f "$at/loaded"
    [ ! -f "$(cat "$at/unit")" ] || : > "$at/loaded"
    ;;
enable) : > "$at/enabled" ;;
start | restart) [ -f "$at/end" ] || : > "$at/active" ;;
stop) rm -f "$at/active" ;;
disable) rm -f "$at/enabled" "$at/active" ;;
*) exit 64 ;;
esac
