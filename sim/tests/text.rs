//! Plans as text: what is printed is read back, and what cannot be read is refused with its place.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stdout, reason = "what a test prints is shown if it fails")]

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use rstest::rstest;
use vmtask_core::{FaultKind, OpKind, Request};
use vmtask_sim::{
    Act, Anchor, ByNumber, Director, Drive, EndKind, Expect, Health, Line, Mark, Moment, Odometer, Plan, Prng, Profile,
    Recorded, Recording, Run, Scenario, Scribe, Seed, Seldom, Status, System,
};

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Start),
        Just(Request::Suspend),
        Just(Request::Resume),
        Just(Request::Checkpoint),
        any::<u32>().prop_map(|budget_ms| Request::Quit { budget_ms }),
        Just(Request::Abort),
    ]
}

fn op() -> impl Strategy<Value = OpKind> {
    proptest::sample::select(OpKind::ALL.to_vec())
}

fn between() -> impl Strategy<Value = Line> {
    let act = prop_oneof![
        request().prop_map(Act::Request),
        proptest::sample::select(vec![
            Act::Crash,
            Act::PowerLoss,
            Act::StalePowerLoss,
            Act::GuestStop,
            Act::GuestReboot,
            Act::GuestHang,
            Act::AgentDies,
            Act::ProgramEnds,
        ]),
        any::<i32>().prop_map(Act::Clock),
    ];
    let n = 1..=u16::MAX;
    let mark = prop_oneof![
        Just(Mark::Start),
        (op(), n.clone()).prop_map(|(op, n)| Mark::Before(op, n)),
        (op(), n.clone()).prop_map(|(op, n)| Mark::Effect(op, n)),
        (op(), n.clone()).prop_map(|(op, n)| Mark::Reply(op, n)),
        n.clone().prop_map(Mark::Written),
        n.clone().prop_map(Mark::Fenced),
        n.clone().prop_map(Mark::Event),
        n.clone().prop_map(Mark::Timer),
        n.clone().prop_map(Mark::Step),
        n.clone().prop_map(Mark::Late),
        n.clone().prop_map(Mark::Done),
        n.prop_map(Mark::Other),
    ];
    let phase = (0..23usize, proptest::option::of(0..9u32), 1..=u16::MAX, proptest::option::of(any::<u32>()))
        .prop_map(|(phase, number, nth, later)| Anchor::Phase { phase, number, nth, later: later.map(u64::from) });
    (prop_oneof![mark.prop_map(Anchor::After), phase], act).prop_map(|(anchor, act)| Line { anchor, act })
}

