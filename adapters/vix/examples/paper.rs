//! The prototype of "Reducing Heterogeneity in Volunteer Computing using Virtual Machines", part 4, with the same VIX
//! functions in the same order:
//!
//! ```text
//!   4.1 manage the image    VixHost_Connect, VixHost_RegisterVM, VixVM_Open, VixVM_GetRootSnapshot, VixVM_RevertToSnapshot
//!   4.2 boot                VixVM_PowerOn, VixVM_WaitForToolsInGuest
//!   4.3 copy files in       VixVM_LoginInGuest, VixVM_CreateDirectoryInGuest, VixVM_CopyFileFromHostToGuest (twice)
//!   4.4 run a program       VixVM_RunProgramInGuest: chmod, then the script
//!   4.5 pause and unpause   VixVM_Pause, VixVM_Unpause; where a product lacks them: VixVM_Suspend, VixVM_PowerOn
//!   4.7 retrieve files      VixVM_CopyFileFromGuestToHost
//!   4.8 shut down           VixVM_PowerOff, VixHost_UnregisterVM
//! ```
//!
//! On the stand-in, with a virtual machine made for the occasion:
//!
//!     cargo run -p vmtask-vix --example paper
//!
//! `VMTASK_STANDIN=qemu` has the stand-in drive a real virtual machine. On a product:
//!
//!     VMTASK_GUEST_PASSWORD=... cargo run -p vmtask-vix --example paper -- workstation /srv/vms/linux/linux.vmx USER
//!     VMTASK_HOST_PASSWORD=... VMTASK_GUEST_PASSWORD=... cargo run -p vmtask-vix --example paper -- \
//!         server2 "[standard] linux/linux.vmx" USER https://localhost:8333/sdk HOSTUSER
//!
//! The virtual machine needs a snapshot to begin with, as the paper's image had. The program is the demo's `leibniz.c`,
//! compiled as the paper's binary was, with `gcc`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vmtask_driver::{Credentials, Secret};
use vmtask_vix::abi::{Function, error_code};
use vmtask_vix::{Connection, Host, Library, Product, Vm, Wait, quote};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/demo/leibniz.c");
/// What the paper's binary is: a 32-bit program whose sums stay in 80-bit registers.
const COMPILE: &str = "-m32 -march=i586 -mfpmath=387 -O3 -static";
/// A program started from outside is promised no working directory.
const SCRIPT: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\" && exec ./leibniz 1000 >pi.txt\n";
/// Where the files go in the guest.
const GUEST_DIR: &str = "/tmp/prototype";

/// The prototype's parameters: "a reference to the virtual machine image, the user name and password".
struct Parameters {
    library: Library,
    connection: Connection,
    image: String,
    guest: Credentials,
}

