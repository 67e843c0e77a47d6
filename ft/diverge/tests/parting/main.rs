//! A fault put into an engine at one count is found at exactly that count, with what it changed.
//!
//! Not responsible for: real guests (`ft/cli/tests` has one).

#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line

mod faulty;
mod guest;

use faulty::{Fault, Part};
use gemel_diverge::{
    Agreement, Finding, Found, Outcome, Plan, Subject, compare, first_difference, write_bundle,
};
use gemel_interp::isa::latitude::Latitude;
use gemel_isa_tests::interpreted::Interpreted;
use gemel_isa_tests::run::{self, Runner};
use gemel_isa_tests::{claim, compare as isa_compare};
use gemel_log::{EndReason, LogReader};
use gemel_machine::{At, Machine, Reckoning};
use gemel_replay::{Conclusion, LogSource, NoDisks, ReplayDisks};
use gemel_x86::CpuModel;
use gemel_x86::flags::{AF, CF, OF, ZF};
use guest::{DATA, Followed, TURN, header, machine, record, record_of};
use iced_x86::Mnemonic;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

const LENGTH: u64 = 100_000;

fn followed(name: &'static str, log: &[u8], fault: Fault) -> Followed {
    Followed { name, log: log.to_vec(), fault, rbx: 1 }
}

fn wrong_register(count: u64, register: usize) -> Fault {
    Fault::Register { count, part: Part::General(register), bit: 40 }
}

fn plan(interval: u64) -> Plan {
    Plan { interval, ..Plan::default() }
}

fn outcome(a: &dyn Subject, b: &dyn Subject, plan: Plan) -> Outcome {
    compare(a, b, plan, &mut |_: At| Ok(())).unwrap()
}

fn finding(outcome: Outcome) -> Finding {
    match outcome {
        Outcome::Part(finding) => *finding,
        other => panic!("not found out: {other:?}"),
    }
}

#[test]
fn two_engines_that_do_the_same_agree_to_the_end() {
    let log = record(Fault::None, 1, LENGTH);
    let (a, b) = (followed("a", &log, Fault::None), followed("b", &log, Fault::None));
    for interval in [1 << 28, 7_001] {
        let Outcome::Agree(Agreement { at, conclusion, compared }) = outcome(&a, &b, plan(interval)) else {
            panic!("they part")
        };
        assert_eq!((at.position.count, compared), (LENGTH, LENGTH));
        assert_eq!(conclusion, Some(Conclusion::Complete { reason: EndReason::Stopped }));
    }
    let sampled = Plan { sample: 4, ..plan(10_000) };
    let Outcome::Agree(Agreement { compared, .. }) = outcome(&a, &b, sampled) else { panic!("they part") };
    assert_eq!(compared, 30_000);
}

#[test]
fn a_wrong_register_is_found_at_its_instruction() {
    let log = record(Fault::None, 1, LENGTH);
    let good = followed("good", &log, Fault::None);
    for count in [1, 777, 54_321, LENGTH - 1] {
        for interval in [1 << 28, 10_000, 3_000] {
            let bad = followed("bad", &log, wrong_register(count, 3));
            let found = finding(outcome(&good, &bad, plan(interval)));
            assert_eq!(found.at.position.count, count - 1, "interval {interval}");
            let elements: Vec<_> = found.cpu.iter().map(|d| d.element.as_str()).collect();
            assert_eq!(elements, ["gpr[3]"]);
            assert!(found.devices.is_empty() && found.memory.is_empty());
            // And with the sides exchanged: then the first one leaves its log, too.
            let found = finding(outcome(&bad, &good, plan(interval)));
            assert_eq!(found.at.position.count, count - 1, "exchanged, interval {interval}");
        }
    }
}

