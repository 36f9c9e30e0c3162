//! The safe interface against the stand-in: everything that VIX can do, through the loaded library.
#![cfg(any(target_os = "linux", windows))]
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use vmtask_vix::abi::{Function, error_code, handle_type, property, shared_folder, tools_state};
use vmtask_vix::{CloneKind, Host, Library, SharedFolder, Vm, Wait};

use common::{PROFILES, Profile, Stage, account, on_standin, patience};

fn connect(stage: &Stage) -> Host {
    Library::load(&common::library()).unwrap().connect(&stage.connection(), &patience()).unwrap()
}

fn open(stage: &Stage) -> Vm {
    let host = connect(stage);
    host.register(&stage.platform(), &patience()).unwrap();
    host.open(&stage.platform(), &patience()).unwrap()
}

fn on_and_logged_in(stage: &Stage) -> Vm {
    let vm = open(stage);
    vm.power_on(&patience()).unwrap();
    vm.wait_for_tools(30, &patience()).unwrap();
    vm.log_in(&account("user", "secret"), &patience()).unwrap();
    vm
}

#[test]
fn the_library_is_loaded_whole_and_says_what_it_is() {
    on_standin("the_library_is_loaded_whole_and_says_what_it_is", PROFILES[0], "world", "", |stage| {
        let host = connect(stage);
        assert_eq!(host.product(), stage.profile.product);
        let vm = host.open(&stage.platform(), &patience()).unwrap();
        assert!(vm.power_state().unwrap().is_off());
        assert_eq!(vm.property(property::VM_NAME).unwrap(), "platform");
        assert_eq!(vm.property(property::VM_MEMORY_SIZE).unwrap(), "64");
        let library = Library::load(&common::library()).unwrap();
        assert_eq!(library.vix().handle_type(0), handle_type::NONE);
        assert_eq!(library.extras(), Vec::<&str>::new());
    });
}

#[test]
fn power_goes_its_ways_on_every_product() {
    for profile in PROFILES {
        on_standin("power_goes_its_ways_on_every_product", profile, "world", "", |stage| {
            let (vm, wait) = (open(stage), patience());
            let product = stage.profile.product;
            assert!(vm.power_off(&wait).unwrap_err().is(error_code::VM_NOT_RUNNING));
            vm.power_on(&wait).unwrap();
            assert!(vm.power_state().unwrap().is_running());
            assert_eq!(vm.host().running(&wait).unwrap().len(), 1);
            vm.wait_for_tools(30, &wait).unwrap();
            assert_eq!(vm.tools_state().unwrap(), tools_state::RUNNING);
            if product.has(Function::VmPause) {
                vm.pause(&wait).unwrap();
                assert!(vm.power_state().unwrap().is_paused());
                vm.unpause(&wait).unwrap();
            } else {
                let error = vm.pause(&wait).unwrap_err();
                assert!(error.is(error_code::NOT_SUPPORTED), "{error}");
            }
            vm.suspend(&wait).unwrap();
            assert!(vm.power_state().unwrap().is_suspended());
            vm.power_on(&wait).unwrap();
            vm.reset(&wait).unwrap();
            vm.power_off(&wait).unwrap();
            assert_eq!(vm.host().running(&wait).unwrap(), Vec::<String>::new());
        });
    }
}