fn main() -> Result<(), Box<dyn Error>> {
    let work = std::env::temp_dir().join(format!("vmtask-paper-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let result = with_files(&work);
    // What the stand-in's guest has made unwritable is left to the next start of the computer.
    let _ = std::fs::remove_dir_all(&work);
    result
}

fn with_files(work: &Path) -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_standin = words.is_empty();
    let parameters = if is_standin { on_standin(work)? } else { on_product(&words)? };
    if is_standin {
        take_first_snapshot(&parameters)?;
    }
    prototype(&parameters, work)
}

fn prototype(parameters: &Parameters, work: &Path) -> Result<(), Box<dyn Error>> {
    let Parameters { library, connection, image, guest } = parameters;
    let wait = &Wait::most(Duration::from_secs(300));
    let script = work.join("run.sh");
    std::fs::write(&script, SCRIPT)?;
    let program = compile(work)?;

    say("4.1", "connect, register and open the image, revert to its root snapshot");
    let host = library.connect(connection, wait)?;
    host.register(image, wait)?;
    let vm = host.open(image, wait)?;
    if host.product().has(Function::VmGetRootSnapshot) {
        let root = vm.root_snapshot(0)?;
        vm.revert(&root, wait)?;
    } else {
        println!("     {} has no snapshots: the image is used as it is", host.product());
    }

    say("4.2", "power on and wait for Tools");
    if !vm.power_state()?.is_running() {
        vm.power_on(wait)?;
    }
    vm.wait_for_tools(120, wait)?;

    say("4.3", "log in, make a directory, copy the script and the program");
    vm.log_in(guest, wait)?;
    match vm.create_directory(GUEST_DIR, wait) {
        Err(error) if error.is(error_code::FILE_ALREADY_EXISTS) => {}
        made => made?,
    }
    vm.copy_in(&script, &format!("{GUEST_DIR}/run.sh"), wait)?;
    vm.copy_in(&program, &format!("{GUEST_DIR}/leibniz"), wait)?;

    say("4.4", "set the permissions, which did not come along; run the script");
    let files = format!("755 {} {}", quote(&format!("{GUEST_DIR}/run.sh")), quote(&format!("{GUEST_DIR}/leibniz")));
    let ran = vm.run_program("/bin/chmod", &files, wait)?;
    must_be_0("chmod", ran.exit_code)?;
    let ran = vm.run_program("/bin/sh", &quote(&format!("{GUEST_DIR}/run.sh")), wait)?;
    must_be_0("the script", ran.exit_code)?;

    say("4.5", "pause and unpause");
    pause_and_unpause(&vm, guest, wait)?;

    say("4.7", "copy the result back");
    let result = work.join("pi.txt");
    vm.copy_out(&format!("{GUEST_DIR}/pi.txt"), &result, wait)?;
    println!("     {}", std::fs::read_to_string(&result)?.trim_end());

    say("4.8", "power off, unregister");
    vm.power_off(wait)?;
    drop(vm);
    host.unregister(image, wait)?;
    Ok(())
}

/// The paper shows both functions, which by VMware's own matrix only Workstation and Fusion have.
fn pause_and_unpause(vm: &Vm, guest: &Credentials, wait: &Wait<'_>) -> Result<(), Box<dyn Error>> {
    if vm.host().product().has(Function::VmPause) {
        vm.pause(wait)?;
        println!("     it is {}", vm.power_state()?);
        vm.unpause(wait)?;
    } else {
        vm.suspend(wait)?;
        println!("     {} cannot pause: it is {} instead", vm.host().product(), vm.power_state()?);
        vm.power_on(wait)?;
        vm.wait_for_tools(120, wait)?;
        vm.log_in(guest, wait)?;
    }
    println!("     it is {}", vm.power_state()?);
    Ok(())
}

fn must_be_0(what: &str, exit_code: i32) -> Result<(), String> {
    if exit_code == 0 { Ok(()) } else { Err(format!("{what} failed in the guest with exit code {exit_code}")) }
}

fn say(part: &str, what: &str) {
    println!("{part}  {what}");
}

fn compile(work: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let program = work.join("leibniz");
    let mut command = Command::new("gcc");
    command.args(COMPILE.split(' ')).arg("-o").arg(&program).args([SOURCE, "-lm"]);
    let status = command.status().map_err(|error| format!("gcc: {error}; install it (Debian: gcc-multilib)"))?;
    if !status.success() {
        return Err("gcc has failed; a 32-bit program needs 32-bit libraries (Debian: gcc-multilib)".into());
    }
    Ok(program)
}

fn account(user: &str, variable: &str) -> Result<Credentials, String> {
    let password = std::env::var(variable).map_err(|_| format!("put {user}'s password into {variable}"))?;
    Ok(Credentials { user: user.to_owned(), password: Secret::from_value(password) })
}

fn on_product(words: &[String]) -> Result<Parameters, Box<dyn Error>> {
    let [product, image, user, host @ ..] = words else {
        return Err("usage: paper [PRODUCT VMX GUESTUSER [HOST HOSTUSER]]".into());
    };
    let product = match product.as_str() {
        "workstation" => Product::Workstation,
        "player" => Product::Player,
        "fusion" => Product::Fusion,
        "server2" => Product::Server2,
        other => return Err(format!("{other}: workstation, player, fusion or server2").into()),
    };
    let mut connection = Connection::local(product);
    if let [url, user] = host {
        connection.host = Some(url.clone());
        connection.credentials = Some(account(user, "VMTASK_HOST_PASSWORD")?);
    }
    Ok(Parameters {
        library: Library::find(None)?,
        connection,
        image: image.clone(),
        guest: account(user, "VMTASK_GUEST_PASSWORD")?,
    })
}

/// A VM of the stand-in's, as new.
fn on_standin(work: &Path) -> Result<Parameters, Box<dyn Error>> {
    let image = work.join("image/image.vmx");
    std::fs::create_dir_all(work.join("image"))?;
    let kind = std::env::var("VMTASK_STANDIN").unwrap_or_else(|_| "root".into());
    let settings = format!(
        "displayName = \"prototype\"\nmemsize = \"256\"\nguestOS = \"linux\"\nvmtask.guest = \"{kind}\"\n\
         vmtask.guest.user = \"user\"\nvmtask.guest.password = \"secret\"\n"
    );
    std::fs::write(&image, settings)?;
    let library = Library::find(built_standin()?.as_deref())?;
    println!("     the stand-in {}: no VMware here", library.path().display());
    Ok(Parameters {
        library,
        connection: Connection::local(Product::Workstation),
        image: image.display().to_string(),
        guest: Credentials { user: "user".into(), password: Secret::from_value("secret".into()) },
    })
}

/// The stand-in, which cargo has built with this example: target/debug/deps beside target/debug/examples.
fn built_standin() -> std::io::Result<Option<PathBuf>> {
    let name = format!("{}vixAllProducts{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let program = std::env::current_exe()?;
    let Some(target) = program.parent().and_then(Path::parent) else { return Ok(None) };
    Ok([target.join("deps").join(&name), target.join(&name)].into_iter().find(|path| path.is_file()))
}

/// The paper's author has taken it in the product's window.
fn take_first_snapshot(parameters: &Parameters) -> Result<(), Box<dyn Error>> {
    let wait = &Wait::most(Duration::from_secs(60));
    let host: Host = parameters.library.connect(&parameters.connection, wait)?;
    let vm = host.open(&parameters.image, wait)?;
    vm.snapshot("baseline", "as it was made", false, wait)?;
    Ok(())
}
