//! What is done in the guest: files and programs, through the guest agent.
//!
//! The agent serves one client at a time and its answers come once, so each operation takes a lock that works between
//! processes, connects, gets in step, and lets go again. Nothing needs to be remembered between two operations: how
//! programs end is noted in the guest itself.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmtask_qemu::agent::{Agent, AgentError, Ended, base64};
use vmtask_qemu::sockets::Channel;
use vmtask_qemu::wait::{Stop, Wait};
use vmtask_vix_abi::error_code;

use super::machine::Machine;
use crate::failure::Failure;
use crate::guest::{FileInfo, Process, Program, Result};

/// What runs in the guest for us.
pub(super) const TOOLS: &str = include_str!("tools.sh");
/// How long the agent may take for one answer, in a guest whose program takes all there is.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may be silent at first: it answers within milliseconds, unless the guest boots.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How much of a file goes with one answer.
pub(super) const BLOCK: usize = 512 * 1024;

/// An agent that answers, and nobody else's meanwhile.
pub(super) struct Hand<'a> {
    pub(super) machine: &'a Machine,
    pub(super) agent: Agent,
    _lock: crate::store::Lock,
}

impl<'a> Hand<'a> {
    /// Takes the agent by the hand.
    ///
    /// # Errors
    /// `VM_NOT_RUNNING`, or `TOOLS_NOT_RUNNING` if it does not answer within `most`.
    pub(super) fn reach(machine: &'a Machine, most: Duration) -> Result<Self> {
        let lock = crate::store::lock(&machine.lock_file(Channel::Agent))?;
        let gone = || Failure::new(error_code::VM_NOT_RUNNING, "the guest is not running");
        machine.process().ok_or_else(gone)?;
        let sockets = machine.sockets()?;
        let mut agent = Agent::new(move || sockets.connect(Channel::Agent));
        let until = Instant::now() + most;
        // In short steps, for the power may be cut meanwhile.
        while let Err(error) = agent.sync(&Wait::most(AT_ONCE.min(most))) {
            machine.process().ok_or_else(gone)?;
            if Instant::now() >= until {
                return Err(Failure::new(error_code::TOOLS_NOT_RUNNING, error.to_string()));
            }
        }
        Ok(Self { machine, agent, _lock: lock })
    }

    /// Whether it answers, with the guest's disk in place: Tools do not count as running before.
    pub(super) fn answers(machine: &Machine) -> bool {
        Hand::reach(machine, AT_ONCE).and_then(|mut hand| hand.mount_disk()).is_ok()
    }

    /// Once in a boot.
    fn mount_disk(&mut self) -> Result<()> {
        match self.read_note("/run/vix/disk")? {
            Some(_) => Ok(()),
            None => self.on("disk", "/dev/vda", &[]).map(drop),
        }
    }

