//! Running a program of the host to its end, but not for ever.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The line of its standard error that says most about why it failed: the first with "error" in it, else the last.
    pub(crate) fn complaint(&self) -> String {
        let mut lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let telling = lines.clone().find(|line| line.contains("error") || line.starts_with("E:"));
        match telling.or_else(|| lines.next_back()) {
            Some(line) => line.to_owned(),
            None => self.status.to_string(),
        }
    }
}

/// Runs a program without input and collects what it prints.
///
/// Through files, not pipes: what the program leaves running in the background (wine does) may hold a pipe open for as
/// long as it likes.
///
/// # Errors
/// If it cannot be started, or has not ended after `limit`; it is killed then.
pub(crate) fn run(command: &mut Command, limit: Duration) -> io::Result<Ended> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let status = wait(&mut command.spawn()?, limit)?;
    Ok(Ended { status, stdout: whole(&mut stdout)?, stderr: whole(&mut stderr)? })
}

fn whole(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {limit:?}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_are_collected_whole() {
        let ended = run(&mut shell("seq 1 100000; echo no >&2; exit 3"), Duration::from_secs(60)).unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(ended.stdout.lines().count(), 100_000);
        assert_eq!(ended.complaint(), "no");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error = run(&mut shell("exec sleep 600"), Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_line_that_names_the_error_is_the_complaint() {
        let script = "(echo 'a.c:1: fatal error: no header'; echo 'compilation terminated.'; exit 1) >&2";
        let ended = run(&mut shell(script), Duration::from_secs(60)).unwrap();
        assert_eq!(ended.complaint(), "a.c:1: fatal error: no header");
    }
}
