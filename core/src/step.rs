//! The transition function: what each input does to what the machine believes.
//!
//! ```text
//!   request  --> intent                            choose()        what to do next
//!   answer   --> stage         --> settle() ----> roll_back()      the guest was lost
//!   event    --> lost, exited                     end()            clear up
//!   timer    --> due, unknown outcome             fence            before anything else after an unknown outcome
//! ```

use crate::choose::Choice;
use crate::command::{Base, Op, OpKind};
use crate::error::{Accepted, Denied, Ignored};
use crate::id::{Boot, CommandId, Generation, JournalSeq};
use crate::input::{Event, ExitStatus, Fault, FaultKind, Input, Reply, Request};
use crate::life::{Examine, Life, Snapshot};
use crate::machine::{Fence, Machine, Stage, Tries};
use crate::output::{Cause, Leftover, Loss, Notice, Outcome};
use crate::phase::Intent;
use crate::policy::{Pause, Plan, Policy};
use crate::time::Span;
use crate::timers::Timer;

use Accepted::Applied;

const fn ignored(why: Ignored) -> Result<Accepted, Denied> {
    Ok(Accepted::Ignored(why))
}

impl Machine {
    pub(crate) fn step(&mut self, plan: &Plan, input: Input) -> Accepted {
        match input {
            Input::Completed { id, result } => self.completed(plan, id, result),
            Input::Fenced { id, survived } => self.fenced(plan, id, survived),
            Input::Observed { boot, event } => self.observed(plan, boot, event),
            Input::Persisted(seq) => self.now_durable(plan, seq),
            Input::JournalLost => self.told_of_lost_journal(plan),
        }
    }

    /// Picks the next command, once nothing is in flight, and does what must be done before it can be handed out.
    pub(crate) fn settle(&mut self, plan: &Plan) {
        self.chosen = None;
        while self.flight.is_none() && self.fence.is_none() {
            if self.journal_lost && self.stage == (Stage::TearingDown { off: true }) {
                // What remains to be done relies on a record that will not become durable.
                return self.finish(Some(Leftover::StillRegistered));
            }
            if let Some(loss) = self.lost.take() {
                self.roll_back(plan, loss);
                continue;
            }
            let choice = self.choose(plan);
            if let Choice::End(outcome) = choice {
                self.end(outcome);
            } else if let Some((id, op)) = self.unresolved.filter(|&(_, op)| !may_follow(choice, op)) {
                self.want_fence(plan, id, op);
            } else {
                match choice {
                    Choice::Do(op) if self.overdue && op.kind().is_sliced() => {
                        self.overdue = false;
                        self.exhausted(plan, op, Fault::new(FaultKind::Unknown));
                    }
                    Choice::Do(op) => {
                        self.prepare(op);
                        self.chosen = Some(op);
                        return;
                    }
                    Choice::Rest | Choice::End(_) => {
                        // What was to be tried again is not wanted any more.
                        self.tries = Tries::default();
                        self.timers.disarm(Timer::Retry);
                        return;
                    }
                }
            }
        }
    }

    fn want_fence(&mut self, plan: &Plan, id: CommandId, op: Op) {
        self.timers.disarm(Timer::Retry);
        self.timers.arm_in(Timer::Fence, self.now, plan.policy.fence);
        self.fence = Some(Fence { id, op, sent: false });
    }

    /// What the journal must say before `op` is handed out.
    fn prepare(&mut self, op: Op) {
        // Attempts are counted anew once another op is handed out, not when it is merely chosen and then not wanted.
        if self.tries.op != Some(op) {
            self.timers.disarm(Timer::Retry);
        }
        match op {
            Op::BeginSnapshot(generation) if self.record.pending != Some(generation) => {
                self.record.pending = Some(generation);
                self.record.next_generation = generation.next();
                self.changed();
            }
            Op::Launch if !self.record.launched => {
                self.record.launched = true;
                self.changed();
            }
            Op::Provision(Base::Baseline) if self.record.launched => {
                self.record.launched = false;
                self.changed();
            }
            _ => {}
        }
    }

    // ---- requests: they set the intent ----

