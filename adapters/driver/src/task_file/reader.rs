//! From what was written to a [`TaskSpec`], or to the first thing that is wrong, with its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use vmtask_core::{CheckpointSpec, FileIn, FileOut, Limits, Plan, ProgramSpec, Span, SpecError, TaskDraft, TaskSpec};

use super::TaskFile;
use super::raw::{Every, RawCheckpoint, RawIn, RawLimits, RawOut, RawProgram, RawTask, Size};
use crate::result::RESULT_FILE;

/// Something wrong, and where in the text.
pub(super) struct Bad {
    pub(super) at: Range<usize>,
    pub(super) message: String,
}

impl Bad {
    fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at, message }
    }
}

/// Turns what was written into a [`TaskSpec`], and remembers where each value was.
#[derive(Default)]
pub(super) struct Reader {
    seen: Vec<(&'static str, String, Range<usize>)>,
}

impl Reader {
    pub(super) fn task(mut self, raw: RawTask) -> Result<TaskSpec, Bad> {
        let name = self.keep("name", raw.name);
        let platform = self.keep("platform", raw.platform);
        let at_program = raw.program.path.span();
        let program = self.program(raw.program);
        let mut files_in = Vec::new();
        for file in raw.files_in {
            files_in.push(self.file_in(file, &program.path)?);
        }
        let relative = !program.path.is_empty() && !program.path.starts_with('/');
        if relative && !files_in.iter().any(|f| f.guest == program.path) {
            return Err(Bad::new(
                at_program,
                format!(
                    "program.path {:?} is none of files_in, so it would not be there; add it to [[files_in]], or name a \
                     program of the platform with its absolute path",
                    program.path
                ),
            ));
        }
        let files_out = self.files_out(raw.files_out, &program)?;
        let draft = TaskDraft {
            name,
            platform,
            program,
            files_in,
            files_out,
            checkpoint: checkpoint(raw.checkpoint)?,
            limits: self.limits(raw.limits)?,
        };
        let spec = draft.check().map_err(|error| Bad::new(self.place_of(&error), error.to_string()))?;
        self.check_nesting(&spec)?;
        Ok(spec)
    }

    fn keep(&mut self, what: &'static str, value: Spanned<String>) -> String {
        let span = value.span();
        let value = value.into_inner();
        self.seen.push((what, value.clone(), span));
        value
    }

    fn program(&mut self, raw: RawProgram) -> ProgramSpec {
        let mut env = BTreeMap::new();
        for (name, value) in raw.env {
            // A bad name is reported like a bad value: at the value, whose place is known.
            self.seen.push(("program.env", name.clone(), value.span()));
            env.insert(name, self.keep("program.env", value));
        }
        let mut name = |what, given: Option<Spanned<String>>, default: &str| match given {
            Some(given) => self.keep(what, given),
            None => default.to_owned(),
        };
        let stdout = name("program.stdout", raw.stdout, "stdout.txt");
        let stderr = name("program.stderr", raw.stderr, "stderr.txt");
        ProgramSpec {
            path: self.keep("program.path", raw.path),
            args: (raw.args.into_iter()).map(|arg| self.keep("program.args", arg)).collect(),
            env,
            stdout,
            stderr,
            progress: raw.progress.map(|progress| self.keep("program.progress", progress)),
        }
    }

    fn file_in(&mut self, raw: RawIn, program: &str) -> Result<FileIn, Bad> {
        let at = raw.host.span();
        let host = self.keep("files_in.host", raw.host);
        let guest = match raw.guest {
            Some(guest) => self.keep("files_in.guest", guest),
            None => {
                let name = Path::new(&host).file_name().and_then(|name| name.to_str());
                let Some(name) = name else {
                    return Err(Bad::new(
                        at,
                        format!("files_in.host {host:?} does not end in a file's name; name a file"),
                    ));
                };
                self.keep("files_in.guest", Spanned::new(at, name.to_owned()))
            }
        };
        let is_program = guest == program;
        let executable = raw.executable.as_ref().map_or(is_program, |e| *e.get_ref());
        if let (true, false, Some(given)) = (is_program, executable, &raw.executable) {
            return Err(Bad::new(
                given.span(),
                format!(
                    "{guest:?} is the program (program.path) and must be executable; leave `executable` out or set it to true"
                ),
            ));
        }
        Ok(FileIn { host, guest, executable })
    }

    fn files_out(&mut self, raw: Vec<RawOut>, program: &ProgramSpec) -> Result<Vec<FileOut>, Bad> {
        let mut files = Vec::new();
        for file in raw {
            let at = file.guest.span();
            let guest = self.keep("files_out.guest", file.guest);
            let (at, host) = match file.host {
                Some(host) => (host.span(), self.keep("files_out.host", host)),
                None => {
                    let host = Spanned::new(at.clone(), guest.clone());
                    (at, self.keep("files_out.host", host))
                }
            };
            if host.eq_ignore_ascii_case(RESULT_FILE) {
                return Err(Bad::new(
                    at,
                    format!("files_out.host {host:?} is the name of vmtask's own report; choose another"),
                ));
            }
            files.push(FileOut { guest, host, optional: file.optional });
        }
        // What the program said is kept whatever the task asked for: it explains most failures.
        for (what, stream) in [("program.stdout", &program.stdout), ("program.stderr", &program.stderr)] {
            if files.iter().any(|file| file.guest == *stream) {
                continue;
            }
            if files.iter().any(|file| file.host == *stream) || stream.eq_ignore_ascii_case(RESULT_FILE) {
                let at = self.find("files_out.host", stream);
                let at = at.or_else(|| self.find(what, stream)).unwrap_or(0..0);
                return Err(Bad::new(
                    at,
                    format!(
                        "{stream:?} is where {what} is collected to, so no other result can have that name; rename one of \
                         them, or give {what} a result name of its own in [[files_out]]"
                    ),
                ));
            }
            files.push(FileOut { guest: stream.clone(), host: stream.clone(), optional: true });
        }
        Ok(files)
    }

