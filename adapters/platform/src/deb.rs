//! Debian packages, read without dpkg: an `ar` archive with an xz-compressed tar in it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use lzma_rust2::XzReader;

use crate::error::PlatformError;

/// Something that a package holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    File(Vec<u8>),
    Link(String),
}

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_HEADER: usize = 60;

/// Reads the files and links that `wanted` says yes to. Paths have neither `./` nor `/` before them, and are those of a
/// system on which `/bin`, `/sbin`, `/lib` and `/lib64` are links into `/usr`, whichever the package was made for.
pub(crate) fn read(
    package: &str,
    deb: impl Read,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Item>, PlatformError> {
    let bad = |cause: String| PlatformError::BadPackage { package: package.to_owned(), cause };
    let data = data_member(deb).map_err(|error| bad(error.to_string()))?;
    read_tar(data, wanted).map_err(|error| bad(format!("cannot read its data.tar.xz: {error}")))
}

/// Skips to the member `data.tar.xz`.
fn data_member(mut deb: impl Read) -> io::Result<impl Read> {
    let mut magic = [0; AR_MAGIC.len()];
    deb.read_exact(&mut magic)?;
    if &magic != AR_MAGIC {
        return Err(io::Error::other("not a Debian package"));
    }
    loop {
        let mut header = [0; AR_HEADER];
        deb.read_exact(&mut header).map_err(|_| io::Error::other("no data.tar.xz in it"))?;
        let field = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let (name, size) = (field(0..16), field(48..58));
        let size: u64 = size.parse().map_err(|_| io::Error::other("a damaged member header"))?;
        match name.trim_end_matches('/') {
            "data.tar.xz" => return Ok(XzReader::new(deb.take(size), false)),
            other if other.starts_with("data.tar") => {
                return Err(io::Error::other(format!("its data is {other}, and only data.tar.xz can be read")));
            }
            // Members start at even offsets.
            _ => io::copy(&mut deb.by_ref().take(size + size % 2), &mut io::sink())?,
        };
    }
}

fn read_tar(data: impl Read, wanted: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, Item>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(data).entries()? {
        let mut entry = entry?;
        let Some(path) = entry.path()?.to_str().map(usr_merged) else { continue };
        if !wanted(&path) {
            continue;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                found.insert(path, Item::File(bytes));
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name()?.and_then(|target| target.to_str().map(str::to_owned));
                found.insert(path, Item::Link(target.unwrap_or_default()));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn usr_merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_start_matches('/');
    match path.split('/').next() {
        Some("bin" | "sbin" | "lib" | "lib64") => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    /// A package with these files (content) and links (target after `->`).
    pub(crate) fn make_deb(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            if let Some(target) = bytes.strip_prefix(b"->") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, std::str::from_utf8(target).unwrap()).unwrap();
            } else {
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, *bytes).unwrap();
            }
        }
        let options = lzma_rust2::XzOptions::with_preset(0);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(&tar.into_inner().unwrap()).unwrap();
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", &xz.finish().unwrap())])
    }

    pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = AR_MAGIC.to_vec();
        for (name, bytes) in members {
            out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes());
            out.extend(*bytes);
            out.extend((bytes.len() % 2 == 1).then_some(b'\n'));
        }
        out
    }

    #[test]
    fn a_package_gives_the_wanted_files_under_usr() {
        let deb =
            make_deb(&[("./lib/a.so.1", b"->a.so.1.2"), ("./lib/a.so.1.2", b"code"), ("./usr/share/doc/x", b"no")]);
        let found = read("a", &deb[..], |path| path.starts_with("usr/lib/")).unwrap();
        let expected = [
            ("usr/lib/a.so.1".to_owned(), Item::Link("a.so.1.2".to_owned())),
            ("usr/lib/a.so.1.2".to_owned(), Item::File(b"code".to_vec())),
        ];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[rstest::rstest]
    #[case::not_a_package(b"hello, world".to_vec(), "not a Debian package")]
    #[case::other_compression(ar(&[("data.tar.zst", b"")]), "data.tar.zst")]
    #[case::no_data(ar(&[("debian-binary", b"2.0\n")]), "no data.tar.xz")]
    #[case::damaged(ar(&[("data.tar.xz", b"not xz at all")]), "cannot read its data.tar.xz")]
    fn a_package_that_cannot_be_read_says_why(#[case] deb: Vec<u8>, #[case] cause: &str) {
        let error = read("libx", &deb[..], |_| true).unwrap_err().to_string();
        assert!(error.contains("libx") && error.contains(cause), "{error}");
    }
}