    pub(crate) fn request(&mut self, plan: &Plan, request: Request) -> Result<Accepted, Denied> {
        match request {
            Request::Start if self.stage == Stage::Created => {
                self.stage = Stage::Unprobed;
                self.changed();
                self.first = self.record.seq;
                Ok(Applied)
            }
            Request::Start => ignored(Ignored::AlreadySo),
            Request::Suspend => self.request_suspend(plan),
            Request::Resume => self.request_resume(),
            Request::Checkpoint => self.request_checkpoint(plan),
            Request::Quit { budget_ms } => self.request_quit(plan, budget_ms),
            Request::Abort => self.request_abort(plan),
        }
    }

    /// For requests that need a task that is under way.
    const fn under_way(&self) -> Result<(), Denied> {
        match (self.stage, self.record.intent) {
            (Stage::Created, _) => Err(Denied::NotStarted),
            (Stage::Ended, _) => Err(Denied::Ended),
            (Stage::TearingDown { .. }, _) | (_, Intent::Quit | Intent::Abort) => Err(Denied::Stopping),
            _ => Ok(()),
        }
    }

    fn request_suspend(&mut self, plan: &Plan) -> Result<Accepted, Denied> {
        self.under_way()?;
        if plan.capabilities.pause == Pause::None {
            return Err(Denied::CannotPause);
        }
        self.want(Intent::Suspend)
    }

    fn request_resume(&mut self) -> Result<Accepted, Denied> {
        self.under_way()?;
        self.want(Intent::Run)
    }

    fn want(&mut self, intent: Intent) -> Result<Accepted, Denied> {
        if self.record.intent == intent {
            return ignored(Ignored::AlreadySo);
        }
        self.record.intent = intent;
        self.changed();
        Ok(Applied)
    }

    fn request_checkpoint(&mut self, plan: &Plan) -> Result<Accepted, Denied> {
        self.under_way()?;
        if !plan.takes_checkpoints() {
            return Err(Denied::NoCheckpoints);
        }
        if self.stage != Stage::Running {
            return Err(Denied::NotRunning);
        }
        if self.life.checkpoint_due || self.life.snapshot.is_some() {
            return ignored(Ignored::AlreadySo);
        }
        self.life.checkpoint_due = true;
        Ok(Applied)
    }

    fn request_quit(&mut self, plan: &Plan, budget_ms: u32) -> Result<Accepted, Denied> {
        let by = self.now + Span::from_millis(budget_ms);
        match (self.stage, self.record.intent) {
            (Stage::Ended | Stage::TearingDown { .. }, _) => return ignored(Ignored::Ending),
            (_, Intent::Abort) => return Err(Denied::Stopping),
            (Stage::Created, _) => {
                self.record.intent = Intent::Quit;
                self.end(Outcome::Stopped { checkpoint: None });
                self.finish(None);
                return Ok(Applied);
            }
            (_, Intent::Quit) if self.saved || !self.timers.is_before(by, Timer::Quit) => {
                return ignored(Ignored::AlreadySo);
            }
            (_, Intent::Quit) => {}
            _ => {
                self.record.intent = Intent::Quit;
                // Copying may take longer than there is time: the program's end is saved first, however little it took.
                self.life.end_due |= self.may_save_end(plan);
                self.changed();
            }
        }
        self.timers.arm(Timer::Quit, by);
        if budget_ms == 0 {
            self.timers.disarm(Timer::Quit);
            self.budget_spent(plan);
        }
        Ok(Applied)
    }

    /// Whether outputs are being collected of a program whose end is in no checkpoint, and could be.
    fn may_save_end(&self, plan: &Plan) -> bool {
        let saving = self.life.end_saved || self.life.snapshot.is_some_and(|snapshot| snapshot.of_the_end);
        matches!(self.stage, Stage::Exited(_)) && plan.takes_checkpoints() && !saving
    }

