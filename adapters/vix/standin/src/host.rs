//! A connection to a host: which product it plays, where its VMs are, which are registered.
//!
//! | variable | what it says |
//! |---|---|
//! | `VMTASK_STANDIN_PRODUCT` | `server1`, `server2`, `workstation`, `player`, `fusion`: the one product installed; without it, each provider is |
//! | `VMTASK_STANDIN_DATASTORES` | `standard=/path;other=/path`: what `[standard] dir/x.vmx` means |
//! | `VMTASK_STANDIN_HOST_USER`, `VMTASK_STANDIN_HOST_PASSWORD` | who may connect to a server; without them, whoever has a name and a password |
//! | `VMTASK_STANDIN_HOME` | where it is noted which VMs have been powered on (for `VixHost_FindItems`); a directory for temporary files otherwise |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use vmtask_vix_abi::{Function, Handle, INVALID_HANDLE, Product, error_code, service_provider};

use crate::failure::Failure;
use crate::handles::{self, Object};
use crate::{job, store};

/// What `VixHost_FindItems` puts before a server's paths.
const DATACENTER: &str = "ha-datacenter/";

/// A connection.
pub(crate) struct Host {
    product: Product,
    datastores: Vec<(String, PathBuf)>,
    handle: OnceLock<Handle>,
    gate: Mutex<Gate>,
    left: Condvar,
}

/// Callbacks run only while the gate is open; closing it waits for those that do.
#[derive(Default)]
struct Gate {
    closed: bool,
    inside: usize,
}

