//! The ways in which the demonstration's one C source is compiled and run on this computer.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::host::packages::{Need, System};
use crate::host::{find_program, process};

/// The one source.
pub(crate) const SOURCE: &str = include_str!("../../demo/leibniz.c");

/// How the paper's binary was made: gcc 4 on openSUSE 11 compiled for an i586 and its x87, and -O3 was asked for.
pub(crate) const PAPER: Variant =
    Variant { compiler: Compiler::Gcc, flags: "-m32 -march=i586 -mfpmath=387 -O3 -static" };

/// How many terms the paper sums.
pub(crate) const TERMS: &str = "1000";

/// A compiler and its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) compiler: Compiler,
    pub(crate) flags: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    Gcc,
    Clang,
    MinGw32,
    MinGw64,
}

const fn v(compiler: Compiler, flags: &'static str) -> Variant {
    Variant { compiler, flags }
}

/// All of them, as the table has them.
pub(crate) const ALL: [Variant; 22] = {
    use Compiler::{Clang, Gcc, MinGw32, MinGw64};
    [
        v(Gcc, "-m32 -march=i586 -mfpmath=387 -O0"),
        v(Gcc, "-m32 -march=i586 -mfpmath=387 -O3"),
        v(Gcc, "-m32 -march=i586 -mfpmath=387 -O3 -ffast-math"),
        v(Gcc, "-m32 -march=i586 -mfpmath=387 -O3 -std=c99"),
        v(Gcc, "-m32 -march=i586 -mfpmath=387 -O3 -ffloat-store"),
        v(Gcc, "-m32 -msse2 -mfpmath=sse -O0"),
        v(Gcc, "-m32 -msse2 -mfpmath=sse -O3"),
        v(Gcc, "-m64 -O0"),
        v(Gcc, "-m64 -O3"),
        v(Gcc, "-m64 -O3 -ffast-math"),
        v(Gcc, "-m64 -mfpmath=387 -O3"),
        v(Clang, "-m32 -march=i586 -O0"),
        v(Clang, "-m32 -march=i586 -O3"),
        v(Clang, "-m64 -O0"),
        v(Clang, "-m64 -O3"),
        v(Clang, "-m64 -O3 -ffast-math"),
        v(MinGw32, "-O0"),
        v(MinGw32, "-O3"),
        v(MinGw32, "-O3 -ffloat-store"),
        v(MinGw32, "-O3 -msse2 -mfpmath=sse"),
        v(MinGw64, "-O0"),
        v(MinGw64, "-O3"),
    ]
};

impl Compiler {
    const fn program(self) -> &'static str {
        match self {
            Self::Gcc => "gcc",
            Self::Clang => "clang",
            Self::MinGw32 => "i686-w64-mingw32-gcc",
            Self::MinGw64 => "x86_64-w64-mingw32-gcc",
        }
    }

    const fn need(self) -> Need {
        match self {
            Self::Gcc => Need::Gcc,
            Self::Clang => Need::Clang,
            Self::MinGw32 | Self::MinGw64 => Need::MinGw,
        }
    }

    /// Whether what it makes runs under wine.
    const fn is_foreign(self) -> bool {
        matches!(self, Self::MinGw32 | Self::MinGw64)
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gcc => "gcc",
            Self::Clang => "clang",
            Self::MinGw32 => "MinGW i686",
            Self::MinGw64 => "MinGW x86_64",
        })
    }
}

/// What the program printed: `pi VALUE error ERROR hex HEX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) value: String,
    pub(crate) error: String,
    pub(crate) hex: String,
}

impl Answer {
    /// Of the text that the program printed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let [pi, value, error_is, error, hex_is, hex] = words[..] else {
            return None;
        };
        let numbers = value.parse::<f64>().is_ok() && error.parse::<f64>().is_ok();
        ((pi, error_is, hex_is) == ("pi", "error", "hex") && numbers).then(|| Self {
            value: value.into(),
            error: error.into(),
            hex: hex.into(),
        })
    }
}

/// Why a variant was not run: for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped(pub(crate) String);