    fn request_abort(&mut self, plan: &Plan) -> Result<Accepted, Denied> {
        match self.stage {
            Stage::Ended => return ignored(Ignored::Ending),
            _ if self.record.intent == Intent::Abort => return ignored(Ignored::AlreadySo),
            Stage::Created => {
                self.record.intent = Intent::Abort;
                self.end(Outcome::Aborted);
                self.finish(None);
            }
            Stage::TearingDown { .. } => {
                self.record.intent = Intent::Abort;
                // What cannot be put on record is not told as done: it has to be asked for again.
                if !self.journal_lost {
                    self.record.ending = Some(Outcome::Aborted);
                }
                self.changed();
            }
            _ => {
                self.record.intent = Intent::Abort;
                self.changed();
                self.fence_flight(plan);
            }
        }
        Ok(Applied)
    }

    /// No more time to save anything.
    fn budget_spent(&mut self, plan: &Plan) {
        self.saved = true;
        self.fence_flight(plan);
    }

    /// Gives up on the command in flight, at once; but not on one that takes the VM down.
    fn fence_flight(&mut self, plan: &Plan) {
        let down = |op: Op| matches!(op.kind(), OpKind::PowerOff | OpKind::Unregister);
        if let Some(flight) = self.flight.take_if(|f| !down(f.op)) {
            self.timers.disarm(Timer::Deadline);
            self.unresolved = Some((flight.id, flight.op));
            self.want_fence(plan, flight.id, flight.op);
        }
    }

    // ---- answers: they advance the stage ----

    fn completed(&mut self, plan: &Plan, id: CommandId, result: Result<Reply, Fault>) -> Accepted {
        if id.epoch != self.epoch {
            return Accepted::Ignored(Ignored::ForeignEpoch);
        }
        let Some(flight) = self.flight.take_if(|f| f.id == id) else {
            return Accepted::Ignored(Ignored::NotInFlight);
        };
        self.timers.disarm(Timer::Deadline);
        match result {
            Ok(Reply::Pending) if flight.op.kind().is_sliced() => self.tries = Tries::default(),
            Ok(reply) if fits(flight.op, reply) => self.done(plan, flight.id, flight.op, reply),
            Ok(_) => self.failed(plan, flight.id, flight.op, Fault::new(FaultKind::Fatal)),
            Err(fault) if is_as_good_as_done(flight.op, fault.kind) => {
                self.done(plan, flight.id, flight.op, Reply::Done);
            }
            Err(fault) => self.failed(plan, flight.id, flight.op, fault),
        }
        Applied
    }

    fn done(&mut self, plan: &Plan, id: CommandId, op: Op, reply: Reply) {
        let tries = core::mem::take(&mut self.tries);
        if op.kind().is_sliced() {
            self.sliced_op_over();
        }
        match (op, reply) {
            (Op::Probe, Reply::Found(found)) => {
                if !self.found(plan, &found) {
                    // It answered, but could not tell what has to be known: as good as no answer.
                    self.tries = tries;
                    self.failed(plan, id, op, Fault::new(FaultKind::Refused));
                }
            }
            (Op::Probe, _) => {}
            (Op::Register, _) => self.stage = Stage::Off { registered: true },
            (Op::Provision(base), reply) => self.provisioned(base, reply == Reply::Provisioned { running: true }),
            (Op::PowerOn, _) => self.stage = Stage::Booted,
            (Op::AwaitTools, _) if plan.capabilities.guest_login => self.stage = Stage::Reachable,
            (Op::AwaitTools | Op::LogIn, _) => self.stage = Stage::LoggedIn,
            (Op::MakeWorkdir, _) => self.stage = Stage::Copying(0),
            (Op::CopyIn(ix), _) => self.stage = Stage::Copying(ix.0 + 1),
            (Op::Launch, _) => self.launched(plan),
            (Op::Pause, _) => self.set_paused(true),
            (Op::Unpause, _) => self.set_paused(false),
            (Op::BeginSnapshot(generation), _) => {
                let of_the_end = self.life.begun_at_end;
                self.life.snapshot = Some(Snapshot { generation, cpu_ms: self.reports.cpu_ms, of_the_end });
                self.life.end_due &= !of_the_end;
                // From here on, not from when it is whole: what a crash costs is counted from this instant.
                self.next_checkpoint(plan);
                self.arm_at_stake(plan);
            }
            (Op::CommitSnapshot(generation), _) => self.committed(plan, generation),
            (Op::RemoveSnapshot(generation), _) => {
                self.junk.remove(generation);
            }
            (Op::CopyOut(ix), _) => self.stage = Stage::Exited(ix.0 + 1),
            (Op::PowerOff, _) => self.powered_off(),
            (Op::Unregister(kept), _) => {
                // An abort may have come meanwhile: then more has to go.
                if kept == self.keep() {
                    self.finish(None);
                }
            }
        }
    }

