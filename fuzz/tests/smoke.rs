//! Every file of the corpora, and some thousand mutations of them, on stable and within seconds.
//!
//! What fails is kept: the message says in which file. With a name that says what it shows, it belongs in the corpus.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use rstest::rstest;
use vmtask_fuzz::{TARGETS, Target};
use vmtask_sim::Prng;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs one input; keeps it if it fails.
fn run(name: &str, target: Target, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.failed"));
        fs::write(&kept, bytes).unwrap();
        eprint_kept(&kept);
        resume_unwind(panic);
    }
}

#[allow(clippy::print_stderr, reason = "it is what a failing test says")]
fn eprint_kept(path: &Path) {
    eprintln!("what failed is kept in {}", path.display());
}

/// One to four changes of the kind that a fuzzer makes.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], prng: &mut Prng) {
    for _ in 0..=prng.below(4) {
        let mut place = |len: usize| usize::try_from(prng.below(len as u64 + 1)).unwrap();
        let (at, to) = (place(bytes.len()), place(bytes.len()));
        let (from, until) = (at.min(to), at.max(to));
        let start = place(other.len());
        let value = prng.next_u64().to_le_bytes()[0];
        match prng.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << (value & 7),
            1 if at < bytes.len() => bytes[at] = value,
            2 => bytes.insert(at, value),
            3 => drop(bytes.drain(from..until.min(from + 20))),
            4 => bytes.truncate(at),
            5 => {
                let again = bytes[from..until.min(from + 200)].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[start..]);
            }
        }
    }
}

/// So many mutations of each target's whole corpus: the hostile peers take threads, sockets and patience.
#[rstest]
#[case("machine", 3000)]
#[case("system", 3000)]
#[case("journal", 3000)]
#[case("task_toml", 3000)]
#[case("platform_xml", 3000)]
#[case("plan", 3000)]
#[cfg_attr(target_os = "linux", case("agent", 60))]
#[cfg_attr(target_os = "linux", case("qmp", 100))]
fn the_corpus_and_its_mutations_break_no_promise(#[case] name: &str, #[case] mutations: u64) {
    let (_, target) = *TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    for bytes in &corpus {
        run(name, target, bytes);
    }
    let mut prng = Prng::new(1);
    let any = |prng: &mut Prng| &corpus[usize::try_from(prng.below(corpus.len() as u64)).unwrap()];
    for _ in 0..mutations {
        let mut bytes = any(&mut prng).clone();
        let other = any(&mut prng);
        mutate(&mut bytes, other, &mut prng);
        run(name, target, &bytes);
    }
}

#[test]
fn every_target_has_a_corpus_and_a_wrapper_for_cargo_fuzz() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(here.join("fuzz_targets/Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(!corpus(name).is_empty(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{name}.rs\"\n")), "{name}");
        let wrapper = fs::read_to_string(here.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(wrapper.contains(&format!("vmtask_fuzz::{name}(bytes)")), "{wrapper}");
    }
    let wrapped = manifest.matches("[[bin]]").count();
    assert!(wrapped == TARGETS.len() || cfg!(not(target_os = "linux")), "{wrapped} wrappers");
}
