#!/bin/sh
# A simulated launchctl(1) for tests. It keeps its state in files beside itself and logs every call.
#
#   launchd/calls           all calls, one per line
#   launchd/answers/VERB    the next exit codes, one per line: "hang" never returns, "drain" ends the
#                           job only after two more queries, 0 means normal behavior
#   launchd/loaded          the domain in which the job is loaded
#   launchd/disabled        exists if the job is disabled
#   launchd/end             the exit code of the last run; if it is missing, a loaded job is running
#   launchd/real            exists if the program of the plist is really started; its pid is in launchd/pid
at="${0%/*}/launchd"
mkdir -p "$at/answers"
echo "$*" >> "$at/calls"
verb=$1
ordered="$at/answers/$verb"
answer=0
if [ -s "$ordered" ]; then
    read -r answer < "$ordered"
    tail -n +2 "$ordered" > "$ordered.rest" && mv "$ordered.rest" "$ordered"
fi
case $answer in
0 | drain) ;;
hang) exec sleep 600 ;;
*)
    echo "$verb failed: $answer: as ordered" >&2
    exit "$answer"
    ;;
esac

# Like launchd: with no environment but the variables of the plist.
start() {
    [ -f "$at/real" ] || return 0
    part() { sed -n "/<key>$1</,/<\/$2>/p" "$plist"; }
    text() { sed -n 's/.*<string>\(.*\)<\/string>.*/\1/p'; }
    plist=$(cat "$at/plist")
    names=$(part EnvironmentVariables dict | sed -n 's/.*<key>\(XDG.*\)<\/key>.*/\1/p')
    variables=$(part EnvironmentVariables dict | text)
    set -- $variables
    for name in $names; do
        variables="$variables $name=$1"
        shift
    done
    variables=$(for word in $variables; do case $word in *=*) echo "$word" ;; esac; done)
    env -i HOME="$HOME" PATH=/usr/bin:/bin $variables $(part ProgramArguments array | text) \
        < /dev/null > /dev/null 2> "$at/stderr" &
    echo $! > "$at/pid"
}

# launchd knows when its job has ended. Here the process that adopted the job may not have reaped it yet.
end() {
    [ -f "$at/pid" ] || return 0
    pid=$(cat "$at/pid")
    rm "$at/pid"
    kill "$pid"
    while true; do
        case $(ps -o stat= -p "$pid") in '' | Z*) break ;; esac
        sleep 0.01
    done
}

is_loaded() { [ -f "$at/loaded" ] && [ "$(cat "$at/loaded")" = "${1%/*}" ]; }

case $verb in
print)
    if [ -f "$at/draining" ]; then
        looks=$(cat "$at/draining")
        echo "$looks" | cut -c 2- > "$at/draining"
        [ -n "$looks" ] || rm "$at/draining" "$at/loaded"
    fi
    is_loaded "$2" || exit 113
    printf '%s = {\n' "$2"
    if [ -f "$at/end" ]; then
        printf '\tstate = not running\n\tlast exit code = %s\n' "$(cat "$at/end")"
    else
        printf '\tstate = running\n\tpid = %s\n' "$(cat "$at/pid" 2> /dev/null || echo 4711)"
    fi
    printf '}\n'
    ;;
print-disabled)
    word=enabled
    [ ! -f "$at/disabled" ] || word=disabled
    printf 'disabled services = {\n\t"io.github.orphand" => %s\n}\n' "$word"
    ;;
enable) rm -f "$at/disabled" ;;
bootstrap)
    [ ! -f "$at/loaded" ] || exit 37
    echo "$2" > "$at/loaded"
    echo "$3" > "$at/plist"
    start
    ;;
bootout)
    is_loaded "$2" || exit 113
    end
    if [ "$answer" = drain ]; then
        echo xx > "$at/draining"
    else
        rm "$at/loaded"
    fi
    ;;
kickstart)
    shift
    if [ "$1" = -k ]; then
        end
        shift
    fi
    is_loaded "$1" || exit 113
    rm -f "$at/end"
    [ -f "$at/pid" ] || start
    ;;
*) exit 64 ;;
esac