    fn provisioned(&mut self, base: Base, running: bool) {
        let examine = if base == Base::Baseline { Examine::No } else { Examine::Restored };
        self.timers.end_life();
        self.life = Life { examine, ..Life::default() };
        self.stage = if running { Stage::Booted } else { Stage::Provisioned };
    }

    /// The program has been launched, or is found to have been.
    pub(crate) fn launched(&mut self, plan: &Plan) {
        self.life.launch_doubt = false;
        self.life.launches = 0;
        self.life.examine = Examine::No;
        self.stage = Stage::Running;
        if core::mem::take(&mut self.record.failed_restores) != 0 {
            self.changed();
        }
        self.life.running_since = (!self.life.paused).then_some(self.now);
        self.timers.arm_in(Timer::Watch, self.now, plan.policy.watch);
        self.arm_checkpoint(plan);
        self.arm_run_limit(plan);
        self.arm_at_stake(plan);
        if let Some(status) = self.life.exit_seen.take() {
            self.exited(plan, status);
        }
    }

    /// The program has ended.
    pub(crate) fn exited(&mut self, plan: &Plan, status: ExitStatus) {
        self.record.exit = Some(status);
        self.begin_collecting(plan);
    }

    /// From here on outputs are collected, of a program that has ended or has run for as long as it may. If much would be
    /// computed again after a loss, that is saved first: copying may take long, and fail.
    fn begin_collecting(&mut self, plan: &Plan) {
        self.life.end_due = plan.takes_checkpoints() && self.timers.has_passed(Timer::AtStake, self.now);
        self.stop_run_timers();
        self.changed();
        self.life.running_since = None;
        self.stage = Stage::Exited(0);
    }

    pub(crate) fn stop_run_timers(&mut self) {
        for timer in [Timer::Checkpoint, Timer::Watch, Timer::RunLimit, Timer::AtStake] {
            self.timers.disarm(timer);
        }
        self.life.checkpoint_due = false;
        self.life.watch_due = false;
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.account();
        self.life.paused = paused;
        let runs = self.stage == Stage::Running && !paused;
        self.life.running_since = runs.then_some(self.now);
        if paused {
            self.timers.hold(self.now);
        } else {
            self.timers.release(self.now);
        }
    }

    fn arm_checkpoint(&mut self, plan: &Plan) {
        if let Some(checkpoints) = plan.checkpoints {
            self.timers.arm_in(Timer::Checkpoint, self.now, checkpoints.every);
        }
    }

    fn arm_run_limit(&mut self, plan: &Plan) {
        if let Some(limit) = plan.run_limit_ms {
            let left = limit.saturating_sub(self.record.elapsed_ms);
            self.timers.arm_in(Timer::RunLimit, self.now, Span::from_millis(u32::try_from(left).unwrap_or(u32::MAX)));
        }
    }

    /// From now on so much may be computed before losing it is worth a checkpoint.
    fn arm_at_stake(&mut self, plan: &Plan) {
        self.timers.arm_in(Timer::AtStake, self.now, plan.policy.at_stake);
    }

    /// A checkpoint is whole. It counts now; the oldest may go, once the journal says so.
    fn committed(&mut self, plan: &Plan, generation: Generation) {
        let begun = self.life.snapshot.take();
        self.count_checkpoint(plan, generation, begun.map_or(0, |begun| begun.cpu_ms));
        self.life.end_saved = begun.is_some_and(|begun| begun.of_the_end);
        if self.record.intent == Intent::Quit {
            self.saved = true;
        }
    }