    /// Has the guest write to its disk what it keeps in memory for it.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.on("sync", "/", &[]).map(drop)
    }

    /// What the agent says, with a word about the guest if it says nothing.
    pub(super) fn explain(&self, error: &AgentError, path: &str) -> Failure {
        if self.machine.process().is_none() {
            return Failure::new(error_code::VM_NOT_RUNNING, format!("the guest has ended: {error}"));
        }
        match error {
            AgentError::Refused { desc, .. } => in_words(path, desc),
            AgentError::Silent { stop: Stop::Timeout, .. } => {
                Failure::new(error_code::TOOLS_NOT_RUNNING, error.to_string())
            }
            _ => Failure::in_guest(error_code::FAIL, error.to_string()),
        }
    }

    pub(super) fn call(&mut self, command: &'static str, arguments: Value, path: &str) -> Result<Value> {
        self.agent.call(command, arguments, &Wait::most(PATIENCE)).map_err(|e| self.explain(&e, path))
    }

    /// Runs a subcommand on a path; what it prints.
    pub(super) fn on(&mut self, subcommand: &str, path: &str, args: &[&str]) -> Result<Vec<u8>> {
        check(path)?;
        let mut words = vec!["-c", TOOLS, "vix", subcommand];
        words.extend_from_slice(args);
        let ended = self.agent.run("/bin/sh", &words, &Wait::most(PATIENCE));
        answer(subcommand, path, ended.map_err(|e| self.explain(&e, path))?)
    }

    pub(super) fn make_directory(&mut self, path: &str) -> Result<()> {
        self.on("mkdir", path, &[path]).map(drop)
    }

    pub(super) fn remove_directory(&mut self, path: &str) -> Result<()> {
        self.on("rmdir", path, &[path]).map(drop)
    }

    pub(super) fn remove_file(&mut self, path: &str) -> Result<()> {
        self.on("rm", path, &[path]).map(drop)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        check(to)?;
        self.on("mv", from, &[from, to]).map(drop)
    }

    pub(super) fn temp_file(&mut self) -> Result<String> {
        let name = self.on("temp", "/tmp", &[])?;
        Ok(String::from_utf8_lossy(&name).trim().to_owned())
    }

    pub(super) fn info(&mut self, path: &str) -> Result<FileInfo> {
        let line = self.on("stat", path, &[path])?;
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        describe(&String::from_utf8_lossy(&line), name).ok_or_else(|| nonsense("stat"))
    }

    pub(super) fn list(&mut self, path: &str) -> Result<Vec<FileInfo>> {
        let text = self.on("list", path, &[path])?;
        let text = String::from_utf8_lossy(&text);
        let mut found = Vec::new();
        for entry in text.split_terminator('\0') {
            let (line, name) = entry.split_once('\n').ok_or_else(|| nonsense("list"))?;
            found.push(describe(line, name.to_owned()).ok_or_else(|| nonsense("list"))?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn read_block(&mut self, handle: &Value, path: &str) -> Result<(Vec<u8>, bool)> {
        let answer = self.call("guest-file-read", json!({ "handle": handle, "count": BLOCK }), path)?;
        let bytes = answer.get("buf-b64").and_then(Value::as_str).and_then(base64);
        let bytes = bytes.ok_or_else(|| nonsense("guest-file-read"))?;
        let end = answer.get("eof").and_then(Value::as_bool) == Some(true) || bytes.is_empty();
        Ok((bytes, end))
    }

    /// A small file of ours; `None` if there is none.
    fn read_note(&mut self, path: &str) -> Result<Option<String>> {
        let handle = match self.call("guest-file-open", json!({ "path": path, "mode": "r" }), path) {
            Err(e) if e.code() == error_code::FILE_NOT_FOUND => return Ok(None),
            other => other?,
        };
        let read = self.read_block(&handle, path);
        self.call("guest-file-close", json!({ "handle": handle }), path)?;
        Ok(Some(String::from_utf8_lossy(&read?.0).trim().to_owned()))
    }

    pub(super) fn start(&mut self, program: &Program<'_>) -> Result<u64> {
        // A shell takes the arguments apart, as Tools have it.
        let line = format!("'{}' {}", program.path.replace('\'', r"'\''"), program.arguments);
        let variables: Vec<String> =
            program.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut args = vec![TOOLS, program.path, &line];
        args.extend(variables.iter().map(String::as_str));
        let said = self.on("start", program.path, &args)?;
        let said = String::from_utf8_lossy(&said);
        said.trim().parse().map_err(|_| {
            let why = format!("{}: the guest did not say its number but {said:?}", program.path);
            Failure::in_guest(error_code::PROGRAM_NOT_STARTED, why)
        })
    }

    pub(super) fn exit_status(&mut self, pid: u64) -> Result<Option<i32>> {
        let gone = || Failure::in_guest(error_code::NO_SUCH_PROCESS, format!("nothing is known of process {pid}"));
        let ended = format!("/run/vix/ended/{pid}");
        if let Some(status) = self.read_note(&ended)? {
            return status.parse().map(Some).map_err(|_| nonsense("exit status"));
        }
        // While its supervisor lives there will be an answer; one that was killed leaves none.
        let supervisor = self.read_note(&format!("/run/vix/started/{pid}"))?.ok_or_else(gone)?;
        match self.read_note(&format!("/proc/{supervisor}/stat")) {
            Ok(Some(_)) => return Ok(None),
            // It ended between the opening and the reading.
            Err(e) if e.code() == error_code::NO_SUCH_PROCESS => {}
            other => drop(other?),
        }
        let status = self.read_note(&ended)?.ok_or_else(gone)?;
        status.parse().map(Some).map_err(|_| nonsense("exit status"))
    }

    pub(super) fn processes(&mut self) -> Result<Vec<Process>> {
        let text = self.on("ps", "/proc", &[])?;
        parse_processes(&String::from_utf8_lossy(&text)).ok_or_else(|| nonsense("ps"))
    }

    pub(super) fn kill(&mut self, pid: u64) -> Result<()> {
        self.on("kill", "/proc", &[&pid.to_string()]).map(drop)
    }

    /// What time has passed by: the clock, and the random numbers, which another machine may have from the same state.
    pub(super) fn wake(&mut self) -> Result<()> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|e| Failure::new(error_code::FAIL, format!("no random numbers: {e}")))?;
        let seed: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let now = (crate::store::now_ms() / 1000).to_string();
        let args = ["-t", &now, "-s", &seed, "version"];
        let ended = self.agent.run("/usr/lib/vmtask/guest", &args, &Wait::most(PATIENCE));
        ended.map(drop).map_err(|e| self.explain(&e, "clock"))
    }
}

