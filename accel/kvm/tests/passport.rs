//! Passports: one that was measured on a host with software KVM, judged; this host's own, measured and held against what the host says of
//! itself; two that are compared.

#![allow(clippy::unwrap_used)] // a test that cannot read its input has failed

use gemel_kvm::Quirks;
use gemel_kvm::passport::{
    Access, DEVICE, DirtyLog, Execution, Leak, Measured, Mode, Passport, Stopped, Treatment, VERSION,
    Virtualization, compare, refusal,
};
use gemel_x86::CpuModel;
use std::io::Write;
use std::path::Path;

/// Measured on 2026-11-24 on a Zen 4 EPYC that is itself a guest, whose KVM is software: ring 3 of long mode runs on the CPU, all else in
/// an emulator.
fn software_zen4() -> Passport {
    serde_json::from_str(include_str!("passports/software-zen4.json")).unwrap()
}

/// The same as it would be on a CPU with AMD-V where nothing is amiss but what stock KVM cannot hide.
fn hardware() -> Passport {
    let mut passport = software_zen4();
    passport.cpu.virtualization = Virtualization::AmdV;
    passport.kvm = Access::Usable { api: 12, modules: vec!["kvm".into(), "kvm_amd".into()] };
    let findings = passport.findings.as_mut().unwrap();
    let native = findings.modes[&Mode::LongRing3].clone();
    for mode in findings.modes.values_mut() {
        *mode = native.clone();
        mode.single_step = Measured::Found(Stopped::Exactly);
        mode.breakpoint = Measured::Found(Stopped::Exactly);
        mode.instructions.insert("cpuid".into(), Measured::Found(Treatment::Masked));
    }
    findings.tables.outside_writes.values_mut().for_each(|heeded| *heeded = Measured::Found(true));
    findings.syscall = Measured::Found(Execution::Right);
    findings.int_n = Measured::Found(Execution::Right);
    passport
}

#[test]
fn the_engine_uses_a_host_by_its_passport() {
    assert_eq!(Quirks::of(software_zen4().findings.as_ref().unwrap()), Quirks::SOFTWARE);
    assert_eq!(Quirks::of(hardware().findings.as_ref().unwrap()), Quirks::HARDWARE);
}

fn names(passport: &Passport, model: &str) -> Vec<Leak> {
    passport.leaks(&CpuModel::parse(model).unwrap()).into_iter().map(|met| met.leak).collect()
}

#[test]
fn a_software_kvm_is_no_place_for_a_kernel_and_hides_nothing_from_ring_3() {
    let passport = software_zen4();
    let shortcomings = passport.shortcomings();
    for what in [
        "64-bit ring 0: instructions are emulated",
        "32-bit paged: ",
        "SYSCALL from ring 3",
        "64-bit ring 3: breakpoints",
    ] {
        assert!(
            shortcomings.iter().any(|shortcoming| shortcoming.starts_with(what)),
            "{what}: {shortcomings:?}"
        );
    }
    // Only ring 3 is given to this KVM; what enters ring 0 goes to the assistant.
    use Leak::*;
    assert_eq!(names(&passport, "x86-64-v2"), [Tsc, Cpuid, Tzcnt, Lzcnt]);
    assert_eq!(names(&passport, "x86-64-v2,-tsc,+bmi1,+lzcnt"), [Cpuid]);
    assert_eq!(names(&passport, "x86-64-v3"), [Tsc, Cpuid, Rdrand, Rdseed]);

    // One that runs ring 0 on the CPU is given all of it.
    let mut other = passport.clone();
    other.findings.as_mut().unwrap().modes.get_mut(&Mode::LongRing0).unwrap().rate = Measured::Found(5000.0);
    assert_eq!(names(&other, "x86-64-v2,-tsc"), [Cpuid, Tzcnt, Lzcnt, Syscall, Int]);
    // Offered, TZCNT is missing in the emulator.
    assert_eq!(names(&other, "x86-64-v3"), [Tsc, Cpuid, Rdrand, Rdseed, Tzcnt, Lzcnt, Syscall, Int]);
}

#[test]
fn hardware_without_a_fault_leaks_what_the_model_offers_and_no_more() {
    let passport = hardware();
    assert_eq!(passport.shortcomings(), [""; 0]);
    assert_eq!(names(&passport, "x86-64-v2"), [Leak::Tsc, Leak::Tzcnt, Leak::Lzcnt]);
    assert_eq!(names(&passport, "x86-64-v2,-tsc,+bmi1,+lzcnt"), []);
    assert_eq!(names(&passport, "x86-64-v3"), [Leak::Tsc, Leak::Rdrand, Leak::Rdseed]);
}

#[test]
fn a_refusal_names_the_leak_and_what_to_do_and_yields_to_an_assertion() {
    let (passport, model) = (hardware(), CpuModel::parse("x86-64-v2,+bmi1").unwrap());
    let met = passport.leaks(&model);
    let line = refusal(&met, &[], &model).unwrap();
    assert!(
        line.contains("RDTSC gives the host's counter") && line.contains("--stays-clear tsc,lzcnt"),
        "{line}"
    );
    assert!(line.contains("(--cpu x86-64-v2,+bmi1,-tsc,+lzcnt)") && !line.contains('\n'), "{line}");
    let line = refusal(&met, &[Leak::Tsc], &model).unwrap();
    assert!(line.ends_with("--stays-clear lzcnt"), "{line}");
    assert_eq!(refusal(&met, &[Leak::Tsc, Leak::Lzcnt], &model), None);
}