    pub(crate) fn count_checkpoint(&mut self, plan: &Plan, generation: Generation, cpu_ms: u64) {
        if let Some(evicted) = self.record.generations.insert(generation) {
            self.junk.insert(evicted);
        }
        let keep = plan.checkpoints.map_or(1, |c| usize::from(c.keep));
        while self.record.generations.len() > keep {
            let Some(oldest) = self.record.generations.oldest() else { break };
            self.record.generations.remove(oldest);
            self.junk.insert(oldest);
        }
        self.record.pending = None;
        self.record.checkpointed_cpu_ms = cpu_ms;
        self.record.losses = 0;
        self.record.failed_restores = 0;
        self.changed();
        self.reports.checkpoint = Some((generation, cpu_ms, self.record.seq));
    }

    /// The next checkpoint is due a full interval after this one was begun or given up.
    fn next_checkpoint(&mut self, plan: &Plan) {
        self.life.checkpoint_due = false;
        if self.stage == Stage::Running {
            self.arm_checkpoint(plan);
        }
    }

    fn powered_off(&mut self) {
        match self.stage {
            Stage::TearingDown { .. } => self.stage = Stage::TearingDown { off: true },
            _ => self.stage = Stage::Unprobed,
        }
    }

    fn sliced_op_over(&mut self) {
        self.overdue = false;
        self.timers.disarm(Timer::Overall);
    }

    // ---- faults ----

    pub(crate) fn failed(&mut self, plan: &Plan, id: CommandId, op: Op, fault: Fault) {
        if fault.kind == FaultKind::Unknown {
            self.unresolved = Some((id, op));
        }
        if self.lost.is_some() {
            // That the guest is lost explains it, and is dealt with next.
            return;
        }
        if op == Op::Launch && matches!(fault.kind, FaultKind::Unknown | FaultKind::AlreadyExists) {
            self.life.launch_doubt = true;
            if self.life.launches < plan.policy.attempts[OpKind::Launch.index()] {
                self.notice(Notice::Retrying { op, fault });
                return;
            }
        } else if is_worth_a_retry(op, fault.kind) && self.tries.made < plan.policy.attempts[op.kind().index()] {
            self.notice(Notice::Retrying { op, fault });
            self.timers.arm_in(Timer::Retry, self.now, self.backoff(plan));
            return;
        }
        self.exhausted(plan, op, fault);
    }

    /// No further attempt. While the outcome is unknown, nothing is concluded from it before a fence.
    fn exhausted(&mut self, plan: &Plan, op: Op, fault: Fault) {
        self.tries = Tries::default();
        match self.unresolved {
            Some((id, _)) => {
                self.failing = Some((op, fault));
                self.want_fence(plan, id, op);
            }
            None if op == Op::PowerOff || may_go_on(op, fault.kind) => {
                // A fence is the last means to stop a VM, and the only one to stop a checkpoint that is being written.
                let id = CommandId { epoch: self.epoch, seq: self.commands };
                self.failing = Some((op, fault));
                self.want_fence(plan, id, op);
            }
            None => self.give_up(plan, op, fault),
        }
    }

    fn fenced(&mut self, plan: &Plan, id: CommandId, survived: bool) -> Accepted {
        let Some(fence) = self.fence.take_if(|f| f.id == id && f.sent) else {
            return Accepted::Ignored(Ignored::NotFencing);
        };
        self.timers.disarm(Timer::Fence);
        self.unresolved = None;
        self.tries = Tries::default();
        let failing = self.failing.take();
        if let Some(snapshot) = self.life.snapshot {
            self.snapshot_failed(plan, snapshot.generation, Fault::new(FaultKind::Unknown));
        }
        if fence.op.kind() == OpKind::Provision && survived && matches!(self.stage, Stage::Off { .. }) {
            // It may have come as far as a warm baseline that runs.
            self.stage = Stage::Lost;
        }
        let live = self.stage.is_live() || self.stage == Stage::Provisioned;
        if live && survived {
            self.life.doubt = true;
        } else if live {
            self.lost.get_or_insert(Loss::Unresponsive);
        }
        match failing {
            Some((Op::PowerOff, fault)) => self.power_off_failed(fault, survived),
            Some((op, fault)) => self.give_up(plan, op, fault),
            None => {}
        }
        Applied
    }