#[test]
fn a_wrong_byte_is_found_with_the_instruction_that_wrote_it_before() {
    let log = record(Fault::None, 1, LENGTH);
    // The byte was written by the loop's third instruction in a turn not long before.
    let count = 40_000 - 3;
    let bad = followed("bad", &log, Fault::Memory { count, address: DATA + 8, bits: 0xff });
    let found = finding(outcome(&followed("good", &log, Fault::None), &bad, plan(1 << 28)));
    assert_eq!(found.at.position.count, count - 1);
    assert_eq!((found.memory_bytes, found.memory.len()), (1, 1));
    let byte = &found.memory[0];
    assert_eq!((byte.address, byte.values[0], byte.values[1]), (DATA + 8, byte.before, !byte.before));
    let change = byte.last_change.as_ref().unwrap();
    assert_eq!(change.at.position.count % TURN, 2);
    assert!(change.instruction.as_ref().unwrap().text.starts_with("mov [rdi]"), "{change:?}");
    // 4096 turns later the loop comes by the same place again.
    assert!(count - change.at.position.count <= 4096 * TURN);
    assert!(found.report().contains("last changed before at"), "{}", found.report());
}

#[test]
fn a_difference_that_heals_is_not_taken_for_the_one_that_stays() {
    let log = record(Fault::None, 1, LENGTH);
    // The jump at the end of the turn sees the wrong flag; the addition after it puts it right.
    let bad = followed(
        "bad",
        &log,
        Fault::Register { count: 80 * TURN - 1, part: Part::Flags, bit: CF.trailing_zeros() },
    );
    let good = followed("good", &log, Fault::None);
    assert!(
        matches!(outcome(&good, &bad, plan(1 << 28)), Outcome::Agree(_)),
        "healed before the next comparison"
    );
    let found = finding(outcome(&good, &bad, plan(1)));
    assert_eq!(found.at.position.count, 80 * TURN - 2);
    assert_eq!(found.cpu[0].element, "rflags");
}

#[test]
fn whatever_part_of_the_cpu_is_wrong_is_named() {
    let log = record(Fault::None, 1, LENGTH);
    let good = followed("good", &log, Fault::None);
    for (part, bit, name) in [
        (Part::Vector(3), 100, "xmm[3]"),
        (Part::Float(5), 79, "st[5]"),
        (Part::Cr2, 63, "cr2"),
        (Part::Star, 4, "star"),
        (Part::Rip, 3, "rip"),
    ] {
        let bad = followed("bad", &log, Fault::Register { count: 60_000, part, bit });
        let found = finding(outcome(&bad, &good, plan(1 << 28)));
        assert_eq!((found.at.position.count, found.cpu[0].element.as_str()), (59_999, name));
    }
}

#[test]
fn a_mnemonic_that_leaves_a_wrong_flag_is_named() {
    let log = record(Fault::None, 1, LENGTH);
    let good = followed("good", &log, Fault::None);
    // The addition is the first instruction of a turn, and its flags last until the next one that writes them.
    let bad = followed("bad", &log, Fault::Mnemonic { mnemonic: Mnemonic::Add, flag: ZF });
    let found = finding(outcome(&bad, &good, plan(16)));
    assert_eq!(found.at.position.count, 0);
    assert_eq!(found.instruction.as_ref().unwrap().text, "add rax,rbx");
    assert_eq!(found.cpu[0].element, "rflags");

    // The bundle has it as a vector, and silicon (or the interpreter, where there is no such CPU) says who is right.
    let directory = tempfile::tempdir().unwrap();
    write_bundle(directory.path(), &found, &good, &header()).unwrap();
    let text = fs::read_to_string(directory.path().join(gemel_diverge::VECTOR)).unwrap();
    let claims = claim::read(&text).unwrap();
    assert_eq!(claims.iter().map(|c| c.who.as_str()).collect::<Vec<_>>(), ["bad", "good"]);
    let mut interpreted = Interpreted::new(CpuModel::x86_64_v3()).unwrap();
    for (claim, wrong) in claims.iter().zip([vec!["ZF"], vec![]]) {
        let ours = interpreted.run(&claim.case).unwrap();
        let differences = isa_compare::differences(&claim.case, &ours, claim.outcome.as_ref().unwrap(), true);
        assert_eq!(differences.iter().map(|d| d.element.as_str()).collect::<Vec<_>>(), wrong, "{text}");
    }
    let plan =
        run::Plan { cases: 0, time: Duration::ZERO, seed: 0, mnemonic: None, modes: Vec::new(), examples: 0 };
    let mut runner = match Runner::new(&plan, &CpuModel::x86_64_v3()) {
        Ok(runner) => runner,
        Err(e) => return println!("silicon is not asked: {e:#}"),
    };
    for (claim, wrong) in claims.iter().zip([1, 0]) {
        let verdict = claim::judge(&mut runner, claim).unwrap();
        assert_eq!(verdict.claim.map(|d| d.len()), Some(wrong), "{text}");
        assert_eq!(verdict.interpreter.map(|d| d.len()), Ok(0), "{text}");
    }
}

