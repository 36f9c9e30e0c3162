//! A guest under QEMU, and as much of its agent as these tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmtask_platform::Platform;

/// The last resort of every wait here: a hung guest fails a test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command in the guest gave.
#[derive(Debug)]
#[allow(dead_code, reason = "read by a person, in a failed assertion")]
pub struct Done {
    pub code: Option<i64>,
    pub stdout: String,
    pub stderr: String,
}

pub struct Guest {
    pub dir: tempfile::TempDir,
    qemu: Child,
    agent: BufReader<UnixStream>,
    next: u64,
}

impl Guest {
    pub fn boot(platform: &Platform, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let qemu = qemu(platform, dir.path(), more).spawn().unwrap();
        let agent = connect(&dir.path().join("agent"));
        let mut guest = Self { dir, qemu, agent, next: 0 };
        guest.synchronise();
        guest
    }

    /// As the agent's documentation says: 0xff, an id, and wait until it comes back; what was before it is stale. The guest
    /// may not have its port open yet, and an agent that was killed swallows what it had read: so ask again now and then.
    pub fn synchronise(&mut self) {
        let end = Instant::now() + PATIENCE;
        self.agent.get_ref().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while Instant::now() < end {
            self.next += 1;
            let id = self.next;
            let ask = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
            self.agent.get_mut().write_all(&[b"\xff", ask.to_string().as_bytes(), b"\n"].concat()).unwrap();
            let mut line = Vec::new();
            while let Ok(1..) = self.agent.read_until(b'\n', &mut line) {
                let start = line.iter().rposition(|byte| *byte == 0xff).map_or(0, |at| at + 1);
                let reply: Option<Value> = serde_json::from_slice(&line[start..]).ok();
                if reply.is_some_and(|reply| reply["return"] == json!(id)) {
                    self.agent.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
                    return;
                }
                line.clear();
            }
        }
        panic!("the agent does not answer; console: {}", self.console());
    }

    pub fn call(&mut self, command: &str, arguments: Value) -> Value {
        let ask = json!({"execute": command, "arguments": arguments});
        self.agent.get_mut().write_all(format!("{ask}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.agent.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(line.trim_start_matches('\u{ff}')).unwrap();
        reply["return"].clone()
    }

    pub fn start(&mut self, arguments: &[&str]) -> i64 {
        let arguments = json!({"path": arguments[0], "arg": &arguments[1..], "capture-output": true});
        self.call("guest-exec", arguments)["pid"].as_i64().unwrap()
    }

    pub fn poll(&mut self, pid: i64) -> Option<Done> {
        let reply = self.call("guest-exec-status", json!({"pid": pid}));
        let text = |name| reply[name].as_str().map_or(String::new(), decode_base64);
        (reply["exited"] == json!(true)).then(|| Done {
            code: reply["exitcode"].as_i64(),
            stdout: text("out-data"),
            stderr: text("err-data"),
        })
    }

    pub fn wait(&mut self, pid: i64) -> Done {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(done) = self.poll(pid) {
                return done;
            }
            breathe();
        }
        panic!("process {pid} in the guest does not end");
    }

    pub fn run(&mut self, arguments: &[&str]) -> Done {
        let pid = self.start(arguments);
        self.wait(pid)
    }

    /// The supervisor script.
    pub fn guest(&mut self, arguments: &[&str]) -> Done {
        self.run(&[&["/usr/lib/vmtask/guest"], arguments].concat())
    }

    /// Starts a transfer and connects as the script's head says; the words after the token, and the stream behind them.
    pub fn transfer(&mut self, arguments: &[&str]) -> Result<(i64, Vec<String>, BufReader<UnixStream>), Done> {
        self.next += 1;
        let token = format!("token-{}", self.next);
        let pid = self.start(&[&["/usr/lib/vmtask/guest", arguments[0], &token], &arguments[1..]].concat());
        let mut port = connect(&self.dir.path().join("files"));
        port.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let marker = format!("vmtask {token} ");
        let mut line = Vec::new();
        loop {
            match port.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => {
                    let text = String::from_utf8_lossy(&line);
                    if let Some(at) = text.find(&marker) {
                        let words = text[at + marker.len()..].split_whitespace().map(str::to_owned).collect();
                        port.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
                        return Ok((pid, words, port));
                    }
                    line.clear();
                }
                _ => {
                    if let Some(done) = self.poll(pid) {
                        return Err(done);
                    }
                }
            }
        }
    }

