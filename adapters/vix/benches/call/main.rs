//! What one VIX call costs through the adapter, beside the same call of a plain C client, on the same stand-in and the
//! same virtual machine, in one run.
//!
//! `cargo bench -p vmtask-vix --bench call`. `VMTASK_BENCH_ROUNDS` (default 15) says how often each is measured; both sides
//! take turns, so that noise hits both alike. Allocations are the adapter's own: the library has an allocator of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use vmtask_driver::{Credentials, Secret};
use vmtask_vix::{Connection, Host, Library, Product, Variable, Vm, Wait};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The call as the C client knows it, how it is called here, and how often it is made in a round.
const CALLS: [(&str, &str, u32); 3] = [
    ("property", "Vix_GetProperties", 200_000),
    ("variable", "VixVM_ReadVariable, a job", 5_000),
    ("file", "VixVM_FileExistsInGuest, a job in the guest", 3_000),
];

/// What the adapter may cost more.
const MOST: f64 = 1.5;

fn main() {
    // Also called by `cargo test --benches`, which wants no measurements.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let rounds: usize = std::env::var("VMTASK_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let dir = tempfile::tempdir().unwrap();
    let vmx = dir.path().join("vm.vmx");
    let text = "displayName = \"vm\"\nvmtask.guest = \"world\"\nvmtask.guest.user = \"user\"\nvmtask.guest.password = \"secret\"\n";
    std::fs::write(&vmx, text).unwrap();
    let Some(client) = compile(dir.path()) else {
        println!("skipped: gcc is not installed");
        return;
    };

    let wait = Wait::most(Duration::from_secs(3600));
    let host = Library::load(&library()).unwrap().connect(&Connection::local(Product::Workstation), &wait).unwrap();
    let vm = host.open(&vmx.to_string_lossy(), &wait).unwrap();
    vm.power_on(&wait).unwrap();
    vm.wait_for_tools(60, &wait).unwrap();
    vm.log_in(&Credentials { user: "user".into(), password: Secret::from_value("secret".into()) }, &wait).unwrap();
    vm.write_variable(Variable::Guest, "benchmark", "a value", &wait).unwrap();

    println!("One VIX call on the stand-in, medians of {rounds} rounds (smallest-largest), in ns");
    let mut good = true;
    for (call, name, count) in CALLS {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let mut allocations = 0.0;
        for _ in 0..rounds {
            there.push(in_c(&client, &vmx, call, count));
            let (time, each) = through_the_adapter(&host, &vm, call, count);
            here.push(time);
            allocations = each;
        }
        let ratio = median(&mut here) / median(&mut there);
        good &= ratio <= MOST;
        println!("{name}");
        println!("    C client      {}", spread(&mut there));
        println!("    adapter       {}, {allocations:.1} allocations of its own", spread(&mut here));
        println!("    ratio         {ratio:.2}{}", if ratio <= MOST { "" } else { ": MORE THAN 1.5" });
    }
    vm.power_off(&wait).unwrap();
    assert!(good, "the adapter costs more than {MOST} of what C costs");
}

fn through_the_adapter(host: &Host, vm: &Vm, call: &str, count: u32) -> (f64, f64) {
    let wait = Wait::most(Duration::from_secs(3600));
    let one = || match call {
        "property" => assert!(std::hint::black_box(host.api_version()).is_some()),
        "variable" => assert!(!vm.read_variable(Variable::Guest, "benchmark", &wait).unwrap().is_empty()),
        _ => assert!(vm.file_exists("/bin/true", &wait).unwrap()),
    };
    (0..count / 10).for_each(|_| one());
    let region = Region::new(COUNTING);
    let from = Instant::now();
    (0..count).for_each(|_| one());
    let time = from.elapsed().as_nanos() as f64 / f64::from(count);
    (time, region.change().allocations as f64 / f64::from(count))
}

fn in_c(client: &Path, vmx: &Path, call: &str, count: u32) -> f64 {
    let output = Command::new(client).arg(vmx).args([&count.to_string(), call]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(values: &mut [f64]) -> String {
    format!("{:.0} ({:.0}-{:.0})", median(values), values[0], values[values.len() - 1])
}

fn compile(dir: &Path) -> Option<PathBuf> {
    let (library, client) = (library(), dir.join("client"));
    let output = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-o"])
        .arg(&client)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/call/client.c"))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(client)
}

/// The stand-in: Cargo puts it beside what it builds.
fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    beside.join("libvixAllProducts.so")
}
