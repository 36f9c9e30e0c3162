//! What a loss of power could leave behind.
//!
//! ```text
//!   writer --> RecordingStorage --> the real files
//!                    |
//!                    log: create write sync rename ... MARK(7) ... sync_dir     for every prefix of it, and for every
//!                                                                               choice of what survived that was not
//!                                                                               flushed: a Crash, to be laid out in a
//!                                                                               directory and recovered from
//! ```
//!
//! The model is harsher than any one file system: changes of names that were not flushed survive in any selection (not
//! only the first few), independently of whether the content of the files survived; content that was not flushed is
//! gone, cut off, zeroed, or there. What it takes for granted: flushed is flushed, and one rename is one step.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{Access, Look, RealStorage, Storage, StorageFile, parent};

type Node = usize;
const ROOT: Node = 0;

/// Storage below one directory that does what it is told and remembers it. What is there when it is made counts as
/// durable, and only what goes through it is seen, but for files made durable by [`Storage::sync_file`].
#[derive(Clone, Debug)]
pub struct RecordingStorage {
    root: PathBuf,
    tape: Arc<Mutex<Tape>>,
}

#[derive(Debug, Default)]
struct Tape {
    log: Vec<Step>,
    /// The names as they are now.
    names: Names,
    is_dir: Vec<bool>,
    /// What was there at the beginning.
    initial: Vec<(Names, BTreeMap<Node, Vec<u8>>)>,
}

type Names = BTreeMap<(Node, OsString), Node>;

#[derive(Clone, Debug)]
enum Step {
    /// One change of names, indivisible.
    Names(Change),
    Truncate(Node),
    Write(Node, Vec<u8>),
    Sync(Node),
    SyncDir(Node),
    Mark(u64),
}

#[derive(Clone, Debug)]
struct Change {
    text: String,
    remove: Option<((Node, OsString), Node)>,
    add: Option<((Node, OsString), Node)>,
}

/// One state that a loss of power could leave behind.
#[derive(Clone, Debug)]
pub struct Crash {
    /// How many steps had been done.
    pub steps: usize,
    /// The marks among them, oldest first: what had been promised.
    pub marks: Vec<u64>,
    /// What was lost, for the message of a failed test.
    pub story: String,
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl RecordingStorage {
    /// Records what happens below `root`, which must be there.
    ///
    /// # Errors
    /// If what is there already cannot be read.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut tape = Tape { is_dir: vec![true], ..Tape::default() };
        let mut contents = BTreeMap::new();
        tape.take_in(root, ROOT, &mut contents)?;
        tape.initial.push((tape.names.clone(), contents));
        Ok(Self { root: root.to_owned(), tape: Arc::new(Mutex::new(tape)) })
    }

    /// Notes that something was promised at this point.
    pub fn mark(&self, promise: u64) {
        self.tape().log.push(Step::Mark(promise));
    }

    /// How many steps have been recorded.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.tape().log.len()
    }

    /// Every state that a loss of power at any point could have left behind; each once for each set of marks.
    #[must_use]
    pub fn crashes(&self) -> Vec<Crash> {
        let tape = self.tape();
        let mut seen = BTreeSet::new();
        let mut crashes = Vec::new();
        for steps in 0..=tape.log.len() {
            for crash in tape.crashes_after(steps) {
                if seen.insert((crash.marks.clone(), crash.dirs.clone(), crash.files.clone())) {
                    crashes.push(crash);
                }
            }
        }
        crashes
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that a path is in, and its name there.
    fn place(&self, tape: &Tape, path: &Path) -> io::Result<(Node, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(tape, parent(path))?, name.to_owned()))
    }

    fn dir(&self, tape: &Tape, path: &Path) -> io::Result<Node> {
        let below = path.strip_prefix(&self.root).map_err(|_| {
            io::Error::other(format!("{} is not below the recorded {}", path.display(), self.root.display()))
        })?;
        let missing = || io::Error::other(format!("{} was not made through the recording", path.display()));
        below.components().try_fold(ROOT, |dir, part| {
            tape.names.get(&(dir, part.as_os_str().to_owned())).copied().ok_or_else(missing)
        })
    }
}