    /// A snapshot that was begun is over without having been committed.
    pub(crate) fn drop_snapshot(&mut self) {
        self.life.snapshot = None;
        if let Some(generation) = self.record.pending.take() {
            self.junk.insert(generation);
            self.changed();
        }
    }

    fn power_off_failed(&mut self, fault: Fault, survived: bool) {
        if !survived {
            return self.powered_off();
        }
        self.end(Outcome::Failed { cause: Cause::Op { op: Op::PowerOff, fault } });
        self.finish(Some(Leftover::MayRun));
    }

    /// What follows from an op that will not succeed. Its outcome is known, or it has been fenced.
    fn give_up(&mut self, plan: &Plan, op: Op, fault: Fault) {
        if op.kind().is_sliced() {
            self.sliced_op_over();
        }
        match op {
            Op::BeginSnapshot(generation) | Op::CommitSnapshot(generation) => {
                self.snapshot_failed(plan, generation, fault);
            }
            Op::RemoveSnapshot(generation) => {
                self.junk.remove(generation);
                self.notice(Notice::CheckpointLeft { generation });
            }
            Op::Pause => {
                self.notice(Notice::PauseFailed { fault });
                self.lost.get_or_insert(Loss::NotPausable);
            }
            Op::Unpause => {
                self.lost.get_or_insert(Loss::Unresponsive);
            }
            Op::Unregister(_) => self.finish(Some(Leftover::StillRegistered)),
            Op::CopyOut(ix) if fault.kind != FaultKind::Unknown => {
                self.missed(op, fault);
                self.stage = Stage::Exited(ix.0 + 1);
            }
            _ if self.is_restoring(op) => self.not_restored(plan, op, fault),
            _ if fault.kind == FaultKind::Unknown && !matches!(self.stage, Stage::Unprobed) => {
                self.lost.get_or_insert(Loss::Unresponsive);
            }
            Op::Probe if self.stage.is_live() => {
                self.lost.get_or_insert(Loss::Unresponsive);
            }
            _ => self.end(Outcome::Failed { cause: Cause::Op { op, fault } }),
        }
    }

    /// An output is not collected. One that the program has not written will not come; any other may, another time.
    fn missed(&mut self, op: Op, fault: Fault) {
        let keeps = self.life.missing.is_some_and(|(_, first)| first.kind != FaultKind::NotFound);
        if !keeps {
            let first = self.life.missing.filter(|_| fault.kind == FaultKind::NotFound);
            self.life.missing = first.or(Some((op, fault)));
        }
    }

    fn snapshot_failed(&mut self, plan: &Plan, generation: Generation, fault: Fault) {
        self.drop_snapshot();
        // The time that it took is not the next one's.
        self.sliced_op_over();
        self.notice(Notice::CheckpointSkipped { generation, fault });
        self.next_checkpoint(plan);
        self.life.end_due = false;
        // When quitting there is no second try: the earlier checkpoint has to do, or the outputs of a program that has
        // ended.
        self.saved |= self.record.intent == Intent::Quit && self.stage == Stage::Running;
        let unharmed = matches!(
            fault.kind,
            // An unknown outcome has been fenced by now, and the fence said what became of the guest.
            FaultKind::Refused | FaultKind::NoSpace | FaultKind::Unsupported | FaultKind::Unknown
        );
        if !unharmed {
            self.lost.get_or_insert(Loss::Snapshot);
        }
    }

    // ---- events ----

