//! A task's virtual machine in a test's hands.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use vmtask_core::{
    Base, Boot, Command, CommandId, Event, ExitStatus, FaultKind, FileIn, FileIx, FileOut, Found, Generation, Instant,
    Limits, Op, Policy, ProgramSpec, Reply, Span, TaskDraft,
};
use vmtask_driver::wait::time_to_answer;
use vmtask_driver::{EffectToken, EventSink, Fenced, Hypervisor, PortError};
use vmtask_platform::{BuildOptions, Lock, Platform};
use vmtask_qemu::host::{Accel, Choice, Qemu};
use vmtask_qemu::{Baseline, Image, QemuVm, Setup};

/// Whether tests with a real QEMU are wanted. `tests/run` does; a bare `cargo test` on any computer must not need one.
pub(crate) fn real() -> bool {
    let wanted = std::env::var_os("VMTASK_TEST_REAL").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: set VMTASK_TEST_REAL=1 to run it with a real QEMU");
    }
    wanted
}

fn answer_by(time: Span) -> std::time::Instant {
    std::time::Instant::now() + time_to_answer(time)
}

/// By when the driver would want an answer.
pub(crate) fn deadline(op: Op) -> std::time::Instant {
    answer_by(Policy::default().deadline[op.kind().index()])
}

/// What all tests of a run share: platforms and templates.
fn data() -> PathBuf {
    let dir = std::env::var_os("VMTASK_TEST_DATA_DIR").map_or_else(
        || std::env::temp_dir().join(format!("vmtask-tests-{}", rustix::process::getuid().as_raw())),
        PathBuf::from,
    );
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::canonicalize(dir).unwrap()
}

/// The reference platform's image. It is built by whoever comes first.
pub(crate) fn image() -> Image {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    let platform = PLATFORM.get_or_init(|| {
        let data = data();
        let lock = std::fs::File::create(data.join(".platforms.lock")).unwrap();
        lock.lock().unwrap();
        let store = vmtask_platform::platforms_dir(&data);
        vmtask_platform::find(NAME, std::slice::from_ref(&store)).unwrap_or_else(|_| {
            let options = BuildOptions {
                lock: Lock::built_in().unwrap(),
                debs: None,
                cache: data.join("cache/packages"),
                mirrors: Vec::new(),
            };
            vmtask_platform::build(NAME, &store, &options, &mut |_| ()).unwrap()
        })
    });
    Image::of(platform, platform.definition().guest.memory_mib, 1)
}

/// Always software emulation.
pub(crate) fn qemu() -> Qemu {
    Qemu::find(Choice::Forced(Accel::Tcg), None).unwrap()
}

/// One cache for all tests of a run, so that a template is made once.
pub(crate) fn cache() -> PathBuf {
    data().join("cache")
}

const NAME: &str = "x86_64-pc-linux-gnu";

