//! A virtual machine: what is legal when, for which product, and what it leaves on disk.
//!
//! ```text
//!   DIR/x.vmx                            its configuration
//!   DIR/vmtask-standin/state.json        what is known of it (`state`), replaced by rename
//!   DIR/vmtask-standin/lock              held during every change
//!   DIR/vmtask-standin/guest/            the guest's own
//!   DIR/vmtask-standin/snapshots/ID/     what the guest kept for a snapshot
//! ```
//!
//! Nothing in there names its own directory, so a copy of a VM that is off or suspended is a VM of its own. Clients may
//! die at any point: whoever looks next puts in order what was left half-done ([`Locked::recover`]).

mod admin;
mod clone;
mod guest_files;
mod power;
mod programs;
mod session;
mod shares;
mod snapshot;
mod state;
mod variables;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vmtask_vix_abi::{Handle, error_code, power_state, property, tools_state, vm_feature};

use crate::failure::Failure;
use crate::guest::{self, Guest, Home};
use crate::handles::{self, Object};
use crate::host::Host;
use crate::property::{Value, unknown};
use crate::store;
use crate::vmx::Vmx;

pub(crate) use snapshot::SnapshotRef;
use state::{Power, State};

/// The result of most functions here.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A VM as one client has opened it.
pub(crate) struct Vm {
    host: Arc<Host>,
    /// What the client called it.
    name: String,
    vmx_path: PathBuf,
    vmx: Arc<Vmx>,
    /// `DIR/vmtask-standin`
    dir: PathBuf,
    guest: Box<dyn Guest>,
    session: Mutex<Option<session::Session>>,
    /// The boot in which this client has waited for Tools: before, their state is not known.
    tools_seen: Mutex<Option<u64>>,
}

/// A VM's state while nobody else can change it.
struct Locked<'a> {
    vm: &'a Vm,
    state: State,
    _lock: store::Lock,
}

impl std::ops::Deref for Locked<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Locked<'_> {
    /// Makes what was changed the truth.
    fn commit(&self) -> Result<()> {
        store::write(&self.vm.state_file(), &self.state)
    }

    /// Brings the state in line with what became of the guest. What a client that died has left half-done is put in
    /// order, but for a revert ([`Vm::finish_revert`]): that can fail for ever, and another revert may be what helps.
    fn recover(&mut self) -> Result<()> {
        let before = self.state.clone();
        if self.reverting.is_some() {
            // The guest's files may be half of one state and half of another: nothing runs on that.
            self.vm.guest.power_off()?;
            self.power = Power::Off;
        }
        match self.power {
            Power::On | Power::Paused | Power::PoweringOn => {
                self.power = match (self.vm.guest.is_up(), self.power) {
                    (false, _) => Power::Off,
                    (true, Power::Paused) => Power::Paused,
                    (true, _) => Power::On,
                };
            }
            // Neither running nor kept: as if the host had lost its power.
            Power::Suspending | Power::Resuming => {
                self.vm.guest.power_off()?;
                self.power = Power::Off;
            }
            Power::Off | Power::Suspended => {}
        }
        if self.power == Power::Off && before.power != Power::Off {
            self.state.forget_run();
        }
        if self.state == before { Ok(()) } else { self.commit() }
    }
}

impl State {
    /// What ends with the power.
    fn forget_run(&mut self) {
        self.guest_variables.clear();
        self.config_variables.clear();
        self.environment.clear();
        self.suspension_kept = false;
    }
}

impl Vm {
    /// Opens a VM, or hands out again the handle of one that this client has open.
    pub(crate) fn open(host: &Arc<Host>, name: &str, password: Option<&str>) -> Result<Handle> {
        if !host.is_registered(name)? {
            let why = format!("{name} is not registered with the host");
            return Err(Failure::new(error_code::VM_NOT_FOUND, why));
        }
        let path = host.resolve(name)?;
        let path = match canonical(&path) {
            Ok(whole) if whole.is_file() => whole,
            Ok(_) => {
                let why = format!("{} is not a file", path.display());
                return Err(Failure::new(error_code::INCORRECT_FILE_TYPE, why));
            }
            Err(e) => return Err(Failure::host_io("cannot open the virtual machine", &path, &e)),
        };
        handles::hand_out_once(host.handle(), path.display().to_string(), || {
            let vm = Self::load(Arc::clone(host), name.to_owned(), path.clone())?;
            vm.check_encryption(password)?;
            Ok(Object::Vm(Arc::new(vm)))
        })
    }

