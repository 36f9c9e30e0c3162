//! The stories of every hypervisor adapter, under VIX on the stand-in: four products, three kinds of guests.

use std::path::Path;
use std::process::{Command, Output};

use rstest::rstest;
use vmtask_tests::conformance::vix::Place;

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

    fn tell(&self, product: &str, guest: &str, story: &str) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_vix-story"));
        command.args([product, guest, story]).arg(self.path()).output().expect("run the story")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Tells it, and looks at what is left afterwards.
fn tell(product: &str, guest: &str, story: &str) -> Den {
    let den = Den::new(product);
    let output = den.tell(product, guest, story);
    assert!(output.status.success(), "{product}, {guest}: {story}: {}", said(&output));
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
    assert_nothing_alive(&tell(product, "world", story));
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
    assert_nothing_alive(&tell(product, "world", story));
}

#[rstest]
#[case("workstation")]
#[case("player")]
#[case("server2")]
fn a_job_that_never_completes_is_bounded_by_its_deadline_and_fenced(#[case] product: &str) {
    let story = "a_job_that_never_completes_is_bounded_by_its_deadline_and_fenced";
    // That job can be given back to nobody but the end of the connection.
    let alive = tell(product, "world", story).place.alive();
    assert!(alive.iter().all(|kind| kind.starts_with("leaked")), "{alive:?}");
}