pub(crate) fn shell(script: &str) -> TaskDraft {
    TaskDraft {
        name: "test".into(),
        platform: NAME.into(),
        program: ProgramSpec {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Default::default(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: Vec::new(),
        files_out: vec![FileOut { guest: "stdout.txt".into(), host: "stdout.txt".into(), optional: false }],
        checkpoint: None,
        limits: Limits::default(),
    }
}

pub(crate) fn input(host: &str, guest: &str, executable: bool) -> FileIn {
    FileIn { host: host.into(), guest: guest.into(), executable }
}

pub(crate) fn output(name: &str) -> FileOut {
    FileOut { guest: name.into(), host: name.into(), optional: false }
}

pub(crate) struct Rig {
    pub(crate) vm: Arc<QemuVm>,
    pub(crate) dir: PathBuf,
    pub(crate) events: mpsc::Receiver<(Boot, Event)>,
    next: AtomicU32,
    boot: AtomicU32,
    pub(crate) tokens: Mutex<Vec<(CommandId, EffectToken)>>,
    _temp: Option<tempfile::TempDir>,
}

impl Rig {
    pub(crate) fn new(spec: TaskDraft) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("task");
        Self::with(spec, &dir, Some(temp), |_| ())
    }

    pub(crate) fn with(
        spec: TaskDraft,
        dir: &Path,
        temp: Option<tempfile::TempDir>,
        change: impl FnOnce(&mut Setup),
    ) -> Self {
        std::fs::create_dir_all(dir.join("in")).unwrap();
        let mut setup = Setup {
            spec: spec.check().unwrap(),
            image: image(),
            qemu: qemu(),
            dir: dir.to_owned(),
            inputs: dir.join("in"),
            results: dir.join("results"),
            cache: cache(),
            baseline: Baseline::Warm,
            low_priority: false,
            on_life: None,
        };
        change(&mut setup);
        let vm = Arc::new(QemuVm::new(setup).unwrap());
        let (tell, events) = mpsc::channel();
        let tell = Mutex::new(tell);
        vm.watch(EventSink::new(move |boot, event| {
            let _ = tell.lock().unwrap().send((boot, event));
        }));
        Self {
            vm,
            dir: dir.to_owned(),
            events,
            next: AtomicU32::new(1),
            boot: AtomicU32::new(0),
            tokens: Mutex::default(),
            _temp: temp,
        }
    }

    pub(crate) fn boot(&self) -> Boot {
        Boot { epoch: 7, seq: self.boot.load(Ordering::SeqCst) }
    }

    pub(crate) fn command(&self, op: Op) -> (Command, EffectToken) {
        if matches!(op, Op::Provision(_)) {
            self.boot.fetch_add(1, Ordering::SeqCst);
        }
        let id = CommandId { epoch: 7, seq: self.next.fetch_add(1, Ordering::SeqCst) };
        let token = EffectToken::new();
        self.tokens.lock().unwrap().push((id, token.clone()));
        let command = Command { id, boot: self.boot(), op, deadline: Instant::from_millis(0), attempt: NonZeroU8::MIN };
        (command, token)
    }

    /// Once, whatever comes back.
    pub(crate) fn once(&self, op: Op) -> Result<Reply, PortError> {
        let (command, token) = self.command(op);
        let start = std::time::Instant::now();
        let reply = self.vm.carry_out(&command, deadline(op), &token);
        eprintln!("{:>8.1?} {op}: {reply:?}", start.elapsed());
        reply
    }

    /// Until it is no longer pending.
    pub(crate) fn try_op(&self, op: Op) -> Result<Reply, PortError> {
        if matches!(op, Op::Provision(_)) {
            return self.once(op);
        }
        loop {
            match self.once(op)? {
                Reply::Pending => {}
                reply => return Ok(reply),
            }
        }
    }

    #[track_caller]
    pub(crate) fn op(&self, op: Op) -> Reply {
        self.try_op(op).unwrap_or_else(|error| panic!("{op}: {error}\n{}", self.log()))
    }

    #[track_caller]
    pub(crate) fn fails(&self, op: Op) -> PortError {
        self.try_op(op).expect_err("it should have failed")
    }

    pub(crate) fn found(&self) -> Found {
        match self.op(Op::Probe) {
            Reply::Found(found) => found,
            other => panic!("{other:?}"),
        }
    }

    /// As the driver does: first the token goes, then the fence comes.
    pub(crate) fn fence(&self, id: CommandId) -> Fenced {
        for (old, token) in self.tokens.lock().unwrap().iter() {
            if *old <= id {
                token.revoke();
            }
        }
        self.vm.fence(id, answer_by(Policy::default().fence)).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default()
    }

    /// From nothing to a guest with a working directory.
    pub(crate) fn start(&self) {
        self.op(Op::Register);
        self.provision(Base::Baseline);
        self.op(Op::MakeWorkdir);
    }

    pub(crate) fn provision(&self, base: Base) {
        let reply = self.op(Op::Provision(base));
        if reply != (Reply::Provisioned { running: true }) {
            self.op(Op::PowerOn);
        }
        self.op(Op::AwaitTools);
    }

    pub(crate) fn launch(&self) {
        for ix in 0..self.spec_inputs() {
            self.op(Op::CopyIn(FileIx(ix)));
        }
        self.op(Op::Launch);
    }

    fn spec_inputs(&self) -> u16 {
        u16::try_from(std::fs::read_dir(self.dir.join("in")).unwrap().count()).unwrap()
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn exit(&self) -> ExitStatus {
        loop {
            let (boot, event) = self.next_event();
            match event {
                Event::ProgramExited(status) if boot == self.boot() => return status,
                Event::Progress { .. } => {}
                other => panic!("{other:?} in {boot}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn next_event(&self) -> (Boot, Event) {
        self.events.recv_timeout(Duration::from_secs(100)).unwrap()
    }

    /// Waits for an event of this kind.
    #[track_caller]
    pub(crate) fn until(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let (_, event) = self.next_event();
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) fn snapshot(&self, generation: u32) -> Result<(), PortError> {
        self.try_op(Op::BeginSnapshot(Generation(generation)))?;
        self.try_op(Op::CommitSnapshot(Generation(generation))).map(drop)
    }

    pub(crate) fn result(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.join("results").join(name)).unwrap()
    }

    pub(crate) fn result_text(&self, name: &str) -> String {
        String::from_utf8(self.result(name)).unwrap()
    }
}

pub(crate) fn kind(error: &PortError) -> FaultKind {
    error.fault.kind
}

/// Cuts this process's connections to one of the machine's sockets, as a broken pipe or an over-eager administrator
/// would: the adapter is not told.
pub(crate) fn cut(rig: &Rig, channel: &str) -> usize {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut cut = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let Ok(fd) = pidfd_getfd(&me, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let Ok(Some(peer)) = rustix::net::getpeername(&fd) else {
            continue;
        };
        let Ok(peer) = rustix::net::SocketAddrUnix::try_from(peer) else {
            continue;
        };
        let Some(path) = peer.path().map(|path| path.to_string_lossy().into_owned()) else {
            continue;
        };
        let Some(dir) = path.strip_suffix(&format!("/{channel}")) else {
            continue;
        };
        if std::fs::read_link(dir).is_ok_and(|dir| dir.starts_with(&rig.dir)) {
            rustix::net::shutdown(&fd, rustix::net::Shutdown::Both).unwrap();
            cut += 1;
        }
    }
    cut
}

/// Sends a signal to the machine's process.
pub(crate) fn signal(rig: &Rig, signal: rustix::process::Signal) {
    let pid = i32::try_from(rig.vm.process().unwrap().pid).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}