    /// A VM with `vmtask.encryption.password` opens only with that.
    fn check_encryption(&self, password: Option<&str>) -> Result<()> {
        let code = match (self.vmx.get("vmtask.encryption.password"), password) {
            (None, _) => return Ok(()),
            (Some(_), None) => error_code::CRYPTO_NEED_PASSWORD,
            (Some(wanted), Some(given)) if wanted == given => return Ok(()),
            (Some(_), Some(_)) => error_code::CRYPTO_BAD_PASSWORD,
        };
        Err(Failure::new(code, format!("{} is encrypted, and was opened without its password", self.name)))
    }

    fn load(host: Arc<Host>, name: String, vmx_path: PathBuf) -> Result<Self> {
        let vmx = Arc::new(Vmx::read(&vmx_path)?);
        let dir = vmx_path.with_file_name("vmtask-standin");
        let home = home(&dir, &vmx_path, &vmx)?;
        let guest = guest::open(guest::Kind::choose(&vmx)?, home)?;
        let (session, tools_seen) = (Mutex::default(), Mutex::default());
        Ok(Self { host, name, vmx_path, vmx, dir, guest, session, tools_seen })
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    fn state_file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    fn snapshot_dir(&self, id: u64) -> PathBuf {
        self.dir.join("snapshots").join(id.to_string())
    }

    /// The VM's state, against every other thread and process, and in order.
    fn lock(&self) -> Result<Locked<'_>> {
        if !self.vmx_path.is_file() {
            return Err(Failure::new(error_code::VM_NOT_FOUND, format!("{} has been deleted", self.name)));
        }
        let lock = store::lock(&self.dir.join("lock"))?;
        let state = store::read(&self.state_file())?.unwrap_or_default();
        let mut locked = Locked { vm: self, state, _lock: lock };
        locked.recover()?;
        Ok(locked)
    }

    /// The state as it is now, without waiting for a change that is under way.
    fn peek(&self) -> Result<State> {
        let mut state: State = store::read(&self.state_file())?.unwrap_or_default();
        let changing = matches!(state.power, Power::PoweringOn | Power::Suspending | Power::Resuming);
        if (changing || state.reverting.is_some()) && store::is_free(&self.dir.join("lock")) {
            // Nobody is at it any more: its client died halfway.
            state = self.lock()?.state.clone();
        }
        if state.power.is_running() && !self.guest.is_up() {
            state.power = Power::Off;
        }
        Ok(state)
    }

    /// A property, for `Vix_GetProperties`.
    pub(crate) fn property(&self, id: i32) -> Result<Value> {
        let text = |key: &str, otherwise: &str| Value::Text(self.vmx.get(key).unwrap_or(otherwise).to_owned());
        Ok(match id {
            property::VM_NUM_VCPUS => Value::Integer(self.vmx.number("numvcpus", 1)),
            property::VM_MEMORY_SIZE => Value::Integer(self.vmx.number("memsize", 256)),
            property::VM_VMX_PATHNAME => Value::Text(self.name.clone()),
            property::VM_NAME => {
                let stem = self.vmx_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                text("displayName", &stem)
            }
            property::VM_GUESTOS => text("guestOS", "other"),
            property::VM_VMTEAM_PATHNAME => Value::Text(String::new()),
            property::VM_READ_ONLY | property::VM_IN_VMTEAM | property::VM_SSL_ERROR => Value::Bool(false),
            property::VM_POWER_STATE => Value::Integer(self.power_bits()?),
            property::VM_IS_RUNNING => Value::Bool(self.peek()?.power.is_running()),
            property::VM_TOOLS_STATE => Value::Integer(self.tools_state()?),
            property::VM_SUPPORTED_FEATURES => Value::Integer(self.features()),
            _ => return Err(unknown(id)),
        })
    }

