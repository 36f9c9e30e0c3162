# What the guest agent is asked to run, as `/bin/sh -c THIS SUBCOMMAND ...` with busybox's shell. State is in /run/vix,
# as old as the boot: started/PID holds the number of its supervisor, ended/PID how it ended.
#
# Exit codes: 4 no such file, 13 not executable, 20 not a directory, 21 a directory or no regular file, 17 exists, 22 no
# port, 23 the host went away.
# Whatever else fails says why on stderr, in the C library's words.
run=/run/vix
self=$0
subcommand=$1
shift
exists() { [ -e "$1" ] || [ -L "$1" ]; }
describe() {
	link=0
	[ -L "$1" ] && link=1
	# A link that leads nowhere is described itself.
	stat -L -c "%f %s %Y $link" "$1" 2>/dev/null || stat -c "%f %s %Y $link" "$1"
}
case $subcommand in
disk)
	[ -e "$run/disk" ] && exit
	mkdir -p "$run"
	if [ -b /dev/vda ]; then
		mkdir -p /disk
		# ext2's magic number, 0xef53, 1024 + 56 bytes in.
		[ "$(dd if=/dev/vda bs=2 skip=540 count=1 2>/dev/null | xxd -p)" = 53ef ] ||
			mke2fs -m 0 /dev/vda >/dev/null || exit
		# Not twice, after a try that was cut off.
		[ -d /disk/lost+found ] || mount -t ext2 -o nosuid,nodev,noatime /dev/vda /disk || exit
		for name in tmp home root mnt opt srv var; do
			mkdir -p "/$name" || exit
			if [ ! -d "/disk/$name" ]; then
				rm -rf "/disk/.$name" && cp -a "/$name" "/disk/.$name" && mv "/disk/.$name" "/disk/$name" || exit
			fi
			grep -q " /$name ext" /proc/mounts || mount --bind "/disk/$name" "/$name" || exit
		done
		chmod 1777 /tmp
	fi
	: >"$run/disk"
	;;
sync) exec sync ;;
start) # TEXT PATH LINE VARIABLE=VALUE...
	text=$1 path=$2 line=$3
	shift 3
	[ -e "$path" ] || exit 4
	{ [ -f "$path" ] && [ -x "$path" ]; } || exit 13
	mkdir -p "$run/started" "$run/ended"
	answer=$run/answer.$$
	# Twice, since only a group's leader forks; and no `&`, under which a shell has SIGINT and SIGQUIT ignored for good.
	setsid setsid /bin/sh -c "$text" "$self" supervise "$text" "$answer" "$line" "$@" </dev/null >/dev/null 2>&1
	until read -r pid 2>/dev/null <"$answer"; do
		usleep 1000
	done
	rm "$answer"
	echo "$pid"
	;;
supervise) # TEXT ANSWER LINE VARIABLE=VALUE...
	# The agent's own shield from the kernel's hunt for memory is not for programs.
	echo 0 >/proc/self/oom_score_adj
	/bin/sh -c "$1" "$self" become "$@"
	status=$?
	read -r pid <"$2.pid" || exit
	rm "$2.pid"
	echo "$status" >"$run/ended/.$pid"
	mv "$run/ended/.$pid" "$run/ended/$pid"
	;;
become) # TEXT ANSWER LINE VARIABLE=VALUE...
	answer=$2 line=$3
	shift 3
	rm -f "$run/ended/$$"
	echo "$PPID" >"$run/started/$$"
	echo $$ >"$answer.pid"
	echo $$ >"$answer.part"
	mv "$answer.part" "$answer"
	# A working directory that nobody can want: nothing can be made in it.
	cd /proc || exit
	exec env -i "$@" /bin/sh -c "$line"
	;;
mkdir)
	exists "$1" && exit 17
	exec mkdir -p "$1"
	;;
rmdir)
	exists "$1" || exit 4
	{ [ -d "$1" ] && [ ! -L "$1" ]; } || exit 20
	exec rm -r "$1"
	;;
rm)
	exists "$1" || exit 4
	{ [ -d "$1" ] && [ ! -L "$1" ]; } && exit 21
	exec rm "$1"
	;;
mv)
	exists "$1" || exit 4
	exists "$2" && exit 17
	exec mv "$1" "$2"
	;;
temp) exec mktemp /tmp/vmware-standin-XXXXXX ;;
stat)
	[ -e "$1" ] || exit 4
	describe "$1"
	;;
list)
	[ -e "$1" ] || exit 4
	[ -d "$1" ] || exit 20
	cd "$1" || exit
	for name in * .[!.]* ..?*; do
		# A name may hold anything but a NUL.
		exists "$name" && describe "./$name" && printf '%s\0' "$name"
	done
	:
	;;
empty) # Makes way for a file's new content.
	[ -d "$1" ] && exit 21
	[ -d "${1%/*}/" ] || exit 4
	! exists "$1" || [ -f "$1" ] || exit 21
	# A program that is being executed keeps its file.
	{ : >"$1"; } 2>/dev/null || rm "$1" || exit
	: >"$1" && chmod 644 "$1"
	;;
recv | give) # TOKEN PATH [SIZE]: a large file over the port for them, which is much faster than the agent
	port=/dev/virtio-ports/org.vmtask.files.0
	tries=500
	# One that was given up has it until it sees that the host went away.
	until (exec 3<>"$port") 2>/dev/null; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || exit 22
		usleep 10000
	done
	exec 3<>"$port" || exit 22
	# Blocks until the host connects: from here on EOF means that it went away.
	if [ "$subcommand" = recv ]; then
		echo "vmtask $1 $3" >&3
		dd bs=1M count="$3" iflag=fullblock,count_bytes <&3 >"$2" || exit
		[ "$(stat -c %s "$2")" = "$3" ] || exit 23
	else
		size=$(stat -L -c %s "$2") || exit
		echo "vmtask $1 $size" >&3
		exec dd bs=1M count="$size" iflag=fullblock,count_bytes <"$2" >&3
	fi
	;;
kill) exec kill -9 "$1" ;;
ps)
	for process in /proc/[0-9]*; do
		# It may end at any moment. What it is called may hold anything.
		read -r line 2>/dev/null <"$process/stat" || continue
		printf '%s\n' "$line"
		cat "$process/cmdline" 2>/dev/null
		printf '\n\001\n'
	done
	read -r line </proc/uptime && echo "up $line $(date +%s)"
	;;
esac