    pub fn put(&mut self, name: &str, mode: &str, bytes: &[u8]) -> Done {
        let sum = sha256(bytes);
        match self.transfer(&["recv", &bytes.len().to_string(), mode, &sum, name]) {
            Ok((pid, _, mut port)) => {
                port.get_mut().write_all(bytes).unwrap();
                self.wait(pid)
            }
            Err(done) => done,
        }
    }

    pub fn get(&mut self, name: &str) -> Result<Vec<u8>, Done> {
        let (pid, words, mut port) = self.transfer(&["send", name])?;
        let mut bytes = vec![0; words[0].parse().unwrap()];
        port.read_exact(&mut bytes).unwrap();
        assert_eq!(words[1], sha256(&bytes), "{name}");
        assert_eq!(self.wait(pid).code, Some(0));
        Ok(bytes)
    }

    /// The status line once the program has ended one way or the other.
    pub fn finished(&mut self) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let line = self.guest(&["status"]).stdout;
            if line.starts_with("state=exited ") || line.starts_with("state=lost ") {
                return line;
            }
            breathe();
        }
        panic!("the program does not end");
    }

    pub fn console(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }

    /// Until the console, from this offset on, has that text.
    pub fn await_console(&self, text: &str, from: usize) {
        let end = Instant::now() + PATIENCE;
        while !self.console().get(from..).is_some_and(|console| console.contains(text)) {
            assert!(Instant::now() < end, "no '{text}' on the console: {}", self.console());
            breathe();
        }
    }

    /// Waits for QEMU to end by itself.
    pub fn ended(mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                return status.success();
            }
            breathe();
        }
        false
    }
}

/// Between two looks at what can only be polled: the guest needs the processor more than we do.
fn breathe() {
    std::thread::sleep(Duration::from_millis(5));
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn qemu(platform: &Platform, dir: &Path, more: &[&str]) -> Command {
    let definition = platform.definition();
    let socket = |id: &str| format!("socket,id={id},path={},server=on,wait=off", dir.join(id).display());
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg"])
        .args(["-machine", &definition.qemu.machine, "-cpu", &definition.qemu.cpu])
        .args(["-m", &format!("{}M", definition.guest.memory_mib), "-append", &definition.qemu.command_line])
        .arg("-kernel")
        .arg(platform.kernel())
        .arg("-initrd")
        .arg(platform.root())
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        .args(["-chardev", &format!("file,id=console,path={}", dir.join("console").display())])
        .args(["-serial", "chardev:console", "-device", "virtio-serial-pci,id=ports"])
        .args(["-chardev", &socket("agent")])
        .args(["-device", "virtserialport,bus=ports.0,nr=1,chardev=agent,name=org.qemu.guest_agent.0"])
        .args(["-chardev", &socket("files")])
        .args(["-device", "virtserialport,bus=ports.0,nr=2,chardev=files,name=org.vmtask.files.0"])
        .args(["-chardev", "null,id=events"])
        .args(["-device", "virtserialport,bus=ports.0,nr=3,chardev=events,name=org.vmtask.events.0"])
        .args(more)
        .stdin(Stdio::null());
    command
}

fn connect(path: &PathBuf) -> BufReader<UnixStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return BufReader::new(stream),
            Err(error) => assert!(Instant::now() < end, "{}: {error}", path.display()),
        }
        breathe();
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn decode_base64(text: &str) -> String {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for six in text.bytes().filter_map(value) {
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