impl Storage for RecordingStorage {
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut tape = self.tape();
        let place = self.place(&tape, path)?;
        let file = RealStorage.create(path)?;
        let node = match tape.names.get(&place) {
            Some(&node) => {
                tape.log.push(Step::Truncate(node));
                node
            }
            None => tape.add(place, false, format!("create {}", path.display())),
        };
        Ok(Box::new(RecordedFile { file, node, storage: self.clone() }))
    }

    fn create_dir(&self, path: &Path, access: Access) -> io::Result<()> {
        let mut tape = self.tape();
        let place = self.place(&tape, path)?;
        RealStorage.create_dir(path, access)?;
        tape.add(place, true, format!("create directory {}", path.display()));
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealStorage.read(path)
    }

    fn entries(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealStorage.entries(dir)
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        RealStorage.look(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tape = self.tape();
        let (old, new) = (self.place(&tape, from)?, self.place(&tape, to)?);
        RealStorage.rename(from, to)?;
        let node = *tape.names.get(&old).ok_or_else(|| io::Error::other("renamed a file that was not recorded"))?;
        let text = format!("rename {} to {}", from.display(), to.display());
        tape.change(Change { text, remove: Some((old, node)), add: Some((new, node)) });
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.tape();
        let place = self.place(&tape, path)?;
        RealStorage.unlink(path)?;
        if let Some(&node) = tape.names.get(&place) {
            tape.change(Change { text: format!("unlink {}", path.display()), remove: Some((place, node)), add: None });
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.tape();
        let place = self.place(&tape, path)?;
        RealStorage.remove_dir(path)?;
        if let Some(&node) = tape.names.get(&place) {
            let text = format!("remove directory {}", path.display());
            tape.change(Change { text, remove: Some((place, node)), add: None });
        }
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.tape();
        let place = self.place(&tape, path)?;
        RealStorage.sync_file(path)?;
        let content = RealStorage.read(path)?;
        let node = match tape.names.get(&place) {
            Some(&node) => node,
            None => tape.add(place, false, format!("{} appears", path.display())),
        };
        tape.log.extend([Step::Truncate(node), Step::Write(node, content), Step::Sync(node)]);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut tape = self.tape();
        RealStorage.sync_dir(dir)?;
        // Flushing what is above the recorded directory makes nothing in it durable.
        if let Ok(node) = self.dir(&tape, dir) {
            tape.log.push(Step::SyncDir(node));
        }
        Ok(())
    }
}

struct RecordedFile {
    file: Box<dyn StorageFile>,
    node: Node,
    storage: RecordingStorage,
}

impl Write for RecordedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut tape = self.storage.tape();
        let count = self.file.write(bytes)?;
        tape.log.push(Step::Write(self.node, bytes[..count].to_vec()));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl StorageFile for RecordedFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut tape = self.storage.tape();
        self.file.sync()?;
        tape.log.push(Step::Sync(self.node));
        Ok(())
    }
}

/// How the content that was not flushed came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unflushed {
    Gone,
    CutOff,
    Zeroed,
    There,
}

impl Unflushed {
    const ALL: [Self; 4] = [Self::Gone, Self::CutOff, Self::Zeroed, Self::There];
}

#[derive(Clone, Debug, Default)]
struct Content {
    flushed: Vec<u8>,
    now: Vec<u8>,
    dirty: bool,
}

impl Content {
    fn survived(&self, how: Unflushed) -> Vec<u8> {
        let keep = if self.now.starts_with(&self.flushed) { self.flushed.len() } else { 0 };
        match how {
            _ if !self.dirty => self.flushed.clone(),
            Unflushed::Gone => self.flushed.clone(),
            Unflushed::CutOff => self.now[..keep + (self.now.len() - keep) / 2].to_vec(),
            Unflushed::Zeroed => {
                let mut content = self.now.clone();
                content[keep..].fill(0);
                content
            }
            Unflushed::There => self.now.clone(),
        }
    }
}

