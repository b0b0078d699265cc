#!/bin/sh
# systemctl(1) for tests: keeps its state beside itself and logs every call.
#
#   systemd/calls           each call, one a line
#   systemd/answers/VERB    codes to answer next, one a line: "hang" never answers, 0 goes on as usual
#   systemd/says            what it says on stderr where it fails
#   systemd/unit            where the unit is looked for
#   systemd/loaded, systemd/enabled, systemd/active
#   systemd/end             the exit code of the last run, where that has failed
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
