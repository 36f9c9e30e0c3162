//! The guest agent, and files over the byte stream, as the guest's own protocol describes them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use vmtask_driver::Digest;

use crate::wait;

const GUEST: &str = "/usr/lib/vmtask/guest";

/// A connection to the agent.
#[derive(Debug)]
pub struct Agent {
    reader: BufReader<UnixStream>,
    tokens: u32,
}

/// What a command in the guest said, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i64>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Agent {
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = wait::until("the agent's socket", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(wait::HANG))?;
        let mut agent = Self { reader: BufReader::new(stream), tokens: 0 };
        let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": 4711 } });
        agent.reader.get_mut().write_all(b"\xff")?;
        writeln!(agent.reader.get_mut(), "{sync}")?;
        while agent.line()?["return"] != 4711 {}
        Ok(agent)
    }

    /// Carries out a command of the agent's.
    ///
    /// # Errors
    /// If it refuses.
    pub fn call(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        writeln!(self.reader.get_mut(), "{}", json!({ "execute": command, "arguments": arguments }))?;
        let mut answer = self.line()?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(io::Error::other(format!("{command}: {answer}"))),
        }
    }

    /// Runs a program in the guest and waits for it.
    ///
    /// # Errors
    /// If it cannot be run, or fails.
    pub fn run(&mut self, program: &str, args: &[&str]) -> io::Result<String> {
        let pid = self.begin(program, args)?;
        let ran = self.end(pid)?;
        if ran.code == Some(0) { Ok(ran.out) } else { Err(io::Error::other(format!("{program} {args:?}: {ran:?}"))) }
    }

    /// Starts a program in the guest.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin(&mut self, program: &str, args: &[&str]) -> io::Result<i64> {
        let exec = json!({ "path": program, "arg": args, "capture-output": true });
        let answer = self.call("guest-exec", exec)?;
        answer["pid"].as_i64().ok_or_else(|| io::Error::other("guest-exec: no pid"))
    }

    /// Waits for a program that was started.
    ///
    /// # Errors
    /// If the agent does not tell.
    pub fn end(&mut self, pid: i64) -> io::Result<Ran> {
        loop {
            let status = self.call("guest-exec-status", json!({ "pid": pid }))?;
            if status["exited"] == true {
                let text =
                    |key: &str| String::from_utf8_lossy(&base64(status[key].as_str().unwrap_or(""))).into_owned();
                return Ok(Ran { code: status["exitcode"].as_i64(), out: text("out-data"), err: text("err-data") });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Copies bytes into a file of the guest's working directory.
    ///
    /// # Errors
    /// If that does not work.
    pub fn put(&mut self, files: &Path, name: &str, mode: &str, bytes: &[u8]) -> io::Result<()> {
        let token = self.token();
        let (size, sum) = (bytes.len().to_string(), Digest::of(bytes).to_string());
        let pid = self.begin(GUEST, &["recv", &token, &size, mode, &sum, name])?;
        let mut stream = BufReader::new(UnixStream::connect(files)?);
        await_word(&mut stream, &format!("vmtask {token} ready"))?;
        stream.get_mut().write_all(bytes)?;
        let ran = self.end(pid)?;
        if ran.code == Some(0) { Ok(()) } else { Err(io::Error::other(format!("recv {name}: {ran:?}"))) }
    }

    /// Copies a file out of the guest's working directory.
    ///
    /// # Errors
    /// If that does not work, or the content is not what the guest says it is.
    pub fn get(&mut self, files: &Path, name: &str) -> io::Result<Vec<u8>> {
        let token = self.token();
        let pid = self.begin(GUEST, &["send", &token, name])?;
        let mut stream = BufReader::new(UnixStream::connect(files)?);
        let head = await_word(&mut stream, &format!("vmtask {token} "))?;
        let mut words = head.split(' ');
        let size: usize = words.next().and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; size];
        stream.read_exact(&mut bytes)?;
        self.end(pid)?;
        if words.next() == Some(Digest::of(&bytes).to_string().as_str()) {
            Ok(bytes)
        } else {
            Err(io::Error::other(format!("{name} was altered on the way")))
        }
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("hand{}", self.tokens)
    }

    fn line(&mut self) -> io::Result<Value> {
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text: &[u8] = line.rsplit(|&byte| byte == 0xff).next().unwrap_or_default();
            if !text.trim_ascii().is_empty() {
                return Ok(serde_json::from_slice(text)?);
            }
        }
    }
}

/// Skips what comes before the line with this word, and returns the rest of that line.
fn await_word(stream: &mut BufReader<UnixStream>, word: &str) -> io::Result<String> {
    stream.get_ref().set_read_timeout(Some(wait::HANG))?;
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(at) = line.find(word) {
            return Ok(line[at + word.len()..].trim_end().to_owned());
        }
    }
}

/// Decodes what the agent sends; it is well-formed.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|&known| known == letter) else { continue };
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_decoded() {
        assert_eq!(super::base64("Zm9vYg=="), b"foob");
        assert_eq!(super::base64("Zm9vYmFy"), b"foobar");
    }
}
