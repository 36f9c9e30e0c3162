//! The first run on each platform, made beforehand: it boots the guest, keeps it as the warm baseline that later tasks
//! are cloned from, and shows that a task runs here from end to end.

use std::fs;

use vmtask_core::Outcome;
use vmtask_driver::News;

use crate::args::HypervisorChoice;
use crate::args::vix::VixArgs;
use crate::error::Error;
use crate::out;
use crate::session::{Session, Wanted};

/// Runs nothing much on each of the reference platforms.
///
/// # Errors
/// If that does not work.
pub(crate) fn up() -> Result<(), Error> {
    for platform in vmtask_platform::BUILDABLE {
        let dir = tempfile::tempdir().map_err(Error::system("make a temporary directory"))?;
        let task = dir.path().join("hello.toml");
        let text = format!(
            "name = \"hello\"\nplatform = \"{platform}\"\n[program]\npath = \"/bin/true\"\n[checkpoint]\nevery = \"off\"\n"
        );
        fs::write(&task, text).map_err(Error::io("write", &task))?;
        out::note(format_args!("vmtask: starting the virtual machine of {platform} once"));
        let wanted =
            Wanted { task: &task, dir: None, hypervisor: HypervisorChoice::Auto, vix: &VixArgs::default(), log: None };
        let mut session = Session::open(&wanted)?;
        let ended = session.driver(|hypervisor| hypervisor)?.run(&mut |_: &News<'_>| {})?;
        if !matches!(ended.outcome, Outcome::Completed { exit } if exit.is_success()) {
            return Err(Error::Setup(format!("a task that does nothing did not end well: {}", ended.summary())));
        }
    }
    Ok(())
}
