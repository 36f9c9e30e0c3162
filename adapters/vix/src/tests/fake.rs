//! A VIX that notes what it is asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use vmtask_vix_abi::{Function, Handle, error_code, handle_type, power_state, property, snapshot_option};

use crate::api::{Call, Look, MockVix, Value};
use crate::bell::{self, Ticket};
use crate::error::Code;

/// How a job goes, instead of well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// It does nothing, and fails with this code.
    Fail(u16),
    /// It does what it should, and fails with this code.
    ActFail(u16),
    /// It never ends, until somebody powers the VM off.
    Hang,
    /// It never ends, until the connection does.
    HangForEver,
    /// It ends well, and its callback is lost.
    Silent,
    /// For programs: it ends well, with this exit code.
    Exit(i32),
}

/// What there is, and what was asked.
pub(super) struct Fake(Mutex<State>);

struct State {
    root: PathBuf,
    calls: Vec<String>,
    rules: HashMap<Function, VecDeque<Go>>,
    /// Bits, and the snapshots by name with the bits that they bring back.
    power: i32,
    snapshots: Vec<(String, i32)>,
    /// What a file of the guest has in it, by its last component.
    files: HashMap<String, Vec<u8>>,
    /// References that the client has.
    handles: BTreeMap<Handle, (i32, i32)>,
    jobs: HashMap<Handle, Job>,
    next: Handle,
}

struct Job {
    over: bool,
    ends_with_power: bool,
    error: u64,
    exit: i32,
    gives: Option<i32>,
    ticket: Option<Ticket>,
}

