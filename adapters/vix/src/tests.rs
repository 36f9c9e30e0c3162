//! What the adapter asks of VIX, call by call: each op on each product, and what it does when an answer is a fault, late,
//! or does not come at all. VIX is a mock here that notes every call and knows just enough to answer it.
#![allow(clippy::unwrap_used)]

mod checkpoints;
mod fake;
mod faults;
mod sequences;

use std::path::PathBuf;
use std::sync::Arc;

use vmtask_core::{
    Boot, Command, CommandId, FileIn, FileOut, Instant, Limits, Op, ProgramSpec, Reply, TaskDraft, TaskSpec,
};
use vmtask_driver::{Credentials, EffectToken, Hypervisor, PortError, Secret};
use vmtask_vix_abi::Product;

use crate::host::Connection;
use crate::library::Library;
use crate::setup::Setup;
use crate::vm::VixVm;
use fake::Fake;

/// A task on a product of which everything is noted.
struct Bench {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    vm: VixVm,
    boot: u32,
    commands: u32,
}

impl Bench {
    fn new(product: Product) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let platform = dir.path().join("vms/platform");
        std::fs::create_dir_all(&platform).unwrap();
        std::fs::create_dir_all(dir.path().join("task")).unwrap();
        std::fs::write(platform.join("linux.vmx"), "memsize = \"64\"\n").unwrap();
        std::fs::write(dir.path().join("program"), "the program").unwrap();
        let fake = Arc::new(Fake::new(dir.path()));
        let vm = VixVm::new(setup(dir.path().to_owned(), product, &fake)).unwrap();
        Self { dir, fake, vm, boot: 0, commands: 0 }
    }

    /// Another manager's adapter for the same task, after the first has gone.
    fn reborn(mut self) -> Self {
        let setup = Setup { library: Library::of(self.fake.mock()), ..self.vm.setup.clone() };
        self.vm = VixVm::new(setup).unwrap();
        self.boot = 0;
        self
    }

    fn command(&mut self, op: Op) -> Command {
        self.commands += 1;
        if matches!(op, Op::Provision(_)) {
            self.boot += 1;
        }
        Command {
            id: CommandId { epoch: 7, seq: self.commands },
            boot: Boot { epoch: 7, seq: self.boot },
            op,
            deadline: Instant::from_millis(0),
            attempt: std::num::NonZeroU8::MIN,
        }
    }

    fn run(&mut self, op: Op) -> Result<Reply, PortError> {
        let command = self.command(op);
        self.vm.carry_out(&command, in_a_while(), &EffectToken::new())
    }

    /// Carries an op out until it is no longer pending, and returns what was asked of VIX for it.
    fn trace(&mut self, op: Op) -> String {
        self.fake.forget_calls();
        let reply = loop {
            match self.run(op) {
                Ok(Reply::Pending) => {}
                reply => break reply,
            }
        };
        let reply = reply.map_or_else(|error| format!("{}: {error}", error.fault), |reply| format!("{reply:?}"));
        let mut lines = vec![format!("{op}")];
        lines.extend(self.fake.calls().into_iter().map(|call| format!("    {call}")));
        lines.push(format!("  = {reply}"));
        self.clean(&lines.join("\n"))
    }

    /// Without what differs from run to run.
    fn clean(&self, text: &str) -> String {
        let dir = self.dir.path().display().to_string();
        // A quoted path of Windows has its backslashes twice.
        let escaped = dir.replace('\\', r"\\");
        let clean = |part: &str| match part.contains(&escaped) {
            true if cfg!(windows) => part.replace(&escaped, "DIR").replace(r"\\", "/"),
            _ => part.replace(&dir, "DIR"),
        };
        let text = text.split('"').map(clean).collect::<Vec<_>>().join("\"");
        let text = match self.vm.vmx().strip_prefix("[standard] vmtask-story-") {
            Some(own) => text.replace(&own[..8], "1234"),
            None => text,
        };
        let mut parts = text.split("clock '");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, rest| text + "clock 'NOW" + rest.trim_start_matches(|c: char| c.is_ascii_digit()))
    }

    fn ops(&mut self, ops: &[Op]) -> String {
        ops.iter().map(|&op| self.trace(op)).collect::<Vec<_>>().join("\n") + "\n"
    }
}

/// A deadline that nothing here is to reach.
fn in_a_while() -> std::time::Instant {
    std::time::Instant::now() + std::time::Duration::from_secs(60)
}

fn setup(dir: PathBuf, product: Product, fake: &Arc<Fake>) -> Setup {
    let account = |user: &str| Credentials { user: user.into(), password: Secret::from_value("s3cret".into()) };
    let mut connection = Connection::local(product);
    let platform = if product.has_inventory() {
        connection.host = Some("https://localhost:8333/sdk".into());
        connection.credentials = Some(account("me"));
        "[standard] platform/linux.vmx".into()
    } else {
        dir.join("vms/platform/linux.vmx").display().to_string()
    };
    Setup {
        spec: spec(),
        library: Library::of(fake.mock()),
        connection,
        vm: platform,
        datastore: product.has_inventory().then(|| dir.join("vms")),
        guest: account("worker"),
        guest_dir: Setup::GUEST_DIR.into(),
        inputs: dir.clone(),
        results: dir.join("task/results"),
        dir: dir.join("task"),
    }
}

fn spec() -> TaskSpec {
    TaskDraft {
        name: "story".into(),
        platform: "x86_64-pc-linux-gnu".into(),
        program: ProgramSpec {
            path: "program".into(),
            args: vec!["it's".into()],
            env: [("COLOUR".to_owned(), "red".to_owned())].into(),
            stdout: "stdout.txt".into(),
            stderr: "stderr.txt".into(),
            progress: None,
        },
        files_in: vec![FileIn { host: "program".into(), guest: "program".into(), executable: true }],
        files_out: vec![FileOut { guest: "result".into(), host: "result".into(), optional: false }],
        checkpoint: None,
        limits: Limits::default(),
    }
    .check()
    .unwrap()
}
