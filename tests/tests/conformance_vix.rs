//! The stories of every hypervisor adapter, under VIX on the stand-in: four products, and guests on which each story can
//! hold.
//!
//! | guest | what it is | stories |
//! |---|---|---|
//! | world | simulated, on any computer | all, on each product |
//! | root | programs of the host in a root of their own | those without checkpoints: processes cannot be brought back from files; and none that reboots, powers off or stops the computer that they run on |
//! | qemu | a virtual machine under QEMU | all on Workstation, one or two on each of the others |
//!
//! After each story the stand-in's own count says that every handle, job and buffer was given back; on QEMU's machines some
//! of them perhaps by a fence that had to cut the connection.

use std::path::Path;
use std::process::{Command, Output};

use rstest::rstest;
use vmtask_tests::conformance::vix::{Guest, Place};

/// A directory for one story, outside which it leaves nothing.
struct Den {
    dir: tempfile::TempDir,
    place: Place,
}

impl Den {
    fn new(product: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vmtask-vix-").tempdir().expect("make a temporary directory");
        std::fs::create_dir(dir.path().join("tmp")).expect("make a directory");
        let place = Place::new(dir.path(), product);
        Self { dir, place }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.place.environment()).env("VMTASK_ACCEL", "tcg");
        for temporary in ["TMPDIR", "TMP", "TEMP"] {
            command.env(temporary, self.path().join("tmp"));
        }
        command
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Tells it in a process of its own.
fn tell(product: &str, guest: Guest, story: &str) -> Den {
    let den = Den::new(product);
    let mut command = den.command(env!("CARGO_BIN_EXE_vix-story"));
    // What all tests share is where it was for this one.
    #[cfg(target_os = "linux")]
    command.env("VMTASK_TEST_DATA_DIR", vmtask_tests::real::home());
    let output = command.args([product, guest.name(), story]).arg(den.path()).output().expect("run the story");
    assert!(output.status.success(), "{product}, {}: {story}: {}", guest.name(), said(&output));
    den
}

/// Every handle, job and buffer was given back, none of them by the end of a connection only.
fn assert_nothing_alive(den: &Den) {
    assert_eq!(den.place.alive(), Vec::<String>::new());
}

#[rstest]
fn world(
    #[values("workstation", "player", "fusion", "server2")] product: &str,
    #[values(
        "a_task_runs_to_completion",
        "the_output_depends_on_the_input",
        "a_killed_machine_goes_on_from_its_checkpoint",
        "a_restored_machine_is_checkpointed_again",
        "a_suspended_guest_stands_still",
        "a_stopped_task_goes_on_where_it_stopped",
        "a_task_stopped_at_once_resumes",
        "an_aborted_task_leaves_nothing",
        "a_missing_output_is_named",
        "a_program_that_cannot_be_started_fails_the_task",
        "the_programs_end_is_told_as_it_was",
        "a_guest_that_ends_itself_is_given_up",
        "a_guest_that_hangs_is_given_up",
        "a_hypervisor_that_answers_nothing_is_fenced",
        "an_abort_does_not_wait_for_a_hypervisor_that_answers_nothing",
        "bad_checkpoints_are_passed_over"
    )]
    story: &str,
) {
    assert_nothing_alive(&tell(product, Guest::World, story));
}

#[cfg(target_os = "linux")]
#[rstest]
fn root(
    #[values("workstation", "player", "fusion", "server2")] product: &str,
    #[values(
        "a_task_runs_to_completion",
        "the_output_depends_on_the_input",
        "a_suspended_guest_stands_still",
        "a_task_stopped_at_once_resumes",
        "a_missing_output_is_named",
        "a_program_that_cannot_be_started_fails_the_task",
        "the_programs_end_is_told_as_it_was"
    )]
    story: &str,
) {
    // Its programs are compiled when they are needed.
    if vmtask_tests::real::wanted() {
        assert_nothing_alive(&tell(product, Guest::Root, story));
    }
}

#[cfg(target_os = "linux")]
#[rstest]
#[case::a_task_runs_to_completion("workstation", "a_task_runs_to_completion")]
#[case::the_output_depends_on_the_input("workstation", "the_output_depends_on_the_input")]
#[case::a_killed_machine("workstation", "a_killed_machine_goes_on_from_its_checkpoint")]
#[case::a_restored_machine("workstation", "a_restored_machine_is_checkpointed_again")]
#[case::a_suspended_guest_stands_still("workstation", "a_suspended_guest_stands_still")]
#[case::a_stopped_task("workstation", "a_stopped_task_goes_on_where_it_stopped")]
#[case::a_task_stopped_at_once_resumes("workstation", "a_task_stopped_at_once_resumes")]
#[case::an_aborted_task_leaves_nothing("workstation", "an_aborted_task_leaves_nothing")]
#[case::a_missing_output_is_named("workstation", "a_missing_output_is_named")]
#[case::a_program_that_cannot_be_started("workstation", "a_program_that_cannot_be_started_fails_the_task")]
#[case::the_programs_end_is_told_as_it_was("workstation", "the_programs_end_is_told_as_it_was")]
#[case::a_guest_that_ends_itself_is_given_up("workstation", "a_guest_that_ends_itself_is_given_up")]
#[case::a_guest_that_hangs_is_given_up("workstation", "a_guest_that_hangs_is_given_up")]
#[case::a_hypervisor_that_answers_nothing("workstation", "a_hypervisor_that_answers_nothing_is_fenced")]
#[case::an_abort_does_not_wait("workstation", "an_abort_does_not_wait_for_a_hypervisor_that_answers_nothing")]
#[case::bad_checkpoints_are_passed_over("workstation", "bad_checkpoints_are_passed_over")]
#[case::held_by_suspending("player", "a_suspended_guest_stands_still")]
#[case::a_checkpoint_that_is_a_copy("server2", "a_killed_machine_goes_on_from_its_checkpoint")]
#[case::a_copy_with_snapshots("fusion", "a_stopped_task_goes_on_where_it_stopped")]
fn qemu(#[case] product: &str, #[case] story: &str) {
    if vmtask_tests::real::wanted() {
        // How busy the computer is decides whether a fence has to cut the connection, which ends what is held there.
        let alive = tell(product, Guest::Qemu, story).place.alive();
        assert!(alive.iter().all(|kind| kind.starts_with("leaked")), "{alive:?}");
    }
}