/// What an ended run of the script says.
pub(super) fn answer(subcommand: &str, path: &str, ended: Ended) -> Result<Vec<u8>> {
    let (code, why) = match ended.code {
        Some(0) => return Ok(ended.stdout),
        Some(4) => (error_code::FILE_NOT_FOUND, "there is no such file"),
        Some(13) => (error_code::GUEST_USER_PERMISSIONS, "it is not executable"),
        Some(17) => (error_code::FILE_ALREADY_EXISTS, "it exists"),
        Some(20) => (error_code::NOT_A_DIRECTORY, "it is not a directory"),
        Some(21) => (error_code::NOT_A_FILE, "it is a directory, or no regular file"),
        Some(22) => (error_code::FAIL, "the port for files cannot be opened"),
        Some(23) => (error_code::FAIL, "the transfer was cut off"),
        _ => return Err(in_words(path, String::from_utf8_lossy(&ended.stderr).trim())),
    };
    Err(Failure::in_guest(code, format!("in the guest, {subcommand} {path}: {why}")))
}

fn check(path: &str) -> Result<()> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    let why = format!("{path:?} is not an absolute path in the guest");
    Err(Failure::in_guest(error_code::FILE_NAME_INVALID, why))
}

pub(super) fn nonsense(what: &str) -> Failure {
    Failure::in_guest(error_code::FAIL, format!("the guest's answer to {what} makes no sense"))
}

/// What the guest's C library said went wrong.
fn in_words(path: &str, words: &str) -> Failure {
    let code = [
        ("No such file or directory", error_code::FILE_NOT_FOUND),
        ("No such process", error_code::NO_SUCH_PROCESS),
        ("Permission denied", error_code::FILE_ACCESS_ERROR),
        ("File exists", error_code::FILE_ALREADY_EXISTS),
        ("No space left on device", error_code::DISK_FULL),
        ("Not a directory", error_code::NOT_A_DIRECTORY),
        ("Is a directory", error_code::NOT_A_FILE),
        ("Read-only file system", error_code::FILE_READ_ONLY),
        ("File name too long", error_code::FILE_NAME_TOO_LONG),
    ]
    .into_iter()
    .find(|(text, _)| words.contains(text))
    .map_or(error_code::FILE_ERROR, |(_, code)| code);
    Failure::in_guest(code, format!("in the guest, {path}: {words}"))
}

/// `MODE(hex) SIZE MTIME LINK`
fn describe(line: &str, name: String) -> Option<FileInfo> {
    let mut fields = line.split_ascii_whitespace();
    let mode = u32::from_str_radix(fields.next()?, 16).ok()?;
    let size = fields.next()?.parse().ok()?;
    let modified = fields.next()?.parse().ok()?;
    let symlink = fields.next()? == "1";
    let directory = mode & 0o170_000 == 0o040_000;
    Some(FileInfo { name, size: if directory { 0 } else { size }, modified, directory, symlink })
}

/// For each process the line of `/proc/PID/stat`, its command line, and a mark; at last `up SECONDS IDLE NOW`.
fn parse_processes(text: &str) -> Option<Vec<Process>> {
    /// What the kernel counts start times in, for every program.
    const TICKS: i64 = 100;
    let mut records: Vec<&str> = text.split("\n\u{1}\n").collect();
    let mut up = records.pop()?.trim().strip_prefix("up ")?.split_ascii_whitespace();
    let seconds: f64 = up.next()?.parse().ok()?;
    let now: i64 = up.nth(1)?.parse().ok()?;
    let booted = now - seconds as i64;
    let process = |record: &&str| {
        let (stat, line) = record.split_once('\n')?;
        let (pid, rest) = stat.split_once(" (")?;
        let (name, fields) = rest.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let ticks: i64 = fields.nth(18)?.parse().ok()?;
        let line = line.replace('\0', " ");
        let line = line.trim_end();
        Some(Process {
            pid: pid.parse().ok()?,
            owner: "root".to_owned(),
            command: if line.is_empty() { name.to_owned() } else { line.to_owned() },
            started: booted + ticks / TICKS,
        })
    };
    let mut found: Vec<Process> = records.iter().filter_map(process).collect();
    found.sort_by_key(|process| process.pid);
    Some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn processes_are_read_whatever_they_are_called() {
        let fields = "0 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0";
        let text = format!(
            "1 (init) S {fields}\n/bin/sh\0/init\0a\nb\0\n\u{1}\n7 (a ) b) R {fields}\n\n\u{1}\n9 (gone) Z {fields}\n\n\u{1}\n\
             up 10.50 9.00 1000\n"
        );
        let found = parse_processes(&text).unwrap();
        let seen: Vec<_> = found.iter().map(|p| (p.pid, p.command.as_str(), p.started)).collect();
        assert_eq!(seen, [(1, "/bin/sh /init a\nb", 992), (7, "a ) b", 992)]);
        assert_eq!(parse_processes("nothing"), None);
    }

    #[test]
    fn a_file_is_described_by_its_mode() {
        let info = describe("81ed 12 1700000000 1", "a".into()).unwrap();
        assert!(info.symlink && !info.directory && info.size == 12 && info.modified == 1_700_000_000);
        assert!(describe("41ed 4096 1 0", "d".into()).unwrap().directory);
        assert_eq!(describe("81ed", "a".into()), None);
    }
}
