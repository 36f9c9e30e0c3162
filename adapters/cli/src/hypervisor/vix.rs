//! VMware's products by VIX: which library, which product, which virtual machine as the platform, who we are to them.
//!
//! ```text
//!   flags, passwords --> library, loaded --> product, connected to once: its version --> VixVm, in the registry
//! ```
//! Nothing here is particular to an operating system: where there is no QEMU that vmtask can drive, this is what drives
//! real virtual machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmtask_core::{Plan, Policy, TaskSpec};
use vmtask_driver::{Credentials, Digest, Execution, Hypervisor, Keeper, SecretSource, TaskFile};
use vmtask_vix::{Candidate, Connection, Library, Product, Setup, VixVm, Wait, discover};

use super::Place;
use super::registered::Registered;
use crate::args::vix::{HOST_PASSWORD, PASSWORD, ProductChoice, VixArgs};
use crate::doctor::Check;
use crate::error::Error;

/// How long a product may take to let us in. Workstation starts a helper of its own for it.
const CONNECT: Duration = Duration::from_secs(60);
/// How a library calls itself that is none of VMware's: vmtask's own, for tests.
const STAND_IN: &str = "vmtask stand-in";

/// A product that answers, and the virtual machine that is the platform.
pub(crate) struct Kind {
    library: Library,
    connection: Connection,
    /// As the product tells it; not all do.
    version: Option<String>,
    vm: String,
    datastore: Option<PathBuf>,
    guest: Credentials,
    guest_dir: String,
    hardware: Hardware,
    platform: String,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind").field("connection", &self.connection).field("vm", &self.vm).finish_non_exhaustive()
    }
}

impl Kind {
    /// Finds the library and asks the product for its version.
    ///
    /// # Errors
    /// If anything is missing, or the product does not let us in.
    pub(crate) fn find(args: &VixArgs, spec: &TaskSpec) -> Result<Self, Error> {
        let product = args.product.unwrap_or(ProductChoice::HERE).product();
        let wanted = |flag: &str, value: &Option<String>| {
            value.clone().ok_or_else(|| Error::Usage(format!("--hypervisor vix needs {flag}")))
        };
        let (vm, user) = (wanted("--vix-vm", &args.vm)?, wanted("--vix-user", &args.user)?);
        let vm = if product.has_inventory() { vm } else { absolute(&vm)? };
        let datastore = args.datastore.as_deref().map(|given| datastore(given, &vm)).transpose()?;
        let hardware = match platform_file(product, &vm, datastore.as_deref()) {
            Some(file) => Hardware::read(&file)?,
            None => Hardware::default(),
        };
        let library = Library::find(args.library.as_deref()).map_err(|error| Error::Hypervisor(error.to_string()))?;
        let connection = connection(args, product)?;
        let question = format!("Password of {user} in the guest: ");
        let password = source(args.password_file.as_deref(), PASSWORD, question).read()?;
        let host = library.connect(&connection, &Wait::most(CONNECT));
        let version = host.map_err(|error| Error::Hypervisor(error.to_string()))?.version();
        let guest = Credentials { user, password };
        let (guest_dir, platform) = (args.guest_dir.clone(), spec.platform.clone());
        Ok(Self { library, connection, version, vm, datastore, guest, guest_dir, hardware, platform })
    }

    /// The product, and what it says of its version.
    pub(crate) fn describe(&self) -> String {
        match &self.version {
            Some(version) => format!("{} ({version})", self.connection.product),
            None => self.connection.product.to_string(),
        }
    }

    /// Why this is not to be taken for VMware's product, if it is not.
    pub(crate) fn simulated(&self) -> Option<&'static str> {
        let is_stand_in = self.version.as_ref().is_some_and(|version| version.starts_with(STAND_IN));
        is_stand_in.then_some("vmtask's stand-in for VIX takes the place of VMware's products")
    }

    /// The platform's name is the task's: that this virtual machine is one is for the user to know. The fingerprint is of
    /// what VMware's products leave as it is; they rewrite the rest of a `.vmx` file, and disks are not read.
    pub(crate) fn platform(&self) -> vmtask_driver::Platform {
        let of = format!("{}\n{}\n{}", self.connection.product, self.vm, self.hardware.text);
        vmtask_driver::Platform { name: self.platform.clone(), fingerprint: Digest::of(of.as_bytes()).to_string() }
    }

    pub(crate) fn execution(&self) -> Execution {
        Execution {
            hypervisor: "vix".to_owned(),
            simulated: self.simulated().is_some(),
            accelerator: None,
            build: Some(self.describe()),
        }
    }

    pub(crate) fn memory(&self) -> Option<u64> {
        self.hardware.memory
    }

    pub(crate) fn make(&self, place: &Place<'_>) -> Result<Arc<dyn Hypervisor>, Error> {
        let spec = place.file.spec();
        // VIX wants absolute paths of virtual machines, and this one's is below it.
        let dir = std::path::absolute(place.dir.root()).map_err(Error::io("find", place.dir.root()))?;
        let inputs = place.file.path().parent().unwrap_or(Path::new("")).to_owned();
        for path in [&dir, &inputs] {
            if path.to_str().is_none() {
                return Err(Error::Hypervisor(format!(
                    "VIX takes paths as UTF-8 text only, which {path:?} is not; rename it, or name another directory with --dir"
                )));
            }
        }
        let setup = Setup {
            spec: spec.clone(),
            library: self.library.clone(),
            connection: self.connection.clone(),
            vm: self.vm.clone(),
            datastore: self.datastore.clone(),
            guest: self.guest.clone(),
            guest_dir: self.guest_dir.clone(),
            dir,
            inputs,
            results: place.dir.results(),
        };
        let vm = VixVm::new(setup).map_err(|error| Error::Hypervisor(error.to_string()))?;
        let product = self.connection.product;
        let keeper =
            Keeper { product: product.to_string(), machine: vm.vmx().to_owned(), inventory: product.has_inventory() };
        Ok(Arc::new(Registered::new(Arc::new(vm), &spec.name, place.dir.root(), keeper)?))
    }
}