#[test]
fn between_two_exits_the_wrong_instruction_is_named() {
    let log = record_of(Reckoning::Exits, Fault::None, 1, 200);
    let good = followed("good", &log, Fault::None);
    assert!(matches!(outcome(&good, &good, plan(1 << 28)), Outcome::Agree(_)));
    for (mnemonic, rbx, text) in [
        (Mnemonic::Rol, 5_000, "rol rax,5"),
        (Mnemonic::Add, 64 * 30, "add "),
        (Mnemonic::Inc, 64 * 31 - 1, "inc rbx"),
    ] {
        let bad = followed("bad", &log, Fault::Once { mnemonic, rbx });
        let found = finding(outcome(&bad, &good, plan(1 << 28)));
        let instruction = found.instruction.as_ref().unwrap();
        assert!(instruction.text.starts_with(text), "{rbx}: {}", found.report());
        // There is one exit in 64 turns.
        assert_eq!(found.at.position.count, rbx / 64, "{}", found.report());
        assert_eq!(found.cpu.iter().map(|d| d.element.as_str()).collect::<Vec<_>>(), ["gpr[0]"]);
    }
}

#[test]
fn a_log_that_both_engines_contradict_is_the_one_that_is_wrong() {
    let log = record(wrong_register(12_345, 0), 1, LENGTH);
    let (a, b) = (followed("a", &log, Fault::None), followed("b", &log, Fault::None));
    let Outcome::LogDiffers(contradiction) = outcome(&a, &b, plan(1 << 28)) else { panic!("not found out") };
    // The first digest behind the fault.
    assert_eq!(contradiction.diverged.at.position.count, 20_000);
    // What is left shows it again.
    let directory = tempfile::tempdir().unwrap();
    write_bundle(directory.path(), &*contradiction, &a, &header()).unwrap();
    let bundle = || Bundle { directory: directory.path().to_owned(), fault: Fault::None };
    let Outcome::LogDiffers(again) = outcome(&bundle(), &bundle(), plan(1 << 28)) else {
        panic!("not again")
    };
    assert_eq!(again.diverged.mismatches, contradiction.diverged.mismatches);
    // And the engine that made it is the one that parts from a good one.
    let maker = followed("maker", &log, wrong_register(12_345, 0));
    let found = finding(outcome(&maker, &a, plan(1 << 28)));
    assert_eq!(found.at.position.count, 12_344);
}

#[test]
fn two_logs_are_compared_by_entries_and_by_state() {
    let (one, other) = (record(Fault::None, 1, LENGTH), record(Fault::None, 2, LENGTH));
    let reader = |log: &[u8]| LogReader::new(std::io::Cursor::new(log.to_vec())).unwrap();
    assert_eq!(first_difference(&mut reader(&one), &mut reader(&one)).unwrap(), None);
    let difference = first_difference(&mut reader(&one), &mut reader(&other)).unwrap().unwrap();
    assert_eq!((difference.number, difference.last_same), (0, None));
    let a = Followed { name: "one", log: one, fault: Fault::None, rbx: 1 };
    let b = Followed { name: "other", log: other, fault: Fault::None, rbx: 2 };
    let found = finding(outcome(&a, &b, Plan { judge: false, ..plan(5_000) }));
    // They are never the same; the first step is named.
    assert_eq!(found.at.position.count, 0);
}