    fn observed(&mut self, plan: &Plan, boot: Boot, event: Event) -> Accepted {
        if boot != self.boot() {
            return Accepted::Ignored(Ignored::OtherBoot);
        }
        let powering_on = self.flight.is_some_and(|f| f.op == Op::PowerOn);
        match event {
            Event::ProgramExited(status) if self.stage == Stage::Running => self.exited(plan, status),
            Event::ProgramExited(status) if self.may_have_launched(plan) && self.life.exit_seen.is_none() => {
                self.life.exit_seen = Some(status);
            }
            Event::GuestStopped | Event::GuestRebooted
                if self.lost.is_none() && (self.stage.is_live() || powering_on) =>
            {
                self.lost = Some(if event == Event::GuestStopped { Loss::Stopped } else { Loss::Rebooted });
            }
            Event::Progress { permille, cpu_ms } if self.stage == Stage::Running => {
                self.reports.permille = permille.map(|permille| permille.min(1000));
                self.reports.cpu_ms = cpu_ms;
                self.reports.progressed = true;
                self.timers.arm_in(Timer::Watch, self.now, plan.policy.watch);
            }
            _ => return Accepted::Ignored(Ignored::NotNow),
        }
        Applied
    }

    /// Whether a launch is in flight, or its outcome unknown.
    fn may_have_launched(&self, plan: &Plan) -> bool {
        self.stage == Stage::Copying(plan.files_in) && self.life.launches > 0
    }

    // ---- the journal ----

    /// A record has been handed out, and none was waited for before.
    pub(crate) fn arm_journal(&mut self, plan: &Plan) {
        // Before the first command there is nothing to lose by giving up early.
        let part = if self.commands == 0 { Policy::JOURNAL_AT_THE_START } else { 1 };
        let patience = Span::from_millis((plan.policy.journal.as_millis() / part).max(1));
        self.timers.arm_in(Timer::Journal, self.now, patience);
    }

    fn now_durable(&mut self, plan: &Plan, seq: JournalSeq) -> Accepted {
        if !self.awaits_persisted(seq) {
            return Accepted::Ignored(Ignored::NotAwaited);
        }
        self.persisted = seq;
        if self.persisted == self.emitted || self.journal_lost {
            self.timers.disarm(Timer::Journal);
        } else {
            self.arm_journal(plan);
        }
        Applied
    }

    fn told_of_lost_journal(&mut self, plan: &Plan) -> Accepted {
        if self.persisted == self.emitted || self.journal_lost {
            return Accepted::Ignored(Ignored::NotAwaited);
        }
        self.timers.disarm(Timer::Journal);
        self.lose_journal(plan);
        Applied
    }

    /// Records do not become durable. What is done from here on would be forgotten, so the VM is taken down, which no
    /// record is needed for, and the task ends; the next manager goes on from the last durable record.
    fn lose_journal(&mut self, plan: &Plan) {
        self.journal_lost = true;
        // An unregistering VM had its end on record, durably: that end stands.
        let ends = self.stage == Stage::Ended || self.flight.is_some_and(|f| f.op.kind() == OpKind::Unregister);
        if ends {
            return;
        }
        self.notice(Notice::JournalLost);
        self.failing = None;
        let off = self.stage == Stage::TearingDown { off: true };
        self.fence_flight(plan);
        self.end_as(Outcome::Failed { cause: Cause::Journal });
        self.stage = Stage::TearingDown { off };
        if self.commands == 0 {
            // Nothing was touched: whatever an earlier manager has left is as it was.
            self.finish(self.inherited);
        }
    }

    // ---- timers ----

    pub(crate) fn fire(&mut self, plan: &Plan, timer: Timer) {
        match timer {
            Timer::Deadline => {
                if let Some(flight) = self.flight.take() {
                    self.failed(plan, flight.id, flight.op, Fault::new(FaultKind::Unknown));
                }
            }
            Timer::Fence => self.fence_failed(),
            Timer::Retry => {}
            Timer::Quit => self.budget_spent(plan),
            Timer::Overall => self.slices_took_too_long(plan),
            Timer::RunLimit => self.ran_its_time(plan),
            Timer::Checkpoint => self.life.checkpoint_due = true,
            Timer::Watch => {
                self.life.watch_due = true;
                self.timers.arm_in(Timer::Watch, self.now, plan.policy.watch);
            }
            Timer::Journal => self.lose_journal(plan),
            Timer::AtStake => {}
        }
    }

