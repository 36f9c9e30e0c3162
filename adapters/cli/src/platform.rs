//! `vmtask platform`: building, listing, checking and handing around platforms.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressDrawTarget};
use vmtask_platform::{self as platform, BuildOptions, Listed, Lock, Platform, PlatformError, Progress};

use crate::args::{BuildArgs, PlatformCommand};
use crate::error::Error;
use crate::exit::Exit;
use crate::out;

pub(crate) fn run(command: &PlatformCommand) -> Result<u8, Error> {
    match command {
        PlatformCommand::Build(args) => build_as_told(args),
        PlatformCommand::List => list(),
        PlatformCommand::Verify { names } => verify(names),
        PlatformCommand::Export { file, names } => export(file, names),
        PlatformCommand::Import { file } => import(file),
    }
}

/// Where this user's platforms are.
///
/// # Errors
/// If the environment names no place.
pub(crate) fn store() -> Result<PathBuf, PlatformError> {
    Ok(platform::platforms_dir(&platform::data_dir()?))
}

fn build_as_told(args: &BuildArgs) -> Result<u8, Error> {
    let lock = match (&args.lock, &args.update_lock) {
        (Some(file), _) => Lock::load(file)?,
        (None, Some(file)) => {
            let lock = platform::current_lock()?;
            lock.save(file)?;
            out::note(format_args!("vmtask: wrote {}", file.display()));
            lock
        }
        (None, None) => Lock::built_in()?,
    };
    let cache = platform::data_dir()?.join("cache/packages");
    let options = BuildOptions { lock, debs: args.debs.clone(), cache, mirrors: args.mirrors.clone() };
    let names: Vec<&str> = match &args.names[..] {
        [] => platform::BUILDABLE.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    for name in names {
        built(&build(name, &options)?);
    }
    Ok(0)
}

/// Builds those of the reference platforms that are not there, from the packages that this release pins.
///
/// # Errors
/// If packages cannot be had.
pub(crate) fn build_missing() -> Result<(), Error> {
    let store = store()?;
    for name in platform::BUILDABLE {
        match platform::find(name, std::slice::from_ref(&store)) {
            Ok(_) => continue,
            Err(PlatformError::NotFound { .. }) => {}
            // What is there and damaged is made anew.
            Err(error) => out::note(format_args!("vmtask: {error}; building it anew")),
        }
        let cache = platform::data_dir()?.join("cache/packages");
        let options = BuildOptions { lock: Lock::built_in()?, debs: None, cache, mirrors: Vec::new() };
        built(&build(name, &options)?);
    }
    Ok(())
}

fn build(name: &str, options: &BuildOptions) -> Result<Platform, Error> {
    let bar = out::watched().then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4)));
    out::note(format_args!("vmtask: building platform {name}"));
    let result = platform::build(name, &store()?, options, &mut |progress| {
        if let Some(bar) = &bar {
            bar.set_message(describe(progress));
            bar.tick();
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(result?)
}

fn describe(progress: Progress<'_>) -> String {
    match progress {
        Progress::Fetching { package, index, count, size } => {
            format!("fetching {package} ({}), {} of {count}", ByteSize(size), index + 1)
        }
        Progress::Unpacking { package, index, count } => format!("unpacking {package}, {} of {count}", index + 1),
        Progress::Writing { file, size } => format!("writing {file} ({})", ByteSize(size)),
    }
}

fn built(platform: &Platform) {
    out::note(format_args!(
        "vmtask: platform {} is in {}, fingerprint {}",
        platform.name(),
        platform.dir().display(),
        platform.fingerprint()
    ));
}

fn list() -> Result<u8, Error> {
    let store = store()?;
    let listed = platform::list(std::slice::from_ref(&store))?;
    if listed.is_empty() {
        out::note(format_args!("vmtask: no platforms in {}; `vmtask platform build` makes some", store.display()));
        return Ok(0);
    }
    out::line(table(&listed));
    let mut broken = false;
    for (dir, error) in listed.iter().filter_map(|entry| Some((&entry.dir, entry.platform.as_ref().err()?))) {
        broken = true;
        out::note(format_args!("vmtask: {}: {error}", dir.display()));
    }
    Ok(if broken { Exit::Platform.code() } else { 0 })
}

fn table(listed: &[Listed]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["PLATFORM", "FINGERPRINT", "MEMORY", "FILES", "MACHINE", "CPU"]);
    for platform in listed.iter().filter_map(|entry| entry.platform.as_ref().ok()) {
        let definition = platform.definition();
        let size: u64 = definition.files.entries.iter().map(|file| file.size).sum();
        table.add_row([
            platform.name().to_owned(),
            platform.fingerprint().get(..16).unwrap_or_default().to_owned(),
            ByteSize::mib(definition.guest.memory_mib.into()).to_string(),
            ByteSize(size).to_string(),
            definition.qemu.machine.clone(),
            definition.qemu.cpu.clone(),
        ]);
    }
    table
}

/// The platforms of these names, or all.
fn these(names: &[String]) -> Result<Vec<Platform>, Error> {
    let store = [store()?];
    if names.is_empty() {
        return Ok(platform::list(&store)?.into_iter().map(|entry| entry.platform).collect::<Result<_, _>>()?);
    }
    Ok(names.iter().map(|name| platform::find(name, &store)).collect::<Result<_, _>>()?)
}

fn verify(names: &[String]) -> Result<u8, Error> {
    for platform in these(names)? {
        platform.verify()?;
        out::line(format_args!("{}: every file is as its definition says", platform.name()));
    }
    Ok(0)
}

fn export(file: &Path, names: &[String]) -> Result<u8, Error> {
    let platforms = these(names)?;
    if platforms.is_empty() {
        let name = platform::BUILDABLE.join(", ");
        return Err(PlatformError::NotFound { name, searched: vec![store()?] }.into());
    }
    let size = platform::export(&platforms, file)?;
    let names: Vec<_> = platforms.iter().map(Platform::name).collect();
    out::line(format_args!("{}: {} ({})", file.display(), names.join(", "), ByteSize(size)));
    Ok(0)
}

fn import(file: &Path) -> Result<u8, Error> {
    for platform in platform::import(file, &store()?)? {
        built(&platform);
    }
    Ok(0)
}
