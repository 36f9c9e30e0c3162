//! `vmtask run`.

use std::fs;

use vmtask_core::Outcome;
use vmtask_driver::{News, TaskResult};

use crate::args::RunArgs;
use crate::error::Error;
use crate::exit;
use crate::session::{Session, Wanted};
use crate::setup;
use crate::show::{self, Begin, Show};
use crate::signals::Signals;

pub(crate) fn run(args: &RunArgs) -> Result<u8, Error> {
    let done = carry_out(args);
    if let (Err(error), true) = (&done, args.json) {
        show::json_error(error);
    }
    done
}

fn carry_out(args: &RunArgs) -> Result<u8, Error> {
    if args.setup {
        setup::all(false)?;
    }
    let wanted = Wanted {
        task: &args.task,
        dir: args.dir.as_deref(),
        hypervisor: args.hypervisor,
        vix: &args.vix,
        log: Some(&args.log),
    };
    let mut session = Session::open(&wanted)?;
    let mut show = Show::new(args.json, session.kind.simulated());
    if session.dir.has_started_over() {
        show.note(
            "an earlier run with --start-over was cut short; what it gave up is gone now, and the task begins anew",
        );
    }
    if let Some(notice) = session.journal_notice() {
        show.note(notice);
    }
    if args.start_over {
        session.start_over(|given_up| show.start_over(given_up))?;
    }
    if let Some((outcome, result)) = session.finished()? {
        show.note("this task is finished already; remove its directory to run it anew");
        return Ok(end(&session, &show, outcome, &result));
    }
    let driver = session.driver(|hypervisor| hypervisor)?;
    begin(&session, &show);
    let signals = Signals::listen(driver.handle())?;
    let ended = driver.run(&mut |news: &News<'_>| {
        show.observe(news);
        signals.observe(news);
    });
    show.finish();
    let ended = ended?;
    let result = session.conclude(&ended)?;
    Ok(end(&session, &show, ended.outcome, &result))
}

fn begin(session: &Session, show: &Show) {
    let platform = session.kind.platform();
    show.begin(&Begin {
        task: &session.spec().name,
        dir: session.dir.root(),
        platform: &session.spec().platform,
        fingerprint: &platform.fingerprint,
        hypervisor: &session.kind.describe(),
        simulated: session.kind.simulated().is_some(),
        resumes: session.resumes(),
    });
}

/// Shows the end; the exit code.
fn end(session: &Session, show: &Show, outcome: Outcome, result: &TaskResult) -> u8 {
    let sad = match outcome {
        Outcome::Completed { exit } => !exit.is_success(),
        Outcome::Failed { .. } => result.exit.is_some(),
        Outcome::Stopped { .. } | Outcome::Aborted => false,
    };
    if sad {
        show.last_words(&last_words(session));
    }
    show.end(result, &session.dir.results(), &session.dir.log());
    exit::of_outcome(outcome)
}

/// What the program wrote last on its standard error: it usually tells why it did not do what it should.
fn last_words(session: &Session) -> Vec<String> {
    const LINES: usize = 10;
    const LENGTH: usize = 200;
    let path = session.output(&session.spec().program.stderr);
    let Some(text) = path.and_then(|path| fs::read(path).ok()) else { return Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    // Whatever a guest's program writes must not move the terminal's cursor.
    let tame = |line: &&str| line.chars().filter(|c| !c.is_control()).take(LENGTH).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(tame).collect()
}