/// In a private root on the host, which is Linux's.
#[test]
#[cfg(target_os = "linux")]
fn files_programs_and_variables_of_a_guest() {
    on_standin("files_programs_and_variables_of_a_guest", PROFILES[0], "root", "", |stage| {
        let (vm, wait) = (on_and_logged_in(stage), patience());
        vm.create_directory("/tmp/a/b", &wait).unwrap();
        assert!(vm.create_directory("/tmp/a/b", &wait).unwrap_err().is(error_code::FILE_ALREADY_EXISTS));
        assert!(vm.directory_exists("/tmp/a/b", &wait).unwrap());
        assert!(!vm.file_exists("/tmp/a/b", &wait).unwrap(), "a directory is no file");

        let file = stage.dir.join("file");
        std::fs::write(&file, "#!/bin/sh\necho \"$1\" >/tmp/a/said\nexit 7\n").unwrap();
        vm.copy_in(&file, "/tmp/a/b/program", &wait).unwrap();
        let error = vm.run_program("/tmp/a/b/program", "", &wait).unwrap_err();
        assert!(error.is(error_code::GUEST_USER_PERMISSIONS), "it is not executable: {error}");
        assert!(vm.run_program("/tmp/a/none", "", &wait).unwrap_err().is(error_code::FILE_NOT_FOUND));
        assert_eq!(vm.run_program("/bin/chmod", "755 /tmp/a/b/program", &wait).unwrap().exit_code, 0);
        let ran = vm.run_program("/tmp/a/b/program", &vmtask_vix::quote("it's said"), &wait).unwrap();
        assert_eq!(ran.exit_code, 7);
        let said = stage.dir.join("said");
        vm.copy_out("/tmp/a/said", &said, &wait).unwrap();
        assert_eq!(std::fs::read_to_string(&said).unwrap(), "it's said\n");

        let info = vm.file_info("/tmp/a/said", &wait).unwrap();
        assert_eq!((info.size, info.is_directory), (10, false));
        let mut names: Vec<String> =
            vm.list_directory("/tmp/a", &wait).unwrap().into_iter().map(|file| file.name).collect();
        names.sort();
        assert_eq!(names, ["b", "said"]);
        vm.rename_file("/tmp/a/said", "/tmp/a/told", &wait).unwrap();
        vm.delete_file("/tmp/a/told", &wait).unwrap();
        assert!(!vm.file_exists("/tmp/a/told", &wait).unwrap());
        let temp = vm.create_temp_file(&wait).unwrap();
        assert!(vm.file_exists(&temp, &wait).unwrap());
        vm.delete_directory("/tmp/a", &wait).unwrap();

        assert_eq!(vm.run_script(None, "exit 4", &wait).unwrap().exit_code, 4);
        let sleeper = vm.start_program("/bin/sleep", "600", &wait).unwrap().pid.unwrap();
        let processes = vm.processes(&wait).unwrap();
        assert!(processes.iter().any(|process| process.pid == sleeper), "{processes:?}");
        vm.kill_process(sleeper, &wait).unwrap();

        vm.write_variable(vmtask_vix::Variable::Guest, "guestinfo.word", "häuschen", &wait).unwrap();
        assert_eq!(vm.read_variable(vmtask_vix::Variable::Guest, "guestinfo.word", &wait).unwrap(), "häuschen");
        vm.log_out(&wait).unwrap();
        assert!(vm.copy_in(&file, "/tmp/x", &wait).is_err(), "nobody is logged in");
        assert!(vm.log_in(&account("user", "wrong"), &wait).is_err());
        vm.power_off(&wait).unwrap();
    });
}

#[test]
fn snapshots_form_a_tree_and_are_gone_back_to() {
    on_standin("snapshots_form_a_tree_and_are_gone_back_to", PROFILES[0], "world", "", |stage| {
        let (vm, wait) = (open(stage), patience());
        assert_eq!(vm.root_snapshots().unwrap(), 0);
        assert!(vm.root_snapshot(0).is_err());
        assert!(vm.current_snapshot().unwrap_err().is(error_code::SNAPSHOT_NOTFOUND));
        let first = vm.snapshot("first", "the first", false, &wait).unwrap();
        vm.power_on(&wait).unwrap();
        let second = vm.snapshot("second", "", true, &wait).unwrap();
        vm.revert(&first, &wait).unwrap();
        assert!(vm.power_state().unwrap().is_off());
        vm.snapshot("other", "", false, &wait).unwrap();
        let names: Vec<String> = vm.snapshots().unwrap().iter().map(|found| found.name().unwrap()).collect();
        assert_eq!(names[0], "first");
        assert_eq!(names.len(), 3);
        assert_eq!(first.description().unwrap(), "the first");
        assert_eq!(second.parent().unwrap().unwrap().name().unwrap(), "first");
        assert!(first.parent().unwrap().is_none());
        assert_eq!(first.children().unwrap().len(), 2);
        assert!(second.power_state().unwrap().is_running());
        vm.revert(&vm.named_snapshot("second").unwrap(), &wait).unwrap();
        assert!(vm.power_state().unwrap().is_running());
        assert_eq!(vm.current_snapshot().unwrap().name().unwrap(), "second");
        vm.power_off(&wait).unwrap();
        vm.remove_snapshot(&second, false, &wait).unwrap();
        assert!(vm.named_snapshot("second").unwrap_err().is(error_code::SNAPSHOT_NOTFOUND));
        vm.remove_snapshot(&first, true, &wait).unwrap();
        assert_eq!(vm.root_snapshots().unwrap(), 0);
    });
}

#[test]
fn clones_are_made_where_the_product_makes_them() {
    for profile in [PROFILES[0], PROFILES[1], PROFILES[2]] {
        on_standin("clones_are_made_where_the_product_makes_them", profile, "world", "", |stage| {
            let (vm, wait) = (open(stage), patience());
            let to = stage.dir.join("vms/clone/clone.vmx");
            let cloned = vm.clone_to(None, CloneKind::Full, &common::path_of(&to), &wait);
            if !stage.profile.product.has(Function::VmClone) {
                let error = cloned.unwrap_err();
                assert!(error.is(error_code::NOT_SUPPORTED), "{error}");
                assert!(error.to_string().contains("this product does not have it"), "{error}");
                return;
            }
            let clone = cloned.unwrap();
            clone.power_on(&wait).unwrap();
            assert!(vm.power_state().unwrap().is_off(), "its parent is another VM");
            clone.power_off(&wait).unwrap();
            clone.delete(&wait).unwrap();
            assert!(!to.exists());
        });
    }
}

