//! Files on their way between host and guest: small ones through the guest agent, large ones over the byte-stream port
//! that the platform has for them.
//!
//! ```text
//!   host  --agent: start `recv` or `give` with a token--> guest opens the port
//!         --connect; drop bytes up to the line `vmtask TOKEN SIZE`; then SIZE bytes, either way--
//!         --agent: how did it end?-->
//! ```
//! What a broken transfer left on the way is gone by the next: the port is a stream per connection, and what is still
//! in it does not have the token.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use vmtask_qemu::agent::{Ended, Running, to_base64};
use vmtask_qemu::sockets::Channel;
use vmtask_qemu::wait::Wait;
use vmtask_vix_abi::error_code;

use super::hand::{BLOCK, Hand, PATIENCE, TOOLS, answer, nonsense};
use crate::failure::Failure;
use crate::guest::Result;

/// From here on the port is faster, though it takes a process in the guest.
const LARGE: u64 = 256 * 1024;
/// How long nothing may move before it is asked whether the guest's end is still there.
const LULL: Duration = Duration::from_millis(200);

/// A transfer's two ends.
struct Transfer<'a> {
    subcommand: &'static str,
    path: &'a str,
    running: Running,
    stream: UnixStream,
    /// What was read beyond the first line.
    rest: Vec<u8>,
    size: u64,
    /// How the guest's end ended, which the agent tells once.
    ended: Option<Ended>,
}

