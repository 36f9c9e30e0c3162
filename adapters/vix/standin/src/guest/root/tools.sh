#!/bin/sh
# A guest's PID 1 and its Tools: starts programs for clients outside, and keeps how they ended.
#
#   boot                 PID 1. Keeps `serve` running and reaps what others leave behind.
#   serve                takes numbers of requests from the pipe `ask`, a line each
#   supervise NUMBER     starts a request's program and notes its exit status
#   become NUMBER        turns into the program
#
# A request is a directory asked/NUMBER with a file `run`, shell text that ends in the program. Answers, by rename:
# asked/NUMBER/pid, ended/PID (the exit status, or 128 and a signal's number).
# All of it lies in memory, so it is as old as this boot. A guest may damage it, and harms itself alone.

run=/run/vmtask
case ${1-} in
boot)
	# The builder's own words go to a log outside, the guest's do not.
	exec </dev/null >/dev/null 2>&1
	umask 022
	ulimit -c 0
	mkdir "$run/asked" "$run/started" "$run/ended" && mkfifo "$run/ask" && : >"$run/ready"
	# In the foreground: while a shell waits for a child it reaps orphans too. And one that a program kills (`kill -9 -1`
	# spares PID 1 alone) is started again.
	while :; do
		/bin/sh "$0" serve || sleep 0.05
	done
	;;
serve)
	# Both ends are ours, so the pipe never ends.
	exec 3<>"$run/ask"
	while read -r number <&3; do
		# Asked again until it is answered: what lies in the pipe is lost with whoever was to read it.
		mkdir "$run/asked/$number/taken" 2>/dev/null || continue
		# Twice, since only a group's leader forks; and no `&`, under which a shell has SIGINT and SIGQUIT ignored for good.
		setsid setsid /bin/sh "$0" supervise "$number" 3<&-
	done
	;;
supervise)
	request=$run/asked/$2
	/bin/sh "$0" become "$2"
	status=$?
	read -r pid <"$request/pid" || exit
	echo "$status" >"$run/ended/.$pid"
	mv "$run/ended/.$pid" "$run/ended/$pid"
	;;
become)
	request=$run/asked/$2
	rm -f "$run/ended/$$"
	echo "$2" >"$run/started/$$"
	echo $$ >"$request/.pid"
	mv "$request/.pid" "$request/pid"
	# A working directory that nobody can want: nothing can be made in it.
	cd /proc || exit
	# shellcheck disable=SC1091 # written by the client
	. "$request/run"
	;;
*) exit 2 ;;
esac