#[test]
fn folders_are_shared_and_screens_captured() {
    on_standin("folders_are_shared_and_screens_captured", PROFILES[0], "world", "", |stage| {
        let (vm, wait) = (on_and_logged_in(stage), patience());
        vm.enable_shared_folders(true, &wait).unwrap();
        let path = common::path_of(&stage.dir);
        let mut folder = SharedFolder { name: "work".into(), path, flags: 0 };
        vm.add_shared_folder(&folder, &wait).unwrap();
        assert_eq!(vm.shared_folders(&wait).unwrap(), [folder.clone()]);
        folder.flags = shared_folder::WRITE_ACCESS;
        vm.set_shared_folder(&folder, &wait).unwrap();
        assert_eq!(vm.shared_folders(&wait).unwrap(), [folder.clone()]);
        vm.remove_shared_folder("work", &wait).unwrap();
        assert_eq!(vm.shared_folders(&wait).unwrap(), []);
        assert_eq!(&vm.screen(&wait).unwrap()[..4], b"\x89PNG");
        vm.power_off(&wait).unwrap();
    });
}

#[test]
fn an_inventory_is_kept_on_server_2() {
    on_standin("an_inventory_is_kept_on_server_2", PROFILES[3], "world", "", |stage| {
        let (host, wait) = (connect(stage), patience());
        assert!(host.open(&stage.platform(), &wait).is_err(), "it is not registered");
        host.register(&stage.platform(), &wait).unwrap();
        host.register(&stage.platform(), &wait).unwrap();
        let found = host.registered(&wait).unwrap();
        assert!(found.len() == 1 && found[0].contains("platform.vmx"), "{found:?}");
        host.unregister(&stage.platform(), &wait).unwrap();
        host.unregister(&stage.platform(), &wait).unwrap();
        assert!(host.register("[standard] none/none.vmx", &wait).is_err());
    });
}

#[test]
fn a_stale_product_table_is_told_with_the_way_out() {
    const FAULT: &str = "VixHost_Connect fail 22002\n";
    on_standin("a_stale_product_table_is_told_with_the_way_out", PROFILES[0], "world", FAULT, |stage| {
        let library = Library::load(&common::library()).unwrap();
        let error = library.connect(&stage.connection(), &patience()).unwrap_err();
        assert!(error.is(error_code::WRAPPER_VERSION_NOT_FOUND));
        assert!(error.to_string().contains("vixwrapper-config.txt"), "{error}");
    });
}

#[test]
fn a_job_that_hangs_is_given_up_in_time() {
    const FAULT: &str = "VixVM_Suspend hang\n";
    let name = "a_job_that_hangs_is_given_up_in_time";
    on_standin(name, PROFILES[0], "world", FAULT, |stage| {
        let vm = open(stage);
        vm.power_on(&patience()).unwrap();
        let error = vm.suspend(&Wait::most(Duration::from_millis(100))).unwrap_err().to_string();
        assert!(error.contains("VixVM_Suspend") && error.contains("no answer in time"), "{error}");
        vm.power_off(&patience()).unwrap();
    });
}

#[test]
fn many_threads_use_one_vm() {
    on_standin("many_threads_use_one_vm", PROFILES[0], "world", "* delay 1ms\n", |stage| {
        let vm = on_and_logged_in(stage);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let vm = vm.clone();
                scope.spawn(move || {
                    for round in 0..5 {
                        let path = format!("/tmp/{thread}/{round}");
                        vm.create_directory(&path, &patience()).unwrap();
                        assert!(vm.directory_exists(&path, &patience()).unwrap());
                        assert!(vm.power_state().unwrap().is_running());
                    }
                });
            }
        });
        vm.power_off(&patience()).unwrap();
    });
}

/// Server 1 is in no profile of the conformance suite, but its matrix is: most of the guest's functions are missing.
#[test]
fn server_1_says_no_to_what_it_lacks() {
    let profile = Profile { name: "server1", product: vmtask_vix::Product::Server1 };
    on_standin("server_1_says_no_to_what_it_lacks", profile, "world", "", |stage| {
        let vm = on_and_logged_in(stage);
        assert!(vm.processes(&patience()).unwrap_err().is(error_code::NOT_SUPPORTED));
        vm.power_off(&patience()).unwrap();
    });
}
