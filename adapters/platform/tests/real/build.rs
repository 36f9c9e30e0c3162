//! Building from the distribution's packages.

use vmtask_platform::{Role, export, find, import};

use crate::{build_in, platforms, skip};

#[test]
fn two_builds_give_the_same_bytes() {
    if skip("two_builds_give_the_same_bytes") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let again = build_in(dir.path(), "x86_64-pc-linux-gnu");
    assert_eq!(again.definition(), platforms()[0].definition());
}

#[test]
fn both_platforms_share_one_image() {
    if skip("both_platforms_share_one_image") {
        return;
    }
    let [wide, narrow] = platforms() else { panic!("two platforms") };
    for role in [Role::Kernel, Role::Root] {
        assert_eq!(wide.definition().file(role), narrow.definition().file(role));
    }
    assert_ne!(wide.fingerprint(), narrow.fingerprint(), "uname -m differs, so results may");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |path| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(wide.root()), inode(narrow.root()), "stored once");
    }
}

#[test]
fn the_whole_compressed_is_at_most_15_mb_and_comes_back_the_same() {
    if skip("the_whole_compressed_is_at_most_15_mb_and_comes_back_the_same") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("platforms.tar.xz");
    let size = export(platforms(), &archive).unwrap();
    eprintln!("both platforms, exported: {size} bytes");
    assert!(size <= 15_000_000, "{size} bytes");

    let store = dir.path().join("store");
    let imported = import(&archive, &store).unwrap();
    for (theirs, ours) in imported.iter().zip(platforms()) {
        assert_eq!(theirs.definition(), ours.definition());
        assert_eq!(find(ours.name(), std::slice::from_ref(&store)).unwrap(), *theirs);
    }
}
