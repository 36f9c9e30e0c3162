//! libvirt, the usual way to drive QEMU, with the same kernel and root file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};
use vmtask_tests::hand::Image;
use vmtask_tests::wait;

const NOBODY: u32 = 65534;

/// A libvirtd of our own, as nobody: it is to have nothing to do with the computer's, nor to find /dev/kvm.
pub(crate) struct Libvirt {
    dir: PathBuf,
    pid: i32,
}

impl Libvirt {
    /// Starts it, boots a guest and saves it.
    pub(crate) fn start(image: &Image, dir: &Path) -> Result<Self, String> {
        for program in ["libvirtd", "virsh", "setpriv"] {
            if Command::new(program).arg("--version").output().is_err() {
                return Err(format!("{program} is not installed"));
            }
        }
        let text = |error: io::Error| error.to_string();
        for made in ["run", "conf/libvirt", "cache", "image"] {
            fs::create_dir_all(dir.join(made)).map_err(text)?;
        }
        let conf = "security_driver = \"none\"\nstdio_handler = \"file\"\n";
        fs::write(dir.join("conf/libvirt/qemu.conf"), conf).map_err(text)?;
        // Somebody else must be able to read them.
        fs::copy(&image.kernel, dir.join("image/vmlinux")).map_err(text)?;
        fs::copy(&image.initrd, dir.join("image/root.cpio")).map_err(text)?;
        let domain = dir.join("domain.xml");
        fs::write(&domain, xml(image, dir)).map_err(text)?;
        if rustix::process::getuid().is_root() {
            let parent = dir.parent().unwrap_or(dir);
            let opened = Command::new("chmod").arg("a+rx").arg(parent).arg(dir).status().map_err(text)?;
            let given = Command::new("chown").args(["-R", "65534:65534"]).arg(dir).status().map_err(text)?;
            if !opened.success() || !given.success() {
                return Err("its directory cannot be given to nobody".into());
            }
        }
        let pid_file = dir.join("run/pid");
        let started = nobody(dir, "libvirtd").arg("-d").arg("-p").arg(&pid_file).status().map_err(text)?;
        if !started.success() {
            return Err(format!("libvirtd: {started}"));
        }
        let pid = wait::until("libvirtd to start", || fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        let libvirt = Self { dir: dir.to_owned(), pid };
        let mut last = String::new();
        // It listens a moment after it has written its number.
        wait::until("a domain", || match libvirt.virsh(&[&"create".into(), &domain]) {
            Ok(_) => Some(()),
            Err(error) => {
                last = error.to_string();
                (!last.contains("Failed to connect")).then_some(())
            }
        });
        wait::until("the agent of the domain", || libvirt.agent(&json!({ "execute": "guest-ping" })).ok());
        libvirt.virsh(&[&"save".into(), &"peer".into(), &libvirt.saved()]).map_err(text)?;
        Ok(libvirt)
    }

    fn saved(&self) -> PathBuf {
        self.dir.join("saved")
    }

    /// Restores the guest and runs a command in it: the seconds until it is restored, and until the output is there.
    pub(crate) fn restore_and_run(&self, word: &str) -> io::Result<(f64, f64)> {
        // virsh restores from where it is told, and takes nothing away.
        let start = Instant::now();
        self.virsh(&[&"restore".into(), &self.saved()])?;
        let restored = start.elapsed().as_secs_f64();
        let exec = json!({
            "execute": "guest-exec",
            "arguments": { "path": "/bin/echo", "arg": [word], "capture-output": true },
        });
        let pid = wait::until("the agent", || self.agent(&exec).ok())["return"]["pid"].clone();
        let status = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
        wait::until("the command", || self.agent(&status).ok().filter(|said| said["return"]["exited"] == true));
        let all = start.elapsed().as_secs_f64();
        self.virsh(&[&"destroy".into(), &"peer".into()])?;
        Ok((restored, all))
    }

    fn agent(&self, command: &Value) -> io::Result<Value> {
        let said = self.virsh(&[&"qemu-agent-command".into(), &"peer".into(), &command.to_string().into()])?;
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    fn virsh(&self, args: &[&PathBuf]) -> io::Result<Output> {
        let done = nobody(&self.dir, "virsh").args(["-q", "-c", "qemu:///session"]).args(args).output()?;
        if done.status.success() {
            Ok(done)
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
        }
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // Often it is off by now.
        let _ = self.virsh(&[&"destroy".into(), &"peer".into()]);
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

fn nobody(dir: &Path, program: &str) -> Command {
    let mut command = if rustix::process::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}")).args(["--clear-groups", program]);
        command
    } else {
        Command::new(program)
    };
    command
        .current_dir("/")
        .env("HOME", dir)
        .env("XDG_RUNTIME_DIR", dir.join("run"))
        .env("XDG_CONFIG_HOME", dir.join("conf"))
        .env("XDG_CACHE_HOME", dir.join("cache"));
    command
}

fn xml(image: &Image, dir: &Path) -> String {
    let (machine, cpu) =
        (image.machine.split(',').next().unwrap_or_default(), image.cpu.split(',').next().unwrap_or_default());
    let (kernel, initrd) = (dir.join("image/vmlinux"), dir.join("image/root.cpio"));
    let channel = |name: &str| {
        let path = dir.join("run").join(name);
        format!(
            "<channel type='unix'><source mode='bind' path='{}'/><target type='virtio' name='{name}'/></channel>",
            path.display()
        )
    };
    format!(
        "<domain type='qemu'><name>peer</name><memory unit='MiB'>{}</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>\
         <cmdline>{}</cmdline></os><features><acpi/></features>\
         <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{cpu}</model></cpu>\
         <clock offset='utc'><timer name='hpet' present='no'/></clock>\
         <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='virtio-serial' index='0'/>\
         <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>{}{}\
         <memballoon model='none'/></devices></domain>\n",
        image.memory_mib,
        kernel.display(),
        initrd.display(),
        image.cmdline,
        channel("org.vmtask.files.0"),
        channel("org.vmtask.events.0"),
    )
}
