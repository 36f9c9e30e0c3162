"""Drives the stand-in through the Python package `vix` (version 1.0.8), which others wrote for VMware's library.

    other_client.py LIBRARY DIRECTORY

The package looks for the library at one fixed place; it is told another here. Its known mistakes are not asserted on: it
cannot register VMs, cuts 64-bit numbers to 32 bits, does not free texts of Vix_GetProperties, and lets a callback raise if a
program that failed has no exit code.
"""
import os
import sys

import cffi

LIBRARY, DIRECTORY = sys.argv[1:]
dlopen = cffi.FFI.dlopen
cffi.FFI.dlopen = lambda self, _path, *rest: dlopen(self, LIBRARY, *rest)

from vix import VixError, VixHost  # noqa: E402


def fails(code, call):
    try:
        call()
    except VixError as error:
        assert error.args[0] & 0xFFFF == code, f"expected {code}, got {error}"
    else:
        raise AssertionError(f"expected {code}, got success")


host = VixHost(service_provider=3)
assert host.host_info.host_type == 3
vm = host.open_vm(f"{DIRECTORY}/vm/vm.vmx")
assert (vm.name, vm.is_running, vm.power_state) == ("vm", False, 2)
vm.power_on()
vm.wait_for_tools(60)
assert vm.is_running

fails(3018, lambda: vm.create_directory("/tmp/py"))
fails(3015, lambda: vm.login("user", "wrong"))
vm.login("user", "secret")
vm.create_directory("/tmp/py")
with open(f"{DIRECTORY}/program", "w", encoding="utf-8") as file:
    file.write("#!vmtask-world\nexit 3\n")
vm.copy_host_to_guest(f"{DIRECTORY}/program", "/tmp/py/program")
assert vm.file_exists("/tmp/py/program") and not vm.file_exists("/tmp/py/none") and vm.dir_exists("/tmp/py")
assert vm.get_file_info("/tmp/py/program").size == os.path.getsize(f"{DIRECTORY}/program")
assert [entry.name for entry in vm.dir_list("/tmp/py")] == ["program"]
vm.proc_run("/bin/chmod", "755 /tmp/py/program")
assert vm.proc_run("/tmp/py/program").exit_code == 3
assert vm.run_script("#!vmtask-world\nexit 5\n").exit_code == 5
vm.file_rename("/tmp/py/program", "/tmp/py/renamed")
vm.copy_guest_to_host("/tmp/py/renamed", f"{DIRECTORY}/back")
with open(f"{DIRECTORY}/back", "rb") as back, open(f"{DIRECTORY}/program", "rb") as program:
    assert back.read() == program.read()
fails(20003, lambda: vm.proc_kill(999999))
vm.var_write("name", "value")
assert vm.var_read("name") == "value"
vm.capture_screen_image(f"{DIRECTORY}/screen.png")
with open(f"{DIRECTORY}/screen.png", "rb") as screen:
    assert screen.read(8) == b"\x89PNG\r\n\x1a\n"

vm.share_enable(True)
vm.add_shared_folder("shared", DIRECTORY)
assert vm.get_shared_folder_count() == 1 and vm.get_shared_folder_state(0).name == "shared"
assert vm.file_exists("/mnt/hgfs/shared/program")
vm.share_remove("shared")
assert host.find_items(names_only=True) == [f"{DIRECTORY}/vm/vm.vmx"]

first = vm.create_snapshot("first", "one", include_memory=False)
second = vm.create_snapshot("second", "two", include_memory=True)
assert (first.name, first.description, first.get_num_children()) == ("first", "one", 1)
assert first.get_child(0).name == "second" and second.get_parent().name == "first"
assert vm.snapshots_get_root_count() == 1 and vm.snapshot_get_current().name == "second"
assert vm.snapshot_get_named("first/second").name == "second"
vm.pause()
vm.unpause()
vm.suspend()
assert vm.power_state & 0x20
vm.power_on()
vm.snapshot_revert(first)
assert vm.power_state == 2
clone = vm.clone(f"{DIRECTORY}/clone/clone.vmx", linked=True)
clone.power_on()
clone.power_off()
clone.vm_delete(True)
vm.snapshot_remove(first, True)
vm.upgrade_virtual_hardware()
fails(4006, vm.upgrade_virtual_hardware)
vm.vm_delete(True)
assert not os.path.exists(f"{DIRECTORY}/vm")
host.disconnect()
print("passed")