impl Variant {
    /// Compiles it into `dir` and says where the program is.
    ///
    /// # Errors
    /// Why not, with the line that installs what is missing.
    pub(crate) fn compile(self, dir: &Path, name: &str) -> Result<PathBuf, Skipped> {
        let need = self.compiler.need();
        let program = self.compiler.program();
        let mend = |need| System::here().line(&[need]);
        if cfg!(not(any(target_arch = "x86", target_arch = "x86_64"))) && !self.compiler.is_foreign() {
            return Err(Skipped("it compiles for x86, and this computer is none".into()));
        }
        let Some(compiler) = find_program(program) else {
            return Err(Skipped(format!("no {program} ({})", mend(need))));
        };
        let source = dir.join("leibniz.c");
        let path = dir.join(if self.compiler.is_foreign() { format!("{name}.exe") } else { name.to_owned() });
        fs::write(&source, SOURCE).map_err(|error| Skipped(format!("cannot write {}: {error}", source.display())))?;
        let mut command = Command::new(compiler);
        command.args(self.flags.split_whitespace()).arg("-o").arg(&path).arg(&source).arg("-lm");
        match process::run(command.env("LC_ALL", "C"), COMPILE) {
            Ok(ended) if ended.status.success() => Ok(path),
            Ok(ended) => {
                let why = ended.complaint();
                // Headers, libraries and start-up code for i686 are what is missing on most 64-bit systems.
                let line = if self.flags.contains("-m32") { mend(Need::Gcc32) } else { mend(need) };
                Err(Skipped(format!("{program} failed: {why} ({line})")))
            }
            Err(error) => Err(Skipped(format!("cannot run {program}: {error}"))),
        }
    }

    /// Compiles and runs it.
    ///
    /// # Errors
    /// Why not, with the line that installs what is missing.
    pub(crate) fn answer(self, dir: &Path, name: &str) -> Result<Answer, Skipped> {
        let runner = if self.compiler.is_foreign() {
            let wine = find_program("wine").or_else(|| find_program("wine64"));
            Some(wine.ok_or_else(|| Skipped(format!("no wine ({})", System::here().line(&[Need::Wine]))))?)
        } else {
            None
        };
        let path = self.compile(dir, name)?;
        let mut command = Command::new(runner.as_ref().unwrap_or(&path));
        if runner.is_some() {
            // A prefix of its own, which goes with the directory, and no window to ask anything in.
            command.arg(&path).env("WINEPREFIX", dir.join("wine")).env("WINEDEBUG", "-all").env_remove("DISPLAY");
        }
        let ended = process::run(command.arg(TERMS), RUN).map_err(|error| self.broken(&error))?;
        Answer::parse(&ended.stdout)
            .filter(|_| ended.status.success())
            .ok_or_else(|| Skipped(format!("it ran and gave no answer: {}", ended.complaint())))
    }

    fn broken(self, error: &io::Error) -> Skipped {
        Skipped(if self.compiler.is_foreign() { format!("wine: {error}") } else { error.to_string() })
    }
}

const COMPILE: Duration = Duration::from_secs(120);
/// wine sets itself up at its first run.
const RUN: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::whole("pi 3.5 error -0.25 hex 0x1.cp+1\n", true)]
    #[case::crlf("pi 3.5 error -0.25 hex 0x1.cp+1\r\n", true)]
    #[case::cut("pi 3.5 error", false)]
    #[case::other("it ran", false)]
    #[case::no_number("pi pi error 0 hex 0", false)]
    #[case::nothing("", false)]
    fn an_answer_is_whole_or_none(#[case] text: &str, #[case] whole: bool) {
        assert_eq!(Answer::parse(text).is_some(), whole);
    }

    #[test]
    fn a_compiler_that_is_missing_or_refuses_is_a_reason_and_not_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let odd = Variant { compiler: Compiler::Gcc, flags: "-fno-such-flag-for-sure" };
        let Skipped(why) = odd.answer(dir.path(), "odd").unwrap_err();
        assert!(why.contains("gcc"), "{why}");
    }
}