    fn limits(&mut self, raw: RawLimits) -> Result<Limits, Bad> {
        let default = Limits::default();
        let mut size = |what, given: Option<Spanned<Size>>| {
            given.map(|given| {
                self.seen.push((what, String::new(), given.span()));
                given.into_inner().0
            })
        };
        let memory = size("memory", raw.memory);
        let disk = size("disk", raw.disk);
        let output = size("output", raw.output).unwrap_or(default.output);
        let run_ms = match raw.run {
            Some(run) => time("limits.run", &run, Days(36_500))?,
            None => default.run_ms,
        };
        if let Some(cpus) = &raw.cpus {
            self.seen.push(("cpus", String::new(), cpus.span()));
        }
        Ok(Limits { memory, cpus: raw.cpus.map_or(default.cpus, Spanned::into_inner), disk, run_ms, output })
    }

    /// A file cannot be in a directory that is itself a file.
    fn check_nesting(&self, spec: &TaskSpec) -> Result<(), Bad> {
        let ins: Vec<_> = spec.files_in.iter().map(|file| &file.guest).collect();
        let outs: Vec<_> = spec.files_out.iter().map(|file| &file.host).collect();
        for (what, paths) in [("files_in.guest", ins), ("files_out.host", outs)] {
            for inner in &paths {
                let is_above =
                    |outer: &&&String| inner.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'));
                if let Some(outer) = paths.iter().find(is_above) {
                    return Err(Bad::new(
                        self.find(what, inner).unwrap_or(0..0),
                        format!(
                            "{what} {inner:?} is below {outer:?}, which is a file and cannot be a directory as well; rename \
                             one of them"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn place_of(&self, error: &SpecError) -> Range<usize> {
        let (what, value) = match error {
            SpecError::Name { what, name } => (*what, name.as_str()),
            SpecError::Path { what, path, .. } | SpecError::Twice { what, path } => (*what, path.as_str()),
            SpecError::NoProgram => ("program.path", ""),
            SpecError::Argument { what, value, .. } => (*what, value.as_str()),
            SpecError::Limit { what, .. } => (*what, ""),
        };
        self.find(what, value).unwrap_or(0..0)
    }

    /// The last place of this value: of two of the same name the second is the one too many.
    fn find(&self, what: &str, value: &str) -> Option<Range<usize>> {
        self.seen.iter().rfind(|(seen_what, seen, _)| *seen_what == what && seen == value).map(|(_, _, at)| at.clone())
    }
}

fn checkpoint(raw: RawCheckpoint) -> Result<Option<CheckpointSpec>, Bad> {
    let keep = match &raw.keep {
        None => TaskFile::CHECKPOINT_KEEP,
        Some(keep) if (1..=Plan::MAX_KEEP).contains(keep.get_ref()) => *keep.get_ref(),
        Some(keep) => {
            return Err(Bad::new(
                keep.span(),
                format!("checkpoint.keep is {}; it must be from 1 to {}", keep.get_ref(), Plan::MAX_KEEP),
            ));
        }
    };
    let every = match raw.every {
        None => Some(TaskFile::CHECKPOINT_EVERY),
        Some(every) => {
            // What a Span can hold.
            time("checkpoint.every", &every, Days(49))?
                .map(|ms| Span::from_millis(u32::try_from(ms).unwrap_or(u32::MAX)))
        }
    };
    Ok(every.map(|every| CheckpointSpec { every, keep }))
}

/// Milliseconds from 1 to `longest`, or `None` for "off".
fn time(what: &str, given: &Spanned<Every>, longest: Days) -> Result<Option<u64>, Bad> {
    let Every::Time(time) = *given.get_ref() else {
        return Ok(None);
    };
    let most = Duration::from_secs(longest.0 * 24 * 3600);
    if (Duration::from_millis(1)..=most).contains(&time) {
        return Ok(u64::try_from(time.as_millis()).ok());
    }
    Err(Bad::new(
        given.span(),
        format!(
            "{what} is {}; it must be from 1ms to {} days, or \"off\" for none",
            humantime::format_duration(time),
            longest.0
        ),
    ))
}

#[derive(Clone, Copy)]
struct Days(u64);

/// What to do about an error of the TOML reader that does not say so itself.
pub(super) fn way_out(message: &str) -> &'static str {
    if message.starts_with("missing field") {
        "; add it"
    } else if message.starts_with("duplicate key") {
        "; remove one of the two"
    } else if message.ends_with("expected a sequence") {
        "; put it in brackets: [\"...\"]"
    } else {
        ""
    }
}
