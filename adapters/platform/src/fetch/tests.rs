#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::Fixture;

#[test]
fn mirrors_are_read_from_both_forms_of_aptss_files() {
    let sources = "Types: deb\n# a remark\nURIs: http://a.example/debian https://b.example/x\nSuites: bookworm\n";
    assert_eq!(mirrors_of_sources(sources), ["http://a.example/debian", "https://b.example/x"]);
    let list = "# deb http://no.example x y\ndeb http://c.example/debian bookworm main\n\
                deb [arch=amd64 signed-by=/k] https://d.example/ bookworm main\ndeb cdrom:[x]/ bookworm main\n\
                deb-src http://e.example/ bookworm main\n";
    assert_eq!(mirrors_of_list(list), ["http://c.example/debian", "https://d.example/"]);
}

#[test]
fn a_package_comes_from_a_mirror_once_and_then_from_the_cache() {
    let fixture = Fixture::new();
    let package = &fixture.lock.packages[1];
    let cache = fixture.path().join("cache");
    let absent = format!("file:{}", fixture.path().join("absent").display());
    let present = format!("file:{}", fixture.path().display());
    let mirrors = [absent, present];
    let sources = Sources { debs: None, cache: &cache, mirrors: &mirrors };
    let path = sources.fetch(package).unwrap();
    fs::remove_dir_all(fixture.debs()).unwrap();
    assert_eq!(sources.fetch(package).unwrap(), path, "from the cache");

    fs::write(&path, "damaged").unwrap();
    let error = sources.fetch(package).unwrap_err().to_string();
    assert!(error.contains("could not be had") && error.contains("--update-lock"), "{error}");
}

#[test]
fn a_mirror_with_other_bytes_is_not_believed() {
    let fixture = Fixture::new();
    let package = &fixture.lock.packages[1];
    fs::write(fixture.debs().join(package.file_name()), "something else").unwrap();
    let cache = fixture.path().join("cache");
    let mirrors = [format!("file:{}", fixture.path().display())];
    let sources = Sources { debs: None, cache: &cache, mirrors: &mirrors };
    assert!(matches!(sources.fetch(package), Err(PlatformError::NotServed { .. })));
    assert!(!cache.join(format!("{}.deb", package.sha256)).exists());
}

#[test]
fn a_directory_of_packages_is_searched_by_name_and_trusted_by_hash() {
    let fixture = Fixture::new();
    let package = &fixture.lock.packages[1];
    let debs = fixture.debs();
    let sources = Sources { debs: Some(&debs), cache: Path::new("/nonexistent"), mirrors: &[] };
    // apt's way of writing an epoch into a file name.
    let renamed = debs.join(format!("{}_1%3a1.0_{}.deb", package.name, package.architecture));
    fs::rename(debs.join(package.file_name()), &renamed).unwrap();
    assert_eq!(sources.fetch(package).unwrap(), renamed);
    fs::write(&renamed, "something else").unwrap();
    assert!(matches!(sources.fetch(package), Err(PlatformError::WrongPackage { path, .. }) if path == renamed));
    fs::remove_file(&renamed).unwrap();
    assert!(matches!(sources.fetch(package), Err(PlatformError::NotServed { .. })));
}