fn outcome_of_something() -> impl Strategy<Value = Line> {
    let command = prop_oneof![
        proptest::sample::select(vec![
            Act::LoseReply,
            Act::DuplicateReply,
            Act::DelayReply,
            Act::LateReply,
            Act::Slow,
            Act::Hang(None),
            Act::ActThenUnknown,
            Act::FailAndKill,
            Act::NoTools,
            Act::Spoil(Health::BadAtProvision),
            Act::Spoil(Health::BadAtPowerOn),
        ]),
        (1..=u8::MAX).prop_map(|n| Act::Hang(Some(n))),
        proptest::sample::select(FaultKind::ALL.to_vec()).prop_map(Act::Fail),
    ];
    let n = 1..=u16::MAX;
    prop_oneof![
        (op(), n.clone(), command).prop_map(|(op, n, act)| Line { anchor: Anchor::Command(op, n), act }),
        (n.clone(), proptest::sample::select(vec![Act::SlowWrite, Act::WriteFails, Act::Tear]))
            .prop_map(|(n, act)| Line { anchor: Anchor::Write(n), act }),
        (n.clone(), proptest::sample::select(vec![Act::VmDies, Act::FenceHangs]))
            .prop_map(|(n, act)| Line { anchor: Anchor::Fence(n), act }),
        (n, proptest::sample::select(vec![Act::LoseEvent, Act::DelayEvent, Act::DuplicateEvent]))
            .prop_map(|(n, act)| Line { anchor: Anchor::Event(n), act }),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    let end = proptest::sample::select(vec![EndKind::Completed, EndKind::Stopped, EndKind::Aborted, EndKind::Failed]);
    let number = || proptest::option::of(any::<u32>());
    (end, proptest::option::of(any::<u8>()), number(), number()).prop_map(|(end, exit, restarts, checkpoint)| Expect {
        end,
        exit: exit.filter(|_| end == EndKind::Completed),
        restarts,
        checkpoint: checkpoint.filter(|_| end == EndKind::Stopped),
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let profile = proptest::sample::select(Profile::ALL.to_vec());
    let seed = proptest::option::of(any::<(u64, u8, u8)>())
        .prop_map(|s| s.map(|(seed, faults, requests)| Seed { seed, faults, requests }));
    let lines = proptest::collection::vec(prop_oneof![between(), outcome_of_something()], 0..6);
    (profile, seed, lines, proptest::collection::vec(expect(), 0..3)).prop_map(|(profile, seed, lines, expect)| Plan {
        profile,
        seed,
        lines,
        expect,
        ..Plan::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_that_is_printed_reads_back_the_same(plan in plan()) {
        let text = plan.to_string();
        prop_assert_eq!(text.parse::<Plan>().unwrap(), plan, "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-zA-Z0-9#() +<=.,\n-]{0,80}") {
        let _ = text.parse::<Plan>();
    }
}

/// What a run with so much at random did, if it kept its promises and its plan repeats it: every event, and the end.
fn repeats_itself(profile: Profile, seed: Seed) -> Run {
    let first = Run::of(&Plan { profile, seed: Some(seed), ..Plan::default() });
    assert_eq!(first.violation, None, "{} {seed:?}\n{}", profile.name(), first.plan);
    let again = Run::of(&first.plan.to_string().parse().unwrap());
    assert_eq!(again.complaints, [""; 0], "{} {seed:?}\n{}", profile.name(), first.plan);
    assert_eq!(again.trace, first.trace, "{} {seed:?}\n{}", profile.name(), first.plan);
    assert_eq!((again.plan, again.ends, again.steps), (first.plan.clone(), first.ends.clone(), first.steps));
    first
}

/// Seeds whose plans once led somewhere else.
#[rstest]
#[case::after_the_second_of_two_answers(Profile::Warm, Seed { seed: 7_911_692_100_177_408_390, faults: 2, requests: 1 })]
fn a_plan_that_once_did_not_repeat_its_run_does(#[case] profile: Profile, #[case] seed: Seed) {
    assert!(!repeats_itself(profile, seed).plan.lines.is_empty());
}

/// `VMTASK_TEST_SEED` repeats a series; a run that fails says its own seed, which belongs into the list above.
#[test]
fn a_random_run_keeps_its_promises_and_its_plan_repeats_it() {
    let series = std::env::var("VMTASK_TEST_SEED").map_or_else(
        |_| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    println!("VMTASK_TEST_SEED={series}");
    let mut prng = Prng::new(series);
    let mut lines = 0;
    for run in 0..500 {
        // Few and many deviations: some things need several of the same kind.
        let (faults, requests) = (2 << prng.below(5), prng.below(9) as u8);
        let seed = Seed { seed: prng.next_u64(), faults, requests };
        lines += repeats_itself(Profile::ALL[run % 4], seed).plan.lines.len();
    }
    assert!(lines > 500, "only {lines} deviations in all: it is too calm to tell");
}

/// Deviates at random, and notes how moments are called.
struct Names {
    seldom: ByNumber<Seldom>,
    marks: HashSet<Mark>,
    moments: usize,
}

impl Director for Names {
    fn direct(&mut self, moment: &Moment, options: &[Act]) -> usize {
        if let Moment::Between { mark, .. } = moment {
            self.moments += 1;
            self.marks.insert(*mark);
        }
        self.seldom.direct(moment, options)
    }
}

/// Otherwise a plan could not say which of them it means.
#[rstest]
fn no_two_moments_of_a_run_have_the_same_name(
    #[values(Profile::Qemu, Profile::Warm, Profile::Vix, Profile::Plain)] profile: Profile,
) {
    let scenario = Scenario::of(profile);
    for seed in 0..200 {
        let mut names = Names { seldom: ByNumber(Seldom::new(seed, 10)), marks: HashSet::new(), moments: 0 };
        let mut system = System::new(&scenario, vmtask_sim::Budget::of(60, 9));
        Drive { scenario: &scenario, steps: 0 }.to_the_end(&mut system, &mut names).unwrap();
        assert_eq!(names.marks.len(), names.moments, "seed {seed}");
    }
}

#[test]
fn the_plan_of_a_recorded_run_and_its_recorded_answers_lead_to_the_same_state() {
    let scenario = Scenario::of(Profile::Vix);
    let budget = vmtask_sim::Budget::of(3, 2);
    let mut recording = Recording::new(Seldom::new(20_250, 20));
    let end = |mut director: Scribe<ByNumber<&mut dyn vmtask_sim::Choose>>| {
        let mut system = System::new(&scenario, budget);
        while system.step(&scenario, &mut director).unwrap() == Status::Going {}
        (system.fingerprint(), director.lines)
    };
    let (first, lines) = end(Scribe::new(ByNumber(&mut recording)));
    let (second, _) = end(Scribe::new(ByNumber(&mut Recorded::new(recording.answers))));
    assert!(!lines.is_empty());
    assert_eq!(first, second);
    let (calm, _) = end(Scribe::new(ByNumber(&mut Odometer::default())));
    assert_ne!(first, calm);
}

#[rstest]
#[case("at Launhc lose reply", 1, 4, "no command, record or phase of that name; found \"Launhc\"")]
#[case("\n\nat Launch loose reply", 3, 11, "expected what happens")]
#[case("at Launch", 1, 10, "found the end of the line")]
#[case("at Launch#0 hang", 1, 4, "expected a number from 1 to 65535 after '#'")]
#[case("at Launch tear record", 1, 11, "this cannot happen there, only to a record: at Persist#N; found \"tear\"")]
#[case("when Running +1s lose event", 1, 18, "only to an event: at Event#N; found \"lose\"")]
#[case("at Persist lose reply", 1, 12, "only to a command: at COMMAND#N; found \"lose\"")]
#[case("at Persist#1 crash after-fence", 1, 20, "expected after-write or nothing; found \"after-fence\"")]
#[case("at Launch crash after-event", 1, 17, "expected before-effect, after-effect, after-reply or nothing")]
#[case("request Abort at Running after-reply", 1, 26, "expected the end of the line")]
#[case("at Launch lose reply after-effect", 1, 22, "expected the end of the line")]
#[case("at Launch hang, acts after 0 steps", 1, 28, "after 1 step at the earliest, 255 at the latest; found \"0\"")]
#[case("at Launch hang, acts after 256 steps", 1, 28, "expected after how many steps (1 to 255)")]
#[case("request Abort at CopyingIn(1", 1, 18, "expected a closing parenthesis")]
#[case("at Start#5 crash", 1, 4, "there is one start, without a number")]
#[case("scenario vix\nscenario qemu", 2, 1, "a plan is about one scenario")]
#[case("seed 1\nseed 2", 2, 1, "a plan has one seed")]
#[case("expect Completed exit=0 exit=1", 1, 25, "this is expected already")]
#[case("expect Aborted exit=3", 1, 16, "never met")]
#[case("expect Completed checkpoint=3", 1, 18, "never met")]
#[case("version 2", 1, 9, "this vmsim reads version 1; replay the plan with the vmsim that printed it; found \"2\"")]
#[case("scenario qemu\nversion 1", 2, 1, "the version comes first")]
#[case("   0.000    > record 1 [Run]", 1, 4, "this is the trace of a run, not a plan")]
#[case("simulated: no virtual machine was started", 1, 1, "this is the trace of a run, not a plan")]
#[case("{\"simulated\":true}", 1, 1, "this is the trace of a run, not a plan")]
#[case("\u{feff}at Launhc crash", 1, 4, "no command, record or phase of that name")]
#[case("at Persist#2 lose event, later", 1, 14, "expected what happens")]
#[case("at Launch lose reply twice", 1, 22, "expected the end of the line")]
#[case("when Running +90 power-loss", 1, 14, "expected a time such as +90s")]
#[case("request Quit at Running", 1, 9, "expected Suspend, Resume")]
#[case("request Quit(soon) at Running", 1, 9, "expected a budget such as")]
#[case("expect Completed exit=256", 1, 18, "expected exit=N")]
#[case("seed forty-two", 1, 6, "expected a seed")]
#[case("scenario xen", 1, 10, "expected one of qemu, warm, vix, plain")]
#[case("versoin 1", 1, 1, "expected version, scenario, seed, at, when, request or expect")]
fn what_cannot_be_read_is_refused_with_line_column_and_reason(
    #[case] text: &str,
    #[case] line: usize,
    #[case] column: usize,
    #[case] reason: &str,
) {
    let error = text.parse::<Plan>().unwrap_err();
    assert_eq!((error.line, error.column), (line, column), "{error}");
    assert!(error.reason.contains(reason), "{error}");
}

#[test]
fn the_example_that_everybody_copies_is_read() {
    let text = "
        seed 42
        at BeginSnapshot#2  crash after-effect before-reply   # a comment
        at Launch           lose reply
        at AwaitTools       hang, acts after 2 steps
        at Persist#5        tear record
        when Running +90s   power-loss
        request Suspend at CopyingIn(1)
        expect Completed exit=0 restarts<=2
    ";
    let plan: Plan = text.parse().unwrap();
    assert_eq!((plan.lines.len(), plan.expect.len()), (6, 1));
}

#[rstest]
#[case("at CopyIn#99 lose reply", "line 1: its moment never came: at CopyIn#99 lose reply")]
#[case("expect Aborted", "not met: expect Aborted")]
fn a_plan_that_does_not_come_to_pass_says_so(#[case] text: &str, #[case] complaint: &str) {
    assert_eq!(Run::of(&text.parse().unwrap()).complaints, [complaint]);
}

#[rstest]
#[case(
    "# first\nat PowerOff fail not-found",
    "line 2: not possible at its moment (that counts as done): at PowerOff#1 fail"
)]
#[case("at Probe guest-hang", "line 1: not possible at its moment (the VM does not run): at Probe#1 guest-hang")]
#[case("at Launch tools timeout", "line 1: not possible at its moment (it does not concern this command)")]
fn what_is_not_possible_is_named_with_its_line_the_reason_and_what_is_possible(
    #[case] text: &str,
    #[case] complaint: &str,
) {
    let [found] = &Run::of(&text.parse().unwrap()).complaints[..] else { panic!("one complaint") };
    assert!(found.starts_with(complaint), "{found}");
    assert!(found.contains("; possible there: "), "{found}");
}

/// Each happens as it is written, and the plan that the run prints repeats the run.
#[rstest]
#[case::a_command_that_acts_much_later("at Launch hang, acts after 7 steps")]
#[case::a_clock_that_jumps_by_a_minute("at CopyIn clock +61s")]
#[case::a_clock_that_goes_back_an_hour("at CopyIn clock -3600s")]
#[case::a_clock_that_jumps_by_a_month("at CopyIn clock +2592000s")]
#[case::another_budget("request Quit(1234ms) at Running")]
#[case::a_record_by_the_name_of_what_happened("at Persist#2 crash")]
#[case::the_same_by_the_name_of_what_comes_next("at Launch crash before-effect")]
#[case::a_later_time_in_a_phase("request Suspend when Running#2 +1s")]
fn what_a_plan_may_say_happens(#[case] text: &str) {
    let run = Run::of(&text.parse().unwrap());
    assert_eq!((run.violation, &run.complaints[..], run.plan.lines.len()), (None, &[][..], 1), "{}", run.plan);
    let again = Run::of(&run.plan.to_string().parse().unwrap());
    assert_eq!((again.trace, again.plan), (run.trace, run.plan));
}

#[test]
fn a_moment_has_two_names_and_is_printed_with_one() {
    let lines = |text: &str| Run::of(&text.parse().unwrap()).plan.lines;
    assert_eq!(lines("at Persist#2 crash"), lines("at Launch#1 crash before-effect"));
    assert_eq!(lines("at Persist#2 crash")[0].to_string(), "at Launch#1 crash before-effect");
}

#[test]
fn a_time_that_never_comes_is_said_to_never_come() {
    let run = Run::of(&"when Running +18446744073709551s crash".parse().unwrap());
    assert_eq!(run.complaints, ["line 1: its moment never came: when Running +18446744073709551000ms crash"]);
}

#[test]
fn bytes_that_are_no_text_have_a_line_and_a_column() {
    let error = Plan::read_bytes(b"scenario vix\nat \xff\xfe", Profile::Qemu).unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 4: a plan is a text in UTF-8; found the byte 0xff");
}

#[test]
fn an_error_stays_short_and_so_do_plans() {
    let error = "x".repeat(1000).parse::<Plan>().unwrap_err();
    assert!(error.reason.len() < 140, "{error}");
    let error = "# long\n".repeat(200_000).parse::<Plan>().unwrap_err();
    assert!(error.reason.contains("at most 1048576 bytes"), "{error}");
}

#[test]
fn a_plan_without_a_scenario_is_about_the_one_that_was_asked_for() {
    assert_eq!(Plan::read("at Launch lose reply", Profile::Vix).unwrap().profile, Profile::Vix);
    assert_eq!(Plan::read("scenario warm", Profile::Vix).unwrap().profile, Profile::Warm);
}

#[test]
fn the_example_in_the_documentation_comes_to_pass() {
    let source = include_str!("../src/plan.rs");
    let (_, rest) = source.split_once("//! ```text\n").unwrap();
    let (block, _) = rest.split_once("//! ```").unwrap();
    let text: String = block.lines().map(|line| format!("{}\n", line.trim_start_matches("//!"))).collect();
    let run = Run::of(&text.parse().unwrap());
    assert_eq!((run.violation, &run.complaints[..]), (None, &[][..]), "{}", run.trace.join("\n"));
}