    fn power_bits(&self) -> Result<i32> {
        let state = self.peek()?;
        let tools = state.power == Power::On && self.guest.tools_running();
        Ok(state.power.bits() | if tools { power_state::TOOLS_RUNNING } else { 0 })
    }

    /// Unknown until this client has waited for Tools in this life of the guest.
    fn tools_state(&self) -> Result<i32> {
        let state = self.peek()?;
        if !self.vmx.flag("vmtask.tools", true) {
            return Ok(tools_state::NOT_INSTALLED);
        }
        let known = *session::open(&self.tools_seen) == Some(state.boot);
        let running = known && state.power == Power::On && self.guest.tools_running();
        Ok(if running { tools_state::RUNNING } else { tools_state::UNKNOWN })
    }

    fn features(&self) -> i32 {
        use vmtask_vix_abi::Function;
        let product = self.host.product();
        let mut features = vm_feature::TOOLS_INSTALL;
        if product.has(Function::VmAddSharedFolder) {
            features |= vm_feature::SHARED_FOLDERS;
        }
        if product.many_snapshots() {
            features |= vm_feature::MULTIPLE_SNAPSHOTS;
        }
        if product.has(Function::VmUpgradeVirtualHardware) {
            features |= vm_feature::HARDWARE_UPGRADE;
        }
        features
    }
}

/// A path without links. Windows puts `\\?\` before such a path, which other programs, and clients, need not understand.
fn canonical(path: &Path) -> std::io::Result<PathBuf> {
    let whole = fs::canonicalize(path)?;
    let plain =
        whole.to_str().and_then(|text| text.strip_prefix(r"\\?\")).filter(|text| text.as_bytes().get(1) == Some(&b':'));
    Ok(plain.map(PathBuf::from).unwrap_or(whole))
}

/// The guest's home in a VM's directory, made if it is not there.
fn home(dir: &Path, vmx_path: &Path, vmx: &Arc<Vmx>) -> Result<Home> {
    let home = Home { dir: dir.join("guest"), vmx_path: vmx_path.to_owned(), vmx: Arc::clone(vmx) };
    make_directory(&home.dir)?;
    Ok(home)
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Failure::host_io("cannot make", path, &e))
}

/// Removes a directory with everything in it; none there is as good.
fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::host_io("cannot remove", path, &e)),
        _ => Ok(()),
    }
}

/// A VM that is to be unregistered must be off; one that nobody knows may be anything.
pub(crate) fn check_off(host: &Host, name: &str) -> Result<()> {
    if !host.has_inventory() || !host.is_registered(name)? {
        return Ok(());
    }
    match runs(&host.resolve(name)?) {
        true => Err(Failure::new(error_code::VM_IS_RUNNING, format!("{name} is running"))),
        false => Ok(()),
    }
}

/// Whether a VM runs: its last client said so, and its guest is still there.
fn runs(vmx: &Path) -> bool {
    let dir = vmx.with_file_name("vmtask-standin");
    let state = store::read::<State>(&dir.join("state.json"));
    if !vmx.is_file() || !state.ok().flatten().unwrap_or_default().power.is_running() {
        return false;
    }
    let guest = || {
        let text = Arc::new(Vmx::read(vmx)?);
        guest::open(guest::Kind::choose(&text)?, home(&dir, vmx, &text)?)
    };
    guest().is_ok_and(|guest| guest.is_up())
}

/// VMs that run, as this host's clients know them.
pub(crate) fn running(host: &Host) -> Result<Vec<String>> {
    let names: Vec<(String, PathBuf)> = if host.has_inventory() {
        let named = host.registered()?.into_iter().map(|name| host.resolve(&name).map(|path| (name, path)));
        named.collect::<Result<_>>()?
    } else {
        crate::host::noted()?.into_iter().map(|path| (path.display().to_string(), path)).collect()
    };
    Ok(names.into_iter().filter(|(_, path)| runs(path)).map(|(name, _)| name).collect())
}
