#![allow(clippy::unwrap_used)]
use std::io::Read;

use super::*;
use crate::testing::Fixture;

/// Every entry of an archive as a line, as `ls -l` might say it.
fn listing(archive: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = archive;
    loop {
        let mut reader = cpio::NewcReader::new(rest).unwrap();
        let entry = reader.entry();
        if entry.is_trailer() {
            return lines;
        }
        assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0), "{}", entry.name());
        let mut line = format!("{:06o} {}", entry.mode(), entry.name());
        if entry.mode() & 0o170_000 == 0o020_000 {
            line.push_str(&format!(" {},{}", entry.rdev_major(), entry.rdev_minor()));
        }
        if entry.mode() & 0o170_000 == 0o120_000 {
            let mut target = String::new();
            reader.read_to_string(&mut target).unwrap();
            line.push_str(&format!(" -> {target}"));
        }
        lines.push(line);
        rest = reader.finish().unwrap();
    }
}

#[test]
fn the_root_has_what_the_guest_needs_in_an_order_that_can_be_unpacked() {
    let fixture = Fixture::new();
    let platform = fixture.build("x86_64-pc-linux-gnu");
    let lines = listing(&std::fs::read(platform.root()).unwrap());
    for expected in [
        "020600 dev/console 5,1",
        "040755 work",
        "041777 tmp",
        "100755 init",
        "100755 usr/lib/vmtask/guest",
        "100644 usr/lib/modules/virtio_console.ko",
        "120777 usr/bin/sh -> busybox",
        "120777 usr/sbin/reboot -> shutdown",
        "120777 lib64 -> usr/lib64",
    ] {
        assert!(lines.iter().any(|line| line == expected), "no '{expected}' in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("usr/bin/reboot")), "busybox's would ask PID 1 to do it");
    assert!(!lines.iter().any(|line| line.contains("usr/share")), "not asked for");

    let paths: Vec<&str> = lines.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    for (index, path) in paths.iter().enumerate() {
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(paths[..index].contains(&parent), "{path} comes before its directory");
        }
    }
}

#[test]
fn every_module_that_init_loads_is_in_the_root() {
    let init = include_str!("../../guest/init");
    let (_, list) = init.split_once("for module in ").unwrap();
    let (list, _) = list.split_once(';').unwrap();
    let ours: Vec<_> = MODULES.iter().map(|module| module.rsplit('/').next().unwrap()).collect();
    assert_eq!(list.split_whitespace().collect::<Vec<_>>(), ours);
}

#[rstest::rstest]
#[case::no_kernel("linux-image-1", &[], "0 of 7 modules")]
#[case::no_library("libudev1", &[("usr/lib/x86_64-linux-gnu/other", "x")], "no file usr/lib/x86_64-linux-gnu/libudev.so.1*")]
fn a_package_without_what_the_recipe_takes_is_refused(
    #[case] package: &str,
    #[case] files: &[(&str, &str)],
    #[case] cause: &str,
) {
    let items = files.iter().map(|(path, text)| ((*path).to_owned(), Item::File(text.as_bytes().to_vec()))).collect();
    let error = Root::default().add_package(package, "amd64", items).unwrap_err().to_string();
    assert!(error.contains(package) && error.contains(cause), "{error}");
}
