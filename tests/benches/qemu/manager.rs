//! What the manager itself takes while a task runs.

use std::thread;
use std::time::{Duration, Instant};

use vmtask_tests::guest::{self, Bits};
use vmtask_tests::real::Den;
use vmtask_tests::run::{Run, TaskToml};

const SPAN: Duration = Duration::from_secs(30);

pub(crate) fn measure() {
    println!("\nWhile a task runs ({} s)", SPAN.as_secs());
    println!("  {:<44} {:>12} {:>12} {:>14} {:>14}", "", "RSS now", "RSS at most", "vmtask's CPU", "QEMU's CPU");
    for (what, checkpoints) in [("no checkpoint meanwhile", "1h"), ("a checkpoint every 10 s", "10s")] {
        let den = Den::new();
        let program = guest::program("behave", Bits::B64);
        let seconds = (SPAN.as_secs() + 8).to_string();
        let task = TaskToml::new("sleeper", &program, &["sleep", &seconds]).checkpoints(checkpoints).write(&den);
        let run = Run::start(&den, &task, &den.path().join("task"));
        run.await_phase("running");
        let (manager, qemu) = (run.manager().expect("the manager"), run.qemu().expect("QEMU"));
        let (begun, manager_before, qemu_before) = (Instant::now(), manager.cpu_seconds(), qemu.cpu_seconds());
        // A share is measured over a span of time, so a span of time has to pass.
        thread::sleep(SPAN);
        let span = begun.elapsed().as_secs_f64();
        let share = |used: f64| used / span * 100.0;
        let mib = |key| manager.memory_kib(key).map_or(f64::NAN, |kib| kib as f64 / 1024.0);
        println!(
            "  {what:<44} {:>8.1} MiB {:>8.1} MiB {:>12.2} % {:>12.2} %",
            mib("VmRSS"),
            mib("VmHWM"),
            share(manager.cpu_seconds() - manager_before),
            share(qemu.cpu_seconds() - qemu_before)
        );
        let _ = run.finish().expect(0);
    }
}
