#![allow(clippy::unwrap_used)]
use super::*;
use crate::store::list;
use crate::testing::Fixture;
use crate::{BUILDABLE, hash};

#[test]
fn what_was_exported_comes_back_the_same_with_each_file_once() {
    let fixture = Fixture::new();
    let platforms = BUILDABLE.map(|name| fixture.build(name));
    let target = fixture.path().join("all.tar.xz");
    let size = export(&platforms, &target).unwrap();
    assert_eq!(size, fs::metadata(&target).unwrap().len());
    let bytes = fs::read(&target).unwrap();
    assert!(export(&platforms, &target).unwrap_err().to_string().contains("that name already"));
    let again = fixture.path().join("again.tar.xz");
    export(&platforms, &again).unwrap();
    assert_eq!(fs::read(&again).unwrap(), bytes, "the same bytes each time");

    let mut tar = tar::Archive::new(XzReader::new(&bytes[..], false));
    assert_eq!(tar.entries().unwrap().count(), 4, "two definitions, and one kernel and one root for both");

    let store = fixture.path().join("imported");
    let imported = import(&target, &store).unwrap();
    for (theirs, ours) in imported.iter().zip(&platforms) {
        assert_eq!(theirs.definition(), ours.definition());
        theirs.verify().unwrap();
    }
    // Over what is there, too; and nothing else is left in the store.
    import(&target, &store).unwrap();
    assert_eq!(list(std::slice::from_ref(&store)).unwrap().len(), 2);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 3, "two platforms and the lock");
}

#[test]
fn a_damaged_platform_is_not_exported() {
    let fixture = Fixture::new();
    let platform = fixture.build(BUILDABLE[0]);
    let size = platform.definition().files.entries[0].size;
    fs::write(platform.kernel(), vec![0; usize::try_from(size).unwrap()]).unwrap();
    let target = fixture.path().join("x.tar.xz");
    assert!(matches!(export(&[platform], &target), Err(PlatformError::Corrupt { .. })));
    assert!(!target.exists());
}

/// One entry of a hostile archive.
struct Entry<'a>(&'a str, tar::EntryType, &'a [u8]);

fn write_archive(path: &Path, entries: &[Entry<'_>]) {
    let xz = XzWriter::new(File::create(path).unwrap(), XzOptions::with_preset(0)).unwrap();
    let mut tar = tar::Builder::new(xz);
    for Entry(name, kind, bytes) in entries {
        let mut header = tar::Header::new_old();
        // Past the builder's own checks of names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..6].copy_from_slice(b"target");
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn an_archive_that_is_not_in_order_is_refused_and_nothing_is_left() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let fixture = Fixture::new();
    let platform = fixture.build(BUILDABLE[0]);
    let xml = fs::read(platform.dir().join(DEFINITION_FILE)).unwrap();
    let (kernel, root) = (fs::read(platform.kernel()).unwrap(), fs::read(platform.root()).unwrap());
    let in_files = |bytes: &[u8]| format!("{FILES_DIR}/{}", hash::sha256_hex(bytes));
    let (kernel_name, root_name) = (in_files(&kernel), in_files(&root));
    let definition_name = format!("{}/{DEFINITION_FILE}", BUILDABLE[0]);
    let definition = || Entry(&definition_name, Regular, &xml);
    let files = || [Entry(&kernel_name, Regular, &kernel), Entry(&root_name, Regular, &root)];
    let wrong = vec![b'x'; kernel.len()];

    let cases: Vec<(&str, Vec<Entry<'_>>)> = vec![
        ("no platform", vec![]),
        ("is missing", vec![definition(), Entry(&root_name, Regular, &root)]),
        ("no definition in it names", files().into()),
        ("nothing that belongs", vec![definition(), Entry("../escape", Regular, b"x")]),
        ("nothing that belongs", vec![definition(), Entry("/etc/passwd", Regular, b"x")]),
        ("names 'files/../../escape'", vec![definition(), Entry("files/../../escape", Regular, b"x")]),
        ("defines", vec![Entry("../platform.xml", Regular, &xml)]),
        ("defines", vec![Entry("other/platform.xml", Regular, &xml)]),
        ("not a regular file", vec![definition(), Entry(&kernel_name, Symlink, b"")]),
        ("not a regular file", vec![definition(), Entry(&kernel_name, Link, b"")]),
        ("not a regular file", vec![definition(), Entry(&kernel_name, Char, b"")]),
        ("bytes, not", vec![definition(), Entry(&kernel_name, Regular, b"short")]),
        ("has SHA-256", vec![definition(), Entry(&kernel_name, Regular, &wrong)]),
        ("comes twice", vec![definition(), files().into_iter().next().unwrap(), files().into_iter().next().unwrap()]),
        ("two definitions", vec![definition(), definition()]),
    ];
    let archive = fixture.path().join("hostile.tar.xz");
    let store = fixture.path().join("imported");
    for (cause, entries) in cases {
        write_archive(&archive, &entries);
        let error = import(&archive, &store).unwrap_err().to_string();
        assert!(error.contains(cause) && error.contains("nothing was imported"), "{cause}: {error}");
        assert_eq!(fs::read_dir(&store).unwrap().count(), 1, "{cause}: only the store's lock");
        assert!(!fixture.path().join("escape").exists());
    }
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let fixture = Fixture::new();
    let platform = fixture.build(BUILDABLE[0]);
    let archive = fixture.path().join("x.tar.xz");
    export(&[platform], &archive).unwrap();
    let bytes = fs::read(&archive).unwrap();
    let store = fixture.path().join("imported");
    for part in 0..8 {
        fs::write(&archive, &bytes[..bytes.len() * part / 8]).unwrap();
        assert!(matches!(import(&archive, &store), Err(PlatformError::Archive { .. })), "{part} eighths");
    }
    fs::write(&archive, "not xz").unwrap();
    assert!(matches!(import(&archive, &store), Err(PlatformError::Archive { .. })));
}
