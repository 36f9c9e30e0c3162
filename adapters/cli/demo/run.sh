#!/bin/sh
# What the paper's script does: nobody promises that a program started from outside begins in its own directory, nor
# that a file that was copied into a guest may be executed.
cd "$(dirname "$0")" || exit
read -r before _ </proc/uptime
chmod 755 leibniz || exit
read -r after _ </proc/uptime
echo "$before $after $(stat -c %A leibniz)" >permissions.txt
exec ./leibniz "$@" >pi.txt