/// Products without an inventory know virtual machines by absolute paths.
fn absolute(vm: &str) -> Result<String, Error> {
    if vm.starts_with('[') {
        return Err(Error::Usage(format!(
            "--vix-vm {vm:?} is a datastore path, which only servers have; name the product with --vix-product"
        )));
    }
    let path = std::path::absolute(vm).map_err(Error::io("find", Path::new(vm)))?;
    path.into_os_string().into_string().map_err(|path| Error::Usage(format!("--vix-vm {path:?} is no UTF-8 text")))
}

/// The directory of `NAME=DIR`, if it is this virtual machine's datastore.
fn datastore(given: &str, vm: &str) -> Result<PathBuf, Error> {
    let usage = |why: String| Error::Usage(format!("--vix-datastore {given:?} {why}"));
    let (name, dir) = given
        .split_once('=')
        .filter(|(name, dir)| !name.is_empty() && !dir.is_empty())
        .ok_or_else(|| usage("is not NAME=DIR, as in standard=/var/lib/vmware/Virtual Machines".into()))?;
    if !vm.starts_with(&format!("[{name}]")) {
        return Err(usage(format!("is not the datastore of {vm}; name the one in its brackets")));
    }
    let dir = std::path::absolute(dir).map_err(Error::io("find", Path::new(dir)))?;
    if !dir.is_dir() {
        return Err(usage(format!("names no directory: there is no {}", dir.display())));
    }
    Ok(dir)
}

/// The virtual machine's `.vmx` file, if it can be on this computer.
fn platform_file(product: Product, vm: &str, datastore: Option<&Path>) -> Option<PathBuf> {
    if product.has_inventory() {
        let (_, path) = vm.split_once(']')?;
        return Some(datastore?.join(path.trim_start()));
    }
    // Server 1 may be another computer.
    (product != Product::Server1).then(|| vm.into())
}

/// What a `.vmx` file says of the machine, as far as products leave that alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hardware {
    text: String,
    /// In bytes.
    memory: Option<u64>,
}

impl Hardware {
    const KEYS: [&str; 5] = ["guestOS", "memsize", "numvcpus", "virtualHW.version", "firmware"];

    fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read(file).map_err(|source| {
            Error::Hypervisor(format!(
                "cannot read the virtual machine {}: {source}; name its .vmx file with --vix-vm",
                file.display()
            ))
        })?;
        Ok(Self::of(&String::from_utf8_lossy(&text)))
    }

    fn of(text: &str) -> Self {
        let value = |wanted: &str| {
            text.lines().filter_map(|line| line.split_once('=')).find_map(|(key, value)| {
                key.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
            })
        };
        let memory = value("memsize").and_then(|mib| mib.parse::<u64>().ok()).map(|mib| mib << 20);
        let said = Self::KEYS.iter().filter_map(|key| Some(format!("{key}={}\n", value(key)?)));
        Self { text: said.collect(), memory }
    }
}

fn connection(args: &VixArgs, product: Product) -> Result<Connection, Error> {
    let is_server = product.has_inventory() || args.host.is_some();
    let host = args.host.clone().or_else(|| {
        (product == Product::Server2).then(|| {
            let port = if cfg!(windows) { 8333 } else { 443 };
            format!("https://localhost:{port}/sdk")
        })
    });
    if product.has_inventory() && host.is_none() {
        return Err(Error::Usage(format!("{product} needs --vix-host, as in https://host/sdk")));
    }
    let credentials = match &args.host_user {
        Some(user) => {
            let on = host.as_deref().unwrap_or("the host");
            let question = format!("Password of {user} on {on}: ");
            let password = source(args.host_password_file.as_deref(), HOST_PASSWORD, question).read()?;
            Some(Credentials { user: user.clone(), password })
        }
        None if is_server => {
            return Err(Error::Usage(format!("{product} needs --vix-host-user, even on the same computer")));
        }
        None => None,
    };
    Ok(Connection { product, host, port: 0, credentials, verify_certificate: args.verify_certificate })
}