#[test]
fn leaks_have_names_that_are_read_back() {
    for leak in Leak::ALL {
        assert_eq!(leak.name().parse(), Ok(leak));
        assert_eq!(serde_json::to_value(leak).unwrap(), leak.name());
    }
    assert!("tcs".parse::<Leak>().unwrap_err().contains("tsc, cpuid"));
}

#[test]
fn each_reason_against_a_pair_is_named() {
    let here = hardware();
    let fits =
        |there: &Passport| compare(&here, there).fits.into_iter().map(|fit| fit.fits).collect::<Vec<_>>();
    assert_eq!(fits(&here), [true; 4]);

    let mut intel = here.clone();
    intel.cpu.vendor = "GenuineIntel".into();
    let comparison = compare(&here, &intel);
    assert!(
        comparison.fits.iter().all(|fit| !fit.fits && fit.why_not[0].contains("unlike vendors")),
        "{comparison:?}"
    );

    let mut older = here.clone();
    older.cpu.signature = [23, 49, 0];
    older.cpu.features.retain(|name| !name.starts_with("avx512"));
    let comparison = compare(&here, &older);
    assert_eq!(comparison.models, ["x86-64-v2", "x86-64-v3"]);
    assert_eq!(comparison.fits.iter().map(|fit| fit.fits).collect::<Vec<_>>(), [true, false, false, false]);
    assert!(comparison.fits[0].unproved[0].contains("unlike models"));

    let mut without = here.clone();
    (without.kvm, without.findings) = (Access::Denied { why: "not for you".into() }, None);
    assert_eq!(fits(&without), [true, false, true, false], "interpreter there fits either engine here");
    assert!(compare(&here, &without).fits[1].why_not[0].contains("there: not for you"));

    let mut counting = here.clone();
    let counter = r#"{"found":{"event":5308625,"counted":[100000,100000],"skid":[[3,40],[9,10]]}}"#;
    counting.findings.as_mut().unwrap().counter = serde_json::from_str(counter).unwrap();
    assert_eq!(compare(&counting, &here).counts, ["instructions", "exits"]);
    assert_eq!(compare(&counting, &counting).counts, ["instructions", "exits", "cond_branches"]);
}

#[test]
fn json_gives_the_same_passport_back() {
    let passport = software_zen4();
    assert_eq!(passport.version, VERSION);
    let text = serde_json::to_string(&passport).unwrap();
    assert_eq!(serde_json::from_str::<Passport>(&text).unwrap(), passport);
}

#[test]
fn no_device_and_no_rights_are_two_things() {
    let absent = Passport::measure(Path::new("/dev/no-such-kvm"));
    assert!(
        matches!(&absent.kvm, Access::Absent { why } if why.contains("/dev/no-such-kvm")),
        "{:?}",
        absent.kvm
    );
    assert_eq!(absent.findings, None);
    assert_eq!(absent.shortcomings().len(), 1);
    // A file that is no KVM is broken or absent, never usable.
    let null = Passport::measure(Path::new("/dev/null"));
    assert!(!matches!(null.kvm, Access::Usable { .. }), "{:?}", null.kvm);
}

/// What any host must show, whatever its KVM is.
#[test]
fn this_host_is_measured() {
    let passport = Passport::measure(Path::new(DEVICE));
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    assert!(
        cpuinfo.contains(&passport.cpu.name) && cpuinfo.contains(&passport.cpu.vendor),
        "{:?}",
        passport.cpu
    );
    let Some(findings) = &passport.findings else {
        // What macros print is shown of tests that fail only.
        let line = format!("SKIPPED: {DEVICE} is not usable here: {:?}\n", passport.kvm);
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap();
    let has = |flag: &str| flags.split_whitespace().any(|other| other == flag);
    let expected = match (has("vmx"), has("svm")) {
        (true, _) => Virtualization::VtX,
        (false, true) => Virtualization::AmdV,
        (false, false) => Virtualization::None,
    };
    assert_eq!(passport.cpu.virtualization, expected);
    assert_eq!(passport.cpu.hypervisor.is_some(), has("hypervisor"));
    for (name, flag) in
        [("avx2", "avx2"), ("bmi1", "bmi1"), ("pcid", "pcid"), ("sha", "sha_ni"), ("tsc", "tsc")]
    {
        assert_eq!(passport.cpu.features.iter().any(|feature| feature == name), has(flag), "{name}");
    }
    // What the engine asks for itself, more quickly, comes to the same.
    let asked = std::time::Instant::now();
    assert_eq!(Quirks::of_host(), Quirks::of(findings));
    println!("{:?} asked for in {:?}", Quirks::of_host(), asked.elapsed());
    let ring_3 = &findings.modes[&Mode::LongRing3];
    assert!(ring_3.rate.found().is_some_and(|rate| *rate > 0.0), "{:?}", ring_3.rate);
    let treatments = ring_3.instructions.values();
    assert_eq!(treatments.filter(|treatment| treatment.found().is_some()).count(), ring_3.instructions.len());
    // No KVM has ever virtualised RDTSC of ring 3 by itself.
    assert_eq!(ring_3.instructions["rdtsc"], Measured::Found(Treatment::Leaks));
    assert_eq!(findings.dirty_log, Measured::Found(DirtyLog::Exact));
    for (mode, costs) in &findings.exits {
        for (kind, cost) in costs.iter().filter_map(|(kind, cost)| Some((kind, cost.found()?))) {
            assert!((50..10_000_000).contains(cost), "{mode}, {kind}: {cost} ns");
        }
    }
}
