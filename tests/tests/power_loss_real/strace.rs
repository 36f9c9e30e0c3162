//! What a process and its children did to files, as `strace` tells it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Create(PathBuf),
    /// Another name for a file that was there before, whose content is durable.
    Link(PathBuf),
    MakeDir(PathBuf),
    Write(PathBuf, Vec<u8>),
    /// What is written by QEMU in blocks of many kinds is not followed byte by byte: this tells how much it was.
    Cut(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    /// Said on a pipe or socket.
    Say(Vec<u8>),
}

/// The command that runs `program` under watch; its story goes to `log`.
pub(crate) fn watch(program: &Command, log: &Path) -> Command {
    const CALLS: &str = "trace=open,openat,creat,write,pwrite64,rename,renameat,renameat2,unlink,unlinkat,fsync,\
                         fdatasync,ftruncate,linkat,mkdir,mkdirat";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-q", "-s", "8192", "--seccomp-bpf", "-e", CALLS, "-e", "signal=none", "-o"]).arg(log);
    strace.arg(program.get_program()).args(program.get_args());
    if let Some(dir) = program.get_current_dir() {
        strace.current_dir(dir);
    }
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// Everything that succeeded, in the order in which it was done.
pub(crate) fn read(log: &str) -> Vec<Did> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut done = Vec::new();
    for line in log.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begun.to_owned());
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            let begun = unfinished.remove(pid).unwrap_or_default();
            done.extend(parse(&format!("{begun}{rest}")));
        } else {
            done.extend(parse(call));
        }
    }
    done
}

/// An argument: `7</path>`, `"text"`, `"text"...`, or anything else.
#[derive(Debug)]
enum Arg {
    Fd(PathBuf),
    Text(Vec<u8>),
    Other(String),
}

fn parse(call: &str) -> Option<Did> {
    let (name, rest) = call.split_once('(')?;
    // Short lines are padded before the result.
    let (args, result) = rest.rsplit_once(" = ")?;
    let args = args.trim_end().strip_suffix(')')?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let args = split(args);
    let path = |at: usize| match (at.checked_sub(1).and_then(|dir| args.get(dir)), args.get(at)?) {
        (Some(Arg::Fd(dir)), Arg::Text(name)) => Some(dir.join(to_path(name))),
        (_, Arg::Text(name)) => Some(to_path(name)),
        _ => None,
    };
    let fd = |at: usize| match args.get(at)? {
        Arg::Fd(path) => Some(path.clone()),
        _ => None,
    };
    let text = |at: usize| match args.get(at)? {
        Arg::Text(bytes) => Some(bytes.clone()),
        _ => None,
    };
    let number = |at: usize| match args.get(at)? {
        Arg::Other(text) => text.parse().ok(),
        _ => None,
    };
    let creates = args
        .iter()
        .any(|arg| matches!(arg, Arg::Other(flags) if flags.contains("O_CREAT") || flags.contains("O_TRUNC")));
    Some(match name {
        "open" | "creat" if creates || name == "creat" => Did::Create(path(0)?),
        "openat" if creates => Did::Create(path(1)?),
        "linkat" => Did::Link(path(3)?),
        "mkdir" => Did::MakeDir(path(0)?),
        "mkdirat" => Did::MakeDir(path(1)?),
        "write" | "pwrite64" => {
            let to = fd(0)?;
            if to.is_absolute() { Did::Write(to, text(1)?) } else { Did::Say(text(1)?) }
        }
        "ftruncate" => Did::Cut(fd(0)?, number(1)?),
        "fsync" | "fdatasync" => Did::Sync(fd(0)?),
        "rename" => Did::Rename(path(0)?, path(1)?),
        "renameat" | "renameat2" => Did::Rename(path(1)?, path(3)?),
        "unlink" => Did::Unlink(path(0)?),
        "unlinkat" => Did::Unlink(path(1)?),
        _ => return None,
    })
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

fn split(args: &str) -> Vec<Arg> {
    let mut list = Vec::new();
    let mut rest = args;
    while !rest.is_empty() {
        let (arg, end) = if let Some(quoted) = rest.strip_prefix('"') {
            let (bytes, length) = unquote(quoted);
            (Arg::Text(bytes), length + 1)
        } else {
            let end = rest.find(", ").unwrap_or(rest.len());
            let word = &rest[..end];
            let arg = match word.split_once('<').and_then(|(_, path)| path.strip_suffix('>')) {
                Some(path) => Arg::Fd(PathBuf::from(path)),
                None => Arg::Other(word.to_owned()),
            };
            (arg, end)
        };
        list.push(arg);
        rest = rest[end..].trim_start_matches("...").trim_start_matches(", ");
    }
    list
}

/// The bytes up to the closing quote, and how many characters they and it take.
fn unquote(text: &str) -> (Vec<u8>, usize) {
    let source = text.as_bytes();
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(&byte) = source.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => {
                let escape = source.get(at).copied().unwrap_or_default();
                at += 1;
                match escape {
                    b'n' => bytes.push(b'\n'),
                    b't' => bytes.push(b'\t'),
                    b'r' => bytes.push(b'\r'),
                    b'v' => bytes.push(0x0b),
                    b'f' => bytes.push(0x0c),
                    b'0'..=b'7' => {
                        let mut value = u32::from(escape - b'0');
                        for _ in 0..2 {
                            let Some(digit @ b'0'..=b'7') = source.get(at).copied() else { break };
                            value = value * 8 + u32::from(digit - b'0');
                            at += 1;
                        }
                        bytes.push(value as u8);
                    }
                    other => bytes.push(other),
                }
            }
            byte => bytes.push(byte),
        }
    }
    (bytes, at)
}

#[test]
fn what_strace_writes_is_understood() {
    let log = r#"7  openat(AT_FDCWD</x>, "/d/a\"b", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666 <unfinished ...>
8  write(1<pipe:[3]>, "{\"k\":1}\n", 8) = 8
7  <... openat resumed>) = 3</d/a"b>
7  write(3</d/a"b>, "x\0\1y"..., 4) = 4
7  fsync(3</d>)             = 0
7  unlink("/d/none") = -1 ENOENT (No such file or directory)
7  renameat(8</d>, "p", 8</d>, "q") = 0
7  linkat(AT_FDCWD</x>, "/proc/self/fd/9", AT_FDCWD</x>, "/d/l", AT_SYMLINK_FOLLOW) = 0
7  ftruncate(9</d/q>, 77) = 0
"#;
    let path = PathBuf::from;
    let expected = vec![
        Did::Say(b"{\"k\":1}\n".to_vec()),
        Did::Create(path("/d/a\"b")),
        Did::Write(path("/d/a\"b"), b"x\0\x01y".to_vec()),
        Did::Sync(path("/d")),
        Did::Rename(path("/d/p"), path("/d/q")),
        Did::Link(path("/d/l")),
        Did::Cut(path("/d/q"), 77),
    ];
    assert_eq!(read(log), expected);
}