impl Fake {
    pub(super) fn new(root: &Path) -> Self {
        Self(Mutex::new(State {
            root: root.to_owned(),
            calls: Vec::new(),
            rules: HashMap::new(),
            power: power_state::POWERED_OFF,
            snapshots: Vec::new(),
            files: HashMap::new(),
            handles: BTreeMap::new(),
            jobs: HashMap::new(),
            next: 1,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The next call of this function goes so; without a rule, well.
    pub(super) fn next(&self, function: Function, go: Go) {
        self.lock().rules.entry(function).or_default().push_back(go);
    }

    pub(super) fn put(&self, name: &str, content: &str) {
        self.lock().files.insert(name.to_owned(), content.as_bytes().to_vec());
    }

    pub(super) fn set_power(&self, bits: i32) {
        self.lock().power = bits;
    }

    pub(super) fn power(&self) -> i32 {
        self.lock().power
    }

    /// Somebody takes a snapshot in the product's window.
    pub(super) fn snapshot(&self, name: &str) {
        self.lock().snapshots.push((name.to_owned(), power_state::POWERED_OFF));
    }

    /// Somebody removes one.
    pub(super) fn drop_snapshot(&self, name: &str) {
        self.lock().snapshots.retain(|(found, _)| found != name);
    }

    pub(super) fn snapshots(&self) -> Vec<String> {
        self.lock().snapshots.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    pub(super) fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    /// References that nobody has given back, by kind of handle.
    pub(super) fn alive(&self) -> Vec<(i32, i32)> {
        self.lock().handles.values().copied().filter(|(_, count)| *count != 0).collect()
    }

    /// A library that is this.
    pub(super) fn mock(self: &Arc<Self>) -> MockVix {
        let mut vix = MockVix::new();
        macro_rules! on {
            ($expect:ident, |$state:ident $(, $arg:ident)*| $body:expr) => {{
                let fake = Arc::clone(self);
                vix.$expect().returning(move |$($arg),*| {
                    #[allow(unused_mut)]
                    let mut $state = fake.lock();
                    $body
                });
            }};
        }
        let fake = Arc::clone(self);
        vix.expect_start().returning(move |call, ticket| {
            let (job, rings) = fake.lock().start(call, ticket);
            // Before this returns, as VIX may.
            rings.into_iter().for_each(bell::ring);
            Ok(job)
        });
        on!(expect_is_complete, |state, job| Ok(state.jobs.get(&job).is_none_or(|job| job.over)));
        on!(expect_job_error, |state, job| Code(state.jobs.get(&job).map_or(1000, |job| job.error)));
        on!(expect_property, |state, of, id| state.property(of, id));
        on!(expect_look, |state, look| state.look(look));
        on!(expect_release, |state, handle| state.release(handle));
        on!(expect_disconnect, |state, host| {
            state.calls.push(format!("VixHost_Disconnect({host})"));
            for job in state.jobs.values_mut().filter(|job| !job.over) {
                (job.over, job.error) = (true, error_code::HOST_NOT_CONNECTED.into());
            }
            state.release(host);
        });
        vix.expect_text()
            .returning(|code| error_code::text(code.code()).unwrap_or_default().to_string_lossy().into_owned());
        vix
    }
}

impl State {
    fn hand_out(&mut self, kind: i32) -> Handle {
        self.next += 1;
        self.handles.insert(self.next, (kind, 1));
        self.next
    }

    fn release(&mut self, handle: Handle) {
        let entry = self.handles.get_mut(&handle).expect("only what was handed out is given back");
        assert!(entry.1 > 0, "handle {handle} is given back twice");
        entry.1 -= 1;
    }

    fn start(&mut self, call: &Call<'_>, ticket: Option<Ticket>) -> (Handle, Vec<Ticket>) {
        self.calls.push(call.to_string());
        let go = self.rules.get_mut(&call.function()).and_then(VecDeque::pop_front);
        let mut job = Job { over: true, ends_with_power: false, error: 0, exit: 0, gives: None, ticket };
        match go {
            Some(Go::Fail(code)) => job.error = code.into(),
            Some(Go::ActFail(code)) => {
                let _ = self.act(call, &mut job);
                job.error = code.into();
            }
            Some(Go::Hang) => (job.over, job.ends_with_power) = (false, true),
            Some(Go::HangForEver) => job.over = false,
            Some(Go::Exit(code)) => job.exit = code,
            Some(Go::Silent) | None => job.error = self.act(call, &mut job).err().unwrap_or(0).into(),
        }
        let mut rings = Vec::new();
        if job.over && go != Some(Go::Silent) {
            rings.extend(ticket);
        }
        if matches!(call, Call::PowerOff { .. }) && job.over {
            for hung in self.jobs.values_mut().filter(|job| job.ends_with_power && !job.over) {
                (hung.over, hung.error) = (true, error_code::VM_NOT_RUNNING.into());
                rings.extend(hung.ticket);
            }
        }
        let handle = self.hand_out(handle_type::JOB);
        self.jobs.insert(handle, job);
        (handle, rings)
    }

    fn act(&mut self, call: &Call<'_>, job: &mut Job) -> Result<(), u16> {
        const RUNNING: i32 = power_state::POWERED_ON;
        let is_on = self.power & RUNNING != 0;
        match *call {
            Call::Connect { .. } => job.gives = Some(handle_type::HOST),
            Call::Open { vmx, .. } | Call::HostOpen { vmx, .. } => {
                if !self.file_of(vmx).exists() {
                    return Err(error_code::VM_NOT_FOUND);
                }
                job.gives = Some(handle_type::VM);
            }
            Call::PowerOn { .. } if is_on => return Err(error_code::VM_IS_RUNNING),
            Call::PowerOn { .. } | Call::Unpause { .. } => self.power = RUNNING,
            Call::Pause { .. } => self.power = RUNNING | power_state::PAUSED,
            Call::PowerOff { .. } | Call::Suspend { .. } if !is_on => return Err(error_code::VM_NOT_RUNNING),
            Call::PowerOff { .. } => self.power = power_state::POWERED_OFF,
            Call::Suspend { .. } => self.power = power_state::SUSPENDED,
            Call::CreateSnapshot { name, options, .. } => {
                let with_memory = options & snapshot_option::INCLUDE_MEMORY != 0;
                let bits = if with_memory { self.power } else { power_state::POWERED_OFF };
                self.snapshots.push((name.to_owned(), bits));
                job.gives = Some(handle_type::SNAPSHOT);
            }
            Call::Revert { snapshot, .. } => self.power = self.snapshots[self.number_of(snapshot)].1,
            Call::RemoveSnapshot { snapshot, .. } => drop(self.snapshots.remove(self.number_of(snapshot))),
            Call::Clone { to, .. } => {
                std::fs::create_dir_all(Path::new(to).parent().unwrap()).unwrap();
                std::fs::write(to, "memsize = \"64\"\n").unwrap();
                // The clone has no snapshots.
                self.snapshots.clear();
                job.gives = Some(handle_type::VM);
            }
            Call::CopyToHost { from, to, .. } => {
                let name = from.rsplit('/').next().unwrap();
                let content = self.files.get(name).ok_or(error_code::FILE_NOT_FOUND)?;
                std::fs::write(to, content).unwrap();
            }
            _ => {}
        }
        Ok(())
    }

    fn file_of(&self, vmx: &str) -> PathBuf {
        match vmx.strip_prefix("[standard] ") {
            Some(path) => self.root.join("vms").join(path),
            None => vmx.into(),
        }
    }

    /// A snapshot's handle is 1000 and its place.
    fn number_of(&self, snapshot: Handle) -> usize {
        usize::try_from(self.handles[&snapshot].0 - 1000).unwrap()
    }

    fn property(&mut self, of: Handle, id: i32) -> Result<Value, Code> {
        let job = self.jobs.get(&of).map(|job| (job.exit, job.gives));
        match (id, job) {
            (property::VM_POWER_STATE, _) => Ok(Value::Int(self.power)),
            (property::JOB_RESULT_GUEST_PROGRAM_EXIT_CODE, Some((exit, _))) => Ok(Value::Int(exit)),
            (property::JOB_RESULT_HANDLE, Some((_, Some(handle_type::SNAPSHOT)))) => {
                let kind = 1000 + i32::try_from(self.snapshots.len()).unwrap() - 1;
                Ok(Value::Handle(self.hand_out(kind)))
            }
            (property::JOB_RESULT_HANDLE, Some((_, Some(kind)))) => Ok(Value::Handle(self.hand_out(kind))),
            _ => Err(error_code::UNRECOGNIZED_PROPERTY.into()),
        }
    }

    fn look(&mut self, look: &Look<'_>) -> Result<i32, Code> {
        self.calls.push(format!("{look:?}"));
        if let Some(Go::Fail(code)) = self.rules.get_mut(&look.function()).and_then(VecDeque::pop_front) {
            return Err(code.into());
        }
        let place = match *look {
            Look::NamedSnapshot { name, .. } => self.snapshots.iter().position(|(found, _)| found == name),
            Look::RootSnapshot { .. } => (!self.snapshots.is_empty()).then_some(0),
            _ => None,
        };
        let place = place.ok_or(Code::from(error_code::SNAPSHOT_NOTFOUND))?;
        Ok(self.hand_out(1000 + i32::try_from(place).unwrap()))
    }
}