impl Tape {
    fn take_in(&mut self, dir: &Path, node: Node, contents: &mut BTreeMap<Node, Vec<u8>>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let child = self.is_dir.len();
            self.is_dir.push(is_dir);
            self.names.insert((node, entry.file_name()), child);
            if is_dir {
                self.take_in(&entry.path(), child, contents)?;
            } else {
                contents.insert(child, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    fn add(&mut self, place: (Node, OsString), is_dir: bool, text: String) -> Node {
        let node = self.is_dir.len();
        self.is_dir.push(is_dir);
        self.change(Change { text, remove: None, add: Some((place, node)) });
        node
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.log.push(Step::Names(change));
    }

    fn crashes_after(&self, steps: usize) -> Vec<Crash> {
        let (mut names, initial) = self.initial.first().cloned().unwrap_or_default();
        let mut contents: BTreeMap<Node, Content> = initial
            .into_iter()
            .map(|(node, bytes)| (node, Content { now: bytes.clone(), flushed: bytes, dirty: false }))
            .collect();
        let mut marks = Vec::new();
        // In order; a change that is durable stays among them as long as an earlier one is not, so that they are applied
        // in the order in which they were made.
        let mut changes: Vec<(&Change, BTreeSet<Node>)> = Vec::new();
        for step in &self.log[..steps] {
            match step {
                Step::Names(change) => changes.push((change, change.dirs())),
                Step::Truncate(node) => {
                    let content = contents.entry(*node).or_default();
                    content.now.clear();
                    content.dirty = true;
                }
                Step::Write(node, bytes) => {
                    let content = contents.entry(*node).or_default();
                    content.now.extend_from_slice(bytes);
                    content.dirty = true;
                }
                Step::Sync(node) => {
                    let content = contents.entry(*node).or_default();
                    content.flushed.clone_from(&content.now);
                    content.dirty = false;
                }
                Step::SyncDir(dir) => {
                    for (_, unflushed) in &mut changes {
                        unflushed.remove(dir);
                    }
                    let durable = changes.iter().take_while(|(_, unflushed)| unflushed.is_empty()).count();
                    changes.drain(..durable).for_each(|(change, _)| change.apply(&mut names));
                }
                Step::Mark(mark) => marks.push(*mark),
            }
        }
        let pending: Vec<_> = changes.iter().filter(|(_, unflushed)| !unflushed.is_empty()).collect();
        let hows: &[_] =
            if contents.values().any(|content| content.dirty) { &Unflushed::ALL } else { &[Unflushed::There] };
        let mut crashes = Vec::new();
        for survivors in selections(pending.len()) {
            let mut names = names.clone();
            let mut lost = Vec::new();
            let mut next_pending = 0;
            for (change, unflushed) in &changes {
                let survives = unflushed.is_empty() || {
                    next_pending += 1;
                    survivors[next_pending - 1]
                };
                if survives {
                    change.apply(&mut names);
                } else {
                    lost.push(change.text.as_str());
                }
            }
            for &how in hows {
                let mut crash = Crash {
                    steps,
                    marks: marks.clone(),
                    story: format!("after {steps} steps; unflushed content: {how:?}; lost: [{}]", lost.join(", ")),
                    dirs: BTreeSet::new(),
                    files: BTreeMap::new(),
                };
                self.collect(&names, &contents, how, ROOT, Path::new(""), &mut crash);
                crashes.push(crash);
            }
        }
        crashes
    }

    fn collect(
        &self,
        names: &Names,
        contents: &BTreeMap<Node, Content>,
        how: Unflushed,
        dir: Node,
        at: &Path,
        crash: &mut Crash,
    ) {
        for ((_, name), &node) in names.range((dir, OsString::new())..(dir + 1, OsString::new())) {
            let path = at.join(name);
            if self.is_dir[node] {
                crash.dirs.insert(path.clone());
                self.collect(names, contents, how, node, &path, crash);
            } else {
                let content = contents.get(&node).map(|content| content.survived(how)).unwrap_or_default();
                crash.files.insert(path, content);
            }
        }
    }
}

impl Change {
    fn dirs(&self) -> BTreeSet<Node> {
        self.remove.iter().chain(&self.add).map(|((dir, _), _)| *dir).collect()
    }

    fn apply(&self, names: &mut Names) {
        if let Some((place, node)) = &self.remove
            && names.get(place) == Some(node)
        {
            names.remove(place);
        }
        if let Some((place, node)) = &self.add {
            names.insert(place.clone(), *node);
        }
    }
}

/// Which of `count` changes survive: every selection of a few; of many, those that keep a beginning, lose one, or keep
/// one.
fn selections(count: usize) -> Vec<Vec<bool>> {
    if count <= 6 {
        return (0..1_u32 << count).map(|bits| (0..count).map(|ix| bits >> ix & 1 == 1).collect()).collect();
    }
    let beginnings = (0..=count).map(|kept| (0..count).map(|ix| ix < kept).collect());
    let without_one = (0..count).map(|lost| (0..count).map(|ix| ix != lost).collect());
    let only_one = (0..count).map(|kept| (0..count).map(|ix| ix == kept).collect());
    beginnings.chain(without_one).chain(only_one).collect()
}

impl Crash {
    /// Makes the files as they were left, in `dir`, which must be there and empty.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn lay_out(&self, dir: &Path) -> io::Result<()> {
        // Sorted: what is above comes first.
        for path in &self.dirs {
            fs::create_dir(dir.join(path))?;
        }
        for (path, content) in &self.files {
            fs::write(dir.join(path), content)?;
        }
        Ok(())
    }

    /// The newest promise.
    #[must_use]
    pub fn last_mark(&self) -> Option<u64> {
        self.marks.last().copied()
    }
}