/// Where vectors run is what tests/isa says.
#[test]
fn vectors_lie_where_they_run() {
    use gemel_isa_tests::arena;
    let ours = gemel_diverge::ARENA;
    let theirs = [arena::BASE, arena::CODE, arena::DATA, arena::STACK, arena::FS_SHIFT, arena::GS_SHIFT]
        .map(u64::from);
    assert_eq!(ours, theirs);
}

/// A bundle, on an engine with a fault.
struct Bundle {
    directory: PathBuf,
    fault: Fault,
}

impl Subject for Bundle {
    fn name(&self) -> &str {
        "bundle"
    }
    fn machine(&self) -> Result<Machine, Box<dyn Error + Send + Sync>> {
        let mut machine = machine(self.fault, 0);
        machine.restore(&fs::read(self.directory.join(gemel_diverge::START))?)?;
        Ok(machine)
    }
    fn source(&self) -> Result<LogSource<Box<dyn Read>>, Box<dyn Error + Send + Sync>> {
        let file = File::open(self.directory.join(gemel_diverge::WINDOW))?;
        Ok(LogSource::new(LogReader::new(Box::new(file) as Box<dyn Read>)?))
    }
    fn disks(&self) -> Result<Box<dyn ReplayDisks>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(NoDisks))
    }
}

#[test]
fn a_bundle_shows_the_same_parting_without_the_run_before_it() {
    let log = record(Fault::None, 1, LENGTH);
    let fault = wrong_register(54_321, 6);
    let (good, bad) = (followed("good", &log, Fault::None), followed("bad", &log, fault));
    let found = finding(outcome(&good, &bad, plan(1 << 28)));
    let directory = tempfile::tempdir().unwrap();
    write_bundle(directory.path(), &found, &good, &header()).unwrap();
    let bundle = |fault| Bundle { directory: directory.path().to_owned(), fault };
    let mut machine = bundle(Fault::None).machine().unwrap();
    assert_eq!(machine.vcpu().save().unwrap().count, 54_320);
    let again = finding(outcome(&bundle(Fault::None), &bundle(fault), plan(1 << 28)));
    assert_eq!((again.at, again.cpu.clone()), (found.at, found.cpu));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.path().join(gemel_diverge::REPORT_JSON)).unwrap())
            .unwrap();
    assert_eq!(json["at"]["position"]["count"], 54_320);
    assert_eq!(json["cpu"][0]["element"], "gpr[6]");
}

#[test]
fn what_the_manuals_leave_undefined_is_called_so_where_cpus_are_unlike_and_nothing_else_is() {
    let log = record(Fault::None, 1, LENGTH);
    let good = followed("good", &log, Fault::None);
    let unlike = Plan {
        excuse: Some(|step| {
            let latitude = Latitude::at(step.before, &|linear, n| step.read(linear, n));
            let [a, b] = step.after;
            latitude.excuse(a, b, step.memory, &|linear| step.physical(linear))
        }),
        ..plan(10_000)
    };
    for (mnemonic, flag, excuse) in [
        (Mnemonic::And, AF, Some("AF: undefined after AND (always)")),
        (Mnemonic::Rol, OF, Some("OF: undefined after ROL (count beyond 1)")),
        (Mnemonic::And, ZF, None),
        (Mnemonic::Rol, CF, None),
        (Mnemonic::Add, AF, None),
    ] {
        let bad = followed("bad", &log, Fault::Mnemonic { mnemonic, flag });
        let found = finding(outcome(&good, &bad, unlike));
        assert_eq!(found.undefined.as_deref(), excuse, "{mnemonic:?} {flag:#x}");
        assert_eq!(found.report().contains("leave undefined"), excuse.is_some());
        // Among like CPUs nothing is excused.
        let found = finding(outcome(&good, &bad, plan(10_000)));
        assert_eq!(found.undefined, None);
    }
}