#[rstest]
fn faults(
    #[values("workstation", "player", "server2")] product: &str,
    #[values(
        "tools_that_never_come_fail_the_task_and_the_next_run_completes_it",
        "a_connection_that_is_lost_is_made_again",
        "a_power_on_whose_answer_is_lost_is_looked_after",
        "a_checkpoint_without_room_is_skipped",
        "a_checkpoint_that_completes_late_counts"
    )]
    story: &str,
) {
    assert_nothing_alive(&tell(product, Guest::World, story));
}

#[rstest]
#[case("workstation")]
#[case("player")]
#[case("server2")]
fn a_job_that_never_completes_is_bounded_by_its_deadline_and_fenced(#[case] product: &str) {
    let story = "a_job_that_never_completes_is_bounded_by_its_deadline_and_fenced";
    // That job can be given back to nobody but the end of its connection.
    let alive = tell(product, Guest::World, story).place.alive();
    assert!(alive.iter().all(|kind| kind.starts_with("leaked")), "{alive:?}");
}

/// `vmtask run`, killed by the stand-in in the middle of a call, and started again: what is on disk is enough.
#[cfg(target_os = "linux")]
#[rstest]
#[case::snapshot("workstation", "VixVM_CreateSnapshot#3 half then die")]
#[case::copy("player", "VixVM_Suspend#2 half then die")]
#[case::copy_of_a_server("server2", "VixVM_Suspend#2 half then die")]
#[case::power_on("fusion", "VixVM_PowerOn half then die")]
fn a_manager_that_is_killed_in_the_middle_of_a_call_is_survived(#[case] product: &str, #[case] fault: &str) {
    use std::os::unix::process::ExitStatusExt;
    let den = Den::new(product);
    den.place.make_platform(Guest::World, "");
    let task = "name = \"t\"\nplatform = \"p\"\n[program]\npath = \"program\"\n[[files_in]]\nhost = \"program\"\n\
                executable = true\n[[files_in]]\nhost = \"input\"\n[[files_out]]\nguest = \"result\"\n\
                [checkpoint]\nevery = \"300ms\"\n";
    let steps = 200;
    let program = format!("#!vmtask-world\ncompute input {steps} 20 result steps\n");
    for (name, text) in [("t.toml", task), ("program", &program), ("input", "input")] {
        std::fs::write(den.path().join(name), text).expect("write the task");
    }
    let run = || {
        let mut command = den.command(vmtask_tests::real::vmtask());
        command.args(["run", "t.toml"]).args(den.place.flags()).current_dir(den.path());
        command.env("VMTASK_DATA_DIR", den.path().join("data")).output().expect("run vmtask")
    };
    std::fs::write(den.place.faults(), fault).expect("write the control file");
    let killed = run();
    assert_eq!(killed.status.signal(), Some(9), "{}", said(&killed));
    std::fs::remove_file(den.place.faults()).expect("remove the control file");
    let done = run();
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let result = std::fs::read(den.path().join("t.vmtask/results/result")).expect("the result");
    assert_eq!(String::from_utf8(result), String::from_utf8(vmtask_tests::conformance::vix::result(steps, b"input")));
    assert_eq!(den.place.leftovers(), Vec::<String>::new());
}

/// The paper's experiment, by VIX calls, in a real virtual machine.
#[cfg(target_os = "linux")]
#[test]
fn the_papers_prototype_finds_its_value_through_vix_in_a_machine_of_qemus() {
    use vmtask_tests::real;
    if !real::wanted() {
        return;
    }
    let den = Den::new("workstation");
    let data = real::shared_data();
    // Under nextest it was built with the tests, unless these are one package's only.
    let me = std::env::current_exe().expect("know this program's own path");
    let built = me.parent().expect("a directory").with_file_name("examples").join("paper");
    let mut command = if std::env::var_os("NEXTEST").is_some() && built.exists() {
        den.command(built)
    } else {
        let mut cargo = den.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["run", "-q", "-p", "vmtask-vix", "--example", "paper"]).current_dir(real::repository());
        cargo
    };
    // Its own way to the stand-in, and its own virtual machine in it.
    command.env_remove("VMTASK_VIX_LIBRARY").env("VMTASK_STANDIN", "qemu").env("VMTASK_DATA_DIR", data);
    let output = command.output().expect("run the example");
    assert!(
        output.status.success() && said(&output).contains("pi 3.140592860 error 0.000999793 "),
        "{}",
        said(&output)
    );
}