    /// The last means has failed: say so, and what is left.
    fn fence_failed(&mut self) {
        if let Some(fence) = self.fence.take() {
            if self.record.ending.is_none() {
                self.end(Outcome::Failed { cause: Cause::Fence { op: fence.op } });
            }
            self.finish(Some(Leftover::MayRun));
        }
    }

    fn slices_took_too_long(&mut self, plan: &Plan) {
        self.overdue = true;
        if let Some(flight) = self.flight.take_if(|f| f.op.kind().is_sliced()) {
            self.timers.disarm(Timer::Deadline);
            self.overdue = false;
            self.unresolved = Some((flight.id, flight.op));
            self.exhausted(plan, flight.op, Fault::new(FaultKind::Unknown));
        }
    }

    fn ran_its_time(&mut self, plan: &Plan) {
        self.account();
        match plan.run_limit_ms {
            Some(limit) if self.record.elapsed_ms >= limit => {
                // The program runs on, but for this task it is over: what it has written by now is its result.
                self.life.over_limit = true;
                self.begin_collecting(plan);
            }
            // The limit was longer than a timer can be.
            _ => self.arm_run_limit(plan),
        }
    }

    // ---- the end ----

    /// Decides how the task ends; from here on there is only clearing up.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        // Whatever else went wrong meanwhile: an abort discards.
        self.end_as(if self.record.intent == Intent::Abort { Outcome::Aborted } else { outcome });
    }

    fn end_as(&mut self, outcome: Outcome) {
        self.account();
        self.timers.end_life();
        self.life = Life::default();
        self.sliced_op_over();
        self.timers.disarm(Timer::Quit);
        self.record.ending = Some(outcome);
        self.lost = None;
        self.changed();
        self.stage = Stage::TearingDown { off: false };
    }

    /// Nothing more will be done.
    pub(crate) fn finish(&mut self, leftover: Option<Leftover>) {
        for timer in Timer::ALL.into_iter().filter(|&timer| timer != Timer::Journal) {
            self.timers.disarm(timer);
        }
        self.flight = None;
        self.unresolved = None;
        self.failing = None;
        self.record.ended = true;
        self.record.leftover = leftover;
        self.changed();
        self.stage = Stage::Ended;
    }
}

/// After an unknown outcome, only the same op may be repeated (and a probe, which changes nothing); anything else,
/// resting included, waits for a fence.
fn may_follow(choice: Choice, unresolved: Op) -> bool {
    matches!(choice, Choice::Do(op) if op == unresolved || op == Op::Probe)
}

/// Whether a checkpoint that is given up may still be being written: by slices that were refused or took too long, which
/// did nothing to stop it.
const fn may_go_on(op: Op, kind: FaultKind) -> bool {
    matches!(op, Op::CommitSnapshot(_))
        && matches!(kind, FaultKind::Refused | FaultKind::Unknown | FaultKind::Unsupported)
}

/// Whether a reply is one that this op can have. Anything else is a broken adapter.
const fn fits(op: Op, reply: Reply) -> bool {
    match reply {
        Reply::Found(_) => matches!(op, Op::Probe),
        Reply::Provisioned { .. } => matches!(op, Op::Provision(_)),
        Reply::Done => !matches!(op, Op::Probe | Op::Provision(_)),
        Reply::Pending => false,
    }
}

/// Faults that say that the effect is there already.
const fn is_as_good_as_done(op: Op, kind: FaultKind) -> bool {
    match kind {
        FaultKind::AlreadyExists => matches!(
            op.kind(),
            OpKind::Register | OpKind::PowerOn | OpKind::Pause | OpKind::Unpause | OpKind::MakeWorkdir
        ),
        FaultKind::NotFound => {
            matches!(op.kind(), OpKind::PowerOff | OpKind::RemoveSnapshot | OpKind::Unregister)
        }
        _ => false,
    }
}

/// Faults that may pass. A full disk on the host may have room again when results are to be saved.
const fn is_worth_a_retry(op: Op, kind: FaultKind) -> bool {
    match kind {
        FaultKind::Refused | FaultKind::Unknown => true,
        FaultKind::NoSpace => matches!(op.kind(), OpKind::CopyOut),
        _ => false,
    }
}