/// A file that was named comes before the environment, and that before a question.
fn source(file: Option<&Path>, variable: &str, question: String) -> SecretSource {
    match file {
        Some(file) => SecretSource::File(file.to_owned()),
        None if std::env::var_os(variable).is_some() => SecretSource::Env(variable.to_owned()),
        None => SecretSource::Prompt(question),
    }
}

// ---- doctor ----

const LIBRARY: &str = "VIX";
const PRODUCTS: &str = "VIX products";
const SUBSTITUTES: &str = "VIX substitutes";
/// What is looked at, by the name that `--vix-product` knows.
const SHOWN: [(&str, Product); 4] = [
    ("workstation", Product::Workstation),
    ("player", Product::Player),
    ("fusion", Product::Fusion),
    ("server2", Product::Server2),
];

/// What there is of VMware's products here. Nothing is connected to.
pub(crate) fn examine() -> Vec<Check> {
    let library = match Library::find(None) {
        Ok(library) => library,
        Err(error) => return vec![missing(error.to_string())],
    };
    let by =
        discover(None).into_iter().find(|candidate| candidate.path == library.path()).map(|Candidate { by, .. }| by);
    let by = by.map(|by| format!(" ({by})")).unwrap_or_default();
    let mut checks = vec![Check::good(LIBRARY, format!("{}{by}", library.path().display()))];
    let rows: Vec<String> = library.rows().iter().map(ToString::to_string).collect();
    checks.push(match rows.is_empty() {
        // A product's own library, without the wrapper's table.
        true => Check::good(PRODUCTS, "no table beside the library: it is for one product"),
        false => Check::good(PRODUCTS, rows.join("; ")),
    });
    checks.extend(SHOWN.map(|(name, product)| Check::good(SUBSTITUTES, format!("{name}: {}", substitutes(product)))));
    checks
}

/// Where there is QEMU, VIX need not be.
fn missing(why: String) -> Check {
    const MEND: &str = "install VMware Workstation, Player or Fusion, or name the library in VMTASK_VIX_LIBRARY";
    if cfg!(target_os = "linux") {
        Check::lacking(LIBRARY, format!("{why} Only `--hypervisor vix` needs it."), MEND)
    } else {
        Check::missing(LIBRARY, why, MEND)
    }
}

/// What is done instead of what a product lacks, for a task with checkpoints whose files are on this computer.
fn substitutes(product: Product) -> String {
    const TASK: &str = "name = \"any\"\nplatform = \"any\"\n[program]\npath = \"/bin/true\"\n";
    let capabilities = vmtask_vix::capabilities_of(product, true);
    let planned = TaskFile::parse(Path::new("any"), TASK).ok().and_then(|file| {
        let plan = Plan::new(file.spec(), Policy::default(), capabilities).ok()?;
        Some(plan.substitutes(file.spec()).map(|substitute| substitute.to_string()).collect::<Vec<_>>())
    });
    match planned {
        None => "cannot run tasks".into(),
        Some(all) if all.is_empty() => "none".into(),
        Some(all) => all.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("standard=/tmp", "[standard] a/a.vmx", true)]
    #[case("other=/tmp", "[standard] a/a.vmx", false)]
    #[case("standard=/nonexistent/dir", "[standard] a/a.vmx", false)]
    #[case("standard", "[standard] a/a.vmx", false)]
    #[case("=/tmp", "[] a/a.vmx", false)]
    fn a_datastore_is_the_virtual_machines_own(#[case] given: &str, #[case] vm: &str, #[case] good: bool) {
        let given = given.replace("/tmp", &std::env::temp_dir().to_string_lossy());
        assert_eq!(datastore(&given, vm).is_ok(), good);
    }

    #[test]
    fn the_hardware_is_what_products_leave_alone() {
        let text = ".encoding = \"UTF-8\"\nMemSize = \"256\"\nguestos=\"other26xlinux\"\nuuid.bios = \"56 4d\"\n";
        let hardware = Hardware::of(text);
        assert_eq!(hardware.text, "guestOS=other26xlinux\nmemsize=256\n");
        assert_eq!(hardware.memory, Some(256 << 20));
        assert_eq!(Hardware::of(&text.replace("56 4d", "11 22")), hardware);
    }

    #[test]
    fn each_products_substitutes_are_told() {
        let table: Vec<String> =
            SHOWN.iter().map(|(name, product)| format!("{name}: {}", substitutes(*product))).collect();
        insta::assert_snapshot!(table.join("\n"));
    }
}