/// What a client says when it connects.
pub(crate) struct Login {
    pub(crate) provider: i32,
    pub(crate) host: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl Host {
    /// Connects and hands out the host.
    pub(crate) fn connect(login: &Login) -> Result<Handle, Failure> {
        crate::fault::check()?;
        let product = choose_product(login.provider, std::env::var("VMTASK_STANDIN_PRODUCT").ok().as_deref())?;
        if product.has_inventory() || product == Product::Server1 && login.host.is_some() {
            check_login(login)?;
        }
        let host = Arc::new(Self {
            product,
            datastores: datastores(&std::env::var("VMTASK_STANDIN_DATASTORES").unwrap_or_default())?,
            handle: OnceLock::new(),
            gate: Mutex::default(),
            left: Condvar::new(),
        });
        let handle = handles::hand_out(INVALID_HANDLE, Object::Host(Arc::clone(&host)))?;
        host.handle.get_or_init(|| handle);
        Ok(handle)
    }

    /// Ends everything that was obtained from it. Afterwards no callback runs, and none will.
    pub(crate) fn disconnect(&self) {
        let inside_one = usize::from(job::in_callback_of(self.handle()));
        let mut gate = self.gate();
        if gate.closed && inside_one == 1 {
            // Somebody else is at it, and waits for this callback to return.
            return;
        }
        gate.closed = true;
        while gate.inside > inside_one {
            gate = self.left.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        drop(gate);
        for job in handles::disconnect(self.handle()) {
            job.complete(Err(Failure::new(error_code::HOST_NOT_CONNECTED, "the host was disconnected")));
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a callback may run now; if so, [`Host::leave_callback`] must follow.
    pub(crate) fn enter_callback(&self) -> bool {
        let mut gate = self.gate();
        if gate.closed {
            return false;
        }
        gate.inside += 1;
        true
    }

    pub(crate) fn leave_callback(&self) {
        self.gate().inside -= 1;
        self.left.notify_all();
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.get().copied().unwrap_or(INVALID_HANDLE)
    }

    pub(crate) fn product(&self) -> Product {
        self.product
    }

    /// Whether it answers a function. Registering does nothing on products without an inventory, but succeeds there, as
    /// the 1.13 reference says beside its matrix.
    pub(crate) fn answers(&self, function: Function) -> bool {
        matches!(function, Function::HostRegisterVm | Function::HostUnregisterVm) || self.product.has(function)
    }

    /// Whether VMs must be registered before they are opened.
    pub(crate) fn has_inventory(&self) -> bool {
        self.product.has_inventory() || self.product == Product::Server1
    }

    /// Where the `.vmx` file lies that a client names.
    pub(crate) fn resolve(&self, name: &str) -> Result<PathBuf, Failure> {
        if !self.product.has_inventory() {
            let path = PathBuf::from(name);
            return match path.is_absolute() {
                true => Ok(path),
                false => Err(Failure::new(error_code::FILE_NAME_INVALID, format!("{name:?} is not an absolute path"))),
            };
        }
        let bad = || {
            let why = format!("{name:?} is not a datastore path such as \"[standard] dir/x.vmx\"");
            Failure::new(error_code::FILE_NAME_INVALID, why)
        };
        let rest = name.strip_prefix(DATACENTER).unwrap_or(name).strip_prefix('[').ok_or_else(bad)?;
        let (store, file) = rest.split_once("] ").ok_or_else(bad)?;
        if file.is_empty() || file.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad());
        }
        let found = self.datastores.iter().find(|(known, _)| known == store);
        let (_, root) = found.ok_or_else(|| {
            let why = format!("there is no datastore {store:?}: VMTASK_STANDIN_DATASTORES names those that are there");
            Failure::new(error_code::NOT_FOUND, why)
        })?;
        Ok(file.split('/').fold(root.clone(), |path, part| path.join(part)))
    }

    /// Makes a VM known. Twice is as good as once.
    pub(crate) fn register(&self, name: &str) -> Result<(), Failure> {
        if !self.has_inventory() {
            return Ok(());
        }
        let path = self.resolve(name)?;
        if !path.is_file() {
            return Err(Failure::new(error_code::NOT_FOUND, format!("there is no {}", path.display())));
        }
        self.change_inventory(|names| {
            names.insert(plain(name).to_owned());
        })
    }

    /// Forgets a VM. One that is not known is as good.
    pub(crate) fn unregister(&self, name: &str) -> Result<(), Failure> {
        if !self.has_inventory() {
            return Ok(());
        }
        self.change_inventory(|names| {
            names.remove(plain(name));
        })
    }

    /// Whether a VM may be opened.
    pub(crate) fn is_registered(&self, name: &str) -> Result<bool, Failure> {
        Ok(!self.has_inventory() || self.inventory()?.contains(plain(name)))
    }

    /// The names of all registered VMs, as `VixHost_FindItems` tells them.
    pub(crate) fn registered(&self) -> Result<Vec<String>, Failure> {
        let prefix = if self.product.has_inventory() { DATACENTER } else { "" };
        Ok(self.inventory()?.into_iter().map(|name| format!("{prefix}{name}")).collect())
    }

    /// A server's inventory lies beside its VMs, so that every client of the server sees the same.
    fn inventory_file(&self) -> PathBuf {
        match self.datastores.first() {
            Some((_, root)) => root.join("vmtask-standin-inventory.json"),
            None => home().join("inventory.json"),
        }
    }

    fn inventory(&self) -> Result<BTreeSet<String>, Failure> {
        store::read(&self.inventory_file()).map(Option::unwrap_or_default)
    }

    fn change_inventory(&self, change: impl FnOnce(&mut BTreeSet<String>)) -> Result<(), Failure> {
        let file = self.inventory_file();
        make_directory(file.parent().unwrap_or(&file))?;
        let _lock = store::lock(&file.with_extension("lock"))?;
        let mut names = self.inventory()?;
        change(&mut names);
        store::write(&file, &names)
    }
}

/// A server's name for a VM without its datacenter.
fn plain(name: &str) -> &str {
    name.strip_prefix(DATACENTER).unwrap_or(name)
}

fn choose_product(provider: i32, installed: Option<&str>) -> Result<Product, Failure> {
    let installed = match installed {
        None | Some("") => None,
        Some("server1") => Some(Product::Server1),
        Some("server2") => Some(Product::Server2),
        Some("workstation") => Some(Product::Workstation),
        Some("player") => Some(Product::Player),
        Some("fusion") => Some(Product::Fusion),
        Some(other) => {
            let why =
                format!("VMTASK_STANDIN_PRODUCT: there is no {other:?}: server1, server2, workstation, player, fusion");
            return Err(Failure::new(error_code::INVALID_ARG, why));
        }
    };
    let asked = match provider {
        service_provider::DEFAULT => return Ok(installed.unwrap_or(Product::Workstation)),
        service_provider::VMWARE_SERVER => Product::Server1,
        service_provider::VMWARE_WORKSTATION => Product::Workstation,
        service_provider::VMWARE_PLAYER => Product::Player,
        service_provider::VMWARE_VI_SERVER => Product::Server2,
        service_provider::VMWARE_WORKSTATION_SHARED => Product::WorkstationShared,
        other => {
            let why = format!("there is no service provider {other}");
            return Err(Failure::new(error_code::WRAPPER_SERVICEPROVIDER_NOT_FOUND, why));
        }
    };
    match installed {
        None => Ok(asked),
        Some(product) if product.provider() == provider => Ok(product),
        Some(product) => {
            let code = match asked {
                Product::Workstation => error_code::WRAPPER_WORKSTATION_NOT_INSTALLED,
                Product::Player => error_code::WRAPPER_PLAYER_NOT_INSTALLED,
                _ => error_code::WRAPPER_SERVICEPROVIDER_NOT_FOUND,
            };
            Err(Failure::new(code, format!("{asked} is not installed, {product} is")))
        }
    }
}

/// A server wants an address, a name and a password, even from its own computer.
fn check_login(login: &Login) -> Result<(), Failure> {
    let missing = |what: &str| Failure::new(error_code::INVALID_ARG, format!("a server needs {what}"));
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let host = given(&login.host).ok_or_else(|| missing("an address such as https://localhost:8333/sdk"))?;
    if !host.starts_with("https://") && !host.starts_with("http://") {
        let why = format!("{host:?} is not an address such as https://localhost:8333/sdk");
        return Err(Failure::new(error_code::INVALID_HOSTNAME_SPECIFICATION, why));
    }
    let user = given(&login.user).ok_or_else(|| missing("a user's name"))?;
    let password = given(&login.password).ok_or_else(|| missing("a password"))?;
    let differs = |name: &str, given: &str| std::env::var(name).is_ok_and(|wanted| wanted != given);
    if differs("VMTASK_STANDIN_HOST_USER", &user) || differs("VMTASK_STANDIN_HOST_PASSWORD", &password) {
        return Err(Failure::new(error_code::AUTHENTICATION_FAIL, format!("the host does not let {user:?} in")));
    }
    Ok(())
}

fn datastores(text: &str) -> Result<Vec<(String, PathBuf)>, Failure> {
    let one = |part: &str| match part.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), PathBuf::from(path))),
        _ => {
            let why = format!("VMTASK_STANDIN_DATASTORES: {part:?} is not name=/path");
            Err(Failure::new(error_code::INVALID_ARG, why))
        }
    };
    text.split(';').filter(|part| !part.is_empty()).map(one).collect()
}