impl Hand<'_> {
    pub(super) fn copy_in(&mut self, host: &Path, guest: &str) -> Result<()> {
        let reading = |e: std::io::Error| Failure::host_io("cannot copy into the guest", host, &e);
        if !fs::metadata(host).map_err(reading)?.is_dir() {
            return self.copy_file_in(host, guest);
        }
        match self.make_directory(guest) {
            Err(e) if e.code() == error_code::FILE_ALREADY_EXISTS => {}
            other => other?,
        }
        for entry in fs::read_dir(host).map_err(reading)? {
            let name = entry.map_err(reading)?.file_name();
            let text = name.to_str().ok_or_else(|| {
                let why = format!("{}: the name of a file in it is not UTF-8", host.display());
                Failure::new(error_code::INVALID_UTF8_STRING, why)
            })?;
            self.copy_in(&host.join(&name), &format!("{guest}/{text}"))?;
        }
        Ok(())
    }

    fn copy_file_in(&mut self, host: &Path, guest: &str) -> Result<()> {
        let reading = |e: std::io::Error| Failure::host_io("cannot copy into the guest", host, &e);
        let mut file = File::open(host).map_err(reading)?;
        self.on("empty", guest, &[guest])?;
        let size = file.metadata().map_err(reading)?.len();
        if size >= LARGE {
            return self.push(&mut file.take(size), guest, size, host);
        }
        let handle = self.call("guest-file-open", json!({ "path": guest, "mode": "w" }), guest)?;
        let mut block = vec![0; BLOCK];
        let mut send = || loop {
            let got = file.read(&mut block).map_err(reading)?;
            let mut rest = &block[..got];
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                let asked = json!({ "handle": handle, "buf-b64": to_base64(rest) });
                let answer = self.call("guest-file-write", asked, guest)?;
                let count = answer.get("count").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
                let count =
                    count.filter(|n| (1..=rest.len()).contains(n)).ok_or_else(|| nonsense("guest-file-write"))?;
                rest = &rest[count..];
            }
        };
        let sent = send();
        // A full disk may show only now.
        let closed = self.call("guest-file-close", json!({ "handle": handle }), guest);
        sent.and(closed.map(drop))
    }

    pub(super) fn copy_out(&mut self, guest: &str, host: &Path) -> Result<()> {
        let info = self.info(guest)?;
        if !info.directory {
            return if info.size >= LARGE { self.pull(guest, host) } else { self.copy_file_out(guest, host) };
        }
        fs::create_dir_all(host).map_err(|e| Failure::host_io("cannot make", host, &e))?;
        for file in self.list(guest)? {
            // What a guest calls its files must not lead anywhere.
            if file.name.contains('/') || file.name == ".." {
                return Err(nonsense("list"));
            }
            // Links to directories are left out: two that lead upwards would make a tree without end.
            if !(file.symlink && file.directory) {
                self.copy_out(&format!("{guest}/{}", file.name), &host.join(&file.name))?;
            }
        }
        Ok(())
    }

    fn copy_file_out(&mut self, guest: &str, host: &Path) -> Result<()> {
        let writing = |e: std::io::Error| Failure::host_io("cannot write", host, &e);
        let handle = self.call("guest-file-open", json!({ "path": guest, "mode": "r" }), guest)?;
        let mut receive = || {
            let mut file = File::create(host).map_err(writing)?;
            loop {
                let (bytes, end) = self.read_block(&handle, guest)?;
                file.write_all(&bytes).map_err(writing)?;
                if end {
                    return Ok(());
                }
            }
        };
        let received = receive();
        let closed = self.call("guest-file-close", json!({ "handle": handle }), guest);
        received.and(closed.map(drop))
    }

    /// A large file into an empty one.
    fn push(&mut self, source: &mut dyn Read, guest: &str, size: u64, host: &Path) -> Result<()> {
        let mut transfer = self.begin("recv", guest, &[&size.to_string()])?;
        let mut block = vec![0; BLOCK];
        loop {
            let got = match source.read(&mut block) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) => return Err(Failure::host_io("cannot copy into the guest", host, &e)),
            };
            let mut rest = &block[..got];
            while !rest.is_empty() {
                match transfer.stream.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(e) if is_lull(e.kind()) => self.look(&mut transfer)?,
                    // It has ended, and says why.
                    Err(_) => return self.finish(&mut transfer),
                }
            }
        }
        self.finish(&mut transfer)
    }

    /// A large file out of the guest.
    fn pull(&mut self, guest: &str, host: &Path) -> Result<()> {
        let writing = |e: std::io::Error| Failure::host_io("cannot write", host, &e);
        let mut transfer = self.begin("give", guest, &[])?;
        let mut file = File::create(host).map_err(writing)?;
        file.write_all(&transfer.rest).map_err(writing)?;
        let mut left = transfer.size.saturating_sub(transfer.rest.len() as u64);
        let mut block = vec![0; BLOCK];
        while left > 0 {
            let most = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match transfer.stream.read(&mut block[..most]) {
                Ok(0) => break,
                Ok(got) => {
                    file.write_all(&block[..got]).map_err(writing)?;
                    left -= got as u64;
                }
                Err(e) if is_lull(e.kind()) => self.look(&mut transfer)?,
                Err(_) => break,
            }
        }
        self.finish(&mut transfer)?;
        if left == 0 { Ok(()) } else { Err(cut_off(guest)) }
    }

    /// Starts the guest's end, and connects to it.
    fn begin<'p>(&mut self, subcommand: &'static str, path: &'p str, args: &[&str]) -> Result<Transfer<'p>> {
        let token = crate::guest::root::fresh_name()?;
        let mut words = vec!["-c", TOOLS, "vix", subcommand, &token, path];
        words.extend_from_slice(args);
        let running = self.agent.start("/bin/sh", &words, &Wait::most(PATIENCE));
        let running = running.map_err(|e| self.explain(&e, path))?;
        let failed = |e: std::io::Error| Failure::guest_io("cannot transfer", path, &e);
        let stream = self.machine.sockets()?.connect(Channel::Files).map_err(failed)?;
        stream.set_read_timeout(Some(LULL)).and_then(|()| stream.set_write_timeout(Some(LULL))).map_err(failed)?;
        let mut transfer = Transfer { subcommand, path, running, stream, rest: Vec::new(), size: 0, ended: None };
        let mark = format!("vmtask {token} ");
        let mut seen = Vec::new();
        let mut block = [0; 4096];
        loop {
            match transfer.stream.read(&mut block) {
                Ok(0) => return Err(cut_off(path)),
                Ok(got) => seen.extend_from_slice(&block[..got]),
                Err(e) if is_lull(e.kind()) => self.look(&mut transfer)?,
                Err(e) => return Err(failed(e)),
            }
            let Some(at) = seen.windows(mark.len()).position(|window| window == mark.as_bytes()) else {
                continue;
            };
            let line = &seen[at + mark.len()..];
            if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
                let size = std::str::from_utf8(&line[..end]).ok().and_then(|text| text.trim().parse().ok());
                transfer.size = size.ok_or_else(|| nonsense(subcommand))?;
                let most = usize::try_from(transfer.size).unwrap_or(usize::MAX);
                transfer.rest = line[end + 1..].iter().copied().take(most).collect();
                return Ok(transfer);
            }
        }
    }

    /// Nothing has moved for a while. Once the guest's end has ended and nothing more came, nothing will.
    fn look(&mut self, transfer: &mut Transfer<'_>) -> Result<()> {
        if transfer.ended.is_some() {
            return self.finish(transfer).and(Err(cut_off(transfer.path)));
        }
        let ended = self.agent.poll(transfer.running, &Wait::most(PATIENCE));
        transfer.ended = ended.map_err(|e| self.explain(&e, transfer.path))?;
        Ok(())
    }

    fn finish(&mut self, transfer: &mut Transfer<'_>) -> Result<()> {
        let ended = match transfer.ended.take() {
            Some(ended) => Ok(ended),
            None => self.agent.finish(transfer.running, &Wait::most(PATIENCE)),
        };
        let ended = ended.map_err(|e| self.explain(&e, transfer.path))?;
        answer(transfer.subcommand, transfer.path, ended).map(drop)
    }
}

fn is_lull(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn cut_off(path: &str) -> Failure {
    Failure::in_guest(error_code::FAIL, format!("{path}: the guest broke the transfer off"))
}