/// Where this computer's stand-ins keep what belongs to no VM.
fn home() -> PathBuf {
    let named = std::env::var_os("VMTASK_STANDIN_HOME").map(PathBuf::from);
    // Each user's own: somebody else's could not be written.
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_default();
    named.unwrap_or_else(|| std::env::temp_dir().join(format!("vmtask-standin-{user}")))
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|e| Failure::host_io("cannot make", path, &e))
}

/// Notes that a VM has been powered on. It is a hint: the VM's own state tells whether it still runs.
pub(crate) fn note_powered_on(vmx: &Path) {
    // A VM runs whether or not this could be noted.
    drop(change_noted(|noted| {
        noted.retain(|path| path.is_file());
        noted.insert(vmx.to_owned());
    }));
}

/// VMs that have been powered on at some time.
pub(crate) fn noted() -> Result<BTreeSet<PathBuf>, Failure> {
    store::read(&home().join("powered-on.json")).map(Option::unwrap_or_default)
}

fn change_noted(change: impl FnOnce(&mut BTreeSet<PathBuf>)) -> Result<(), Failure> {
    let home = home();
    make_directory(&home)?;
    let _lock = store::lock(&home.join("powered-on.lock"))?;
    let mut paths = noted()?;
    let before = paths.clone();
    change(&mut paths);
    if paths == before { Ok(()) } else { store::write(&home.join("powered-on.json"), &paths) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1, None, Ok(Product::Workstation))]
    #[case(1, Some("server2"), Ok(Product::Server2))]
    #[case(3, Some("fusion"), Ok(Product::Fusion))]
    #[case(4, None, Ok(Product::Player))]
    #[case(10, None, Ok(Product::Server2))]
    #[case(3, Some("player"), Err(error_code::WRAPPER_WORKSTATION_NOT_INSTALLED))]
    #[case(4, Some("workstation"), Err(error_code::WRAPPER_PLAYER_NOT_INSTALLED))]
    #[case(10, Some("workstation"), Err(error_code::WRAPPER_SERVICEPROVIDER_NOT_FOUND))]
    #[case(77, None, Err(error_code::WRAPPER_SERVICEPROVIDER_NOT_FOUND))]
    #[case(3, Some("ws"), Err(error_code::INVALID_ARG))]
    fn the_provider_and_what_is_installed_make_the_product(
        #[case] provider: i32,
        #[case] installed: Option<&str>,
        #[case] product: Result<Product, u16>,
    ) {
        assert_eq!(choose_product(provider, installed).map_err(|failure| failure.code()), product);
    }

    #[test]
    fn datastore_paths_lead_into_their_datastore_and_nowhere_else() {
        let host = Host {
            product: Product::Server2,
            datastores: datastores("standard=/vms;slow=/mnt/slow").unwrap_or_default(),
            handle: OnceLock::new(),
            gate: Mutex::default(),
            left: Condvar::new(),
        };
        let code = |name: &str| host.resolve(name).map_err(|failure| failure.code());
        assert_eq!(code("[standard] a/a.vmx"), Ok(Path::new("/vms").join("a").join("a.vmx")));
        assert_eq!(code("ha-datacenter/[slow] a.vmx"), Ok(Path::new("/mnt/slow").join("a.vmx")));
        assert_eq!(code("[absent] a.vmx"), Err(error_code::NOT_FOUND));
        for name in ["/vms/a/a.vmx", "[standard]a.vmx", "[standard] ../a.vmx", "[standard] ", "[standard] a//a.vmx"] {
            assert_eq!(code(name), Err(error_code::FILE_NAME_INVALID), "{name}");
        }
    }
}
