//! Two passports: whether one host does what the other did, and why not.
//!
//! Not responsible for: what a single host lacks in itself (`rules`).

use super::facts::{Access, Measured, Passport};
use gemel_x86::{CpuModel, Feature};
use serde::Serialize;

/// The engines that two hosts can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The interpreter.
    Interp,
    /// KVM.
    Kvm,
}

/// How two hosts fit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Comparison {
    /// For each choice of engines: whether the hosts can be a pair, and so follow each other's logs.
    pub fits: Vec<Fit>,
    /// CPU models that both hosts can offer.
    pub models: Vec<String>,
    /// What positions can count in both.
    pub counts: Vec<&'static str>,
}

/// One choice of engines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fit {
    /// On this host.
    pub here: Engine,
    /// On the other.
    pub there: Engine,
    /// Whether nothing stands against it.
    pub fits: bool,
    /// What does.
    pub why_not: Vec<String>,
    /// What is expected to hold, and was not proved.
    pub unproved: Vec<String>,
}

/// Compares this host with another.
pub fn compare(here: &Passport, there: &Passport) -> Comparison {
    let engines = [Engine::Interp, Engine::Kvm];
    let pairs = engines.into_iter().flat_map(|a| engines.map(|b| (a, b)));
    let both = |able: fn(&Passport) -> bool| able(here) && able(there);
    let counts = [("instructions", true), ("exits", true), ("cond_branches", both(counts_branches))];
    let models = [CpuModel::x86_64_v2(), CpuModel::x86_64_v3(), CpuModel::x86_64_v4()];
    Comparison {
        fits: pairs.map(|engines| fit(here, there, engines)).collect(),
        models: models
            .iter()
            .filter(|model| offers(here, model) && offers(there, model))
            .map(CpuModel::text)
            .collect(),
        counts: counts.into_iter().filter(|(_, both)| *both).map(|(name, _)| name).collect(),
    }
}

fn fit(here: &Passport, there: &Passport, (a, b): (Engine, Engine)) -> Fit {
    let (mut why_not, mut unproved) = (Vec::new(), Vec::new());
    let (x, y) = (&here.cpu, &there.cpu);
    if x.vendor != y.vendor {
        why_not.push(format!(
            "the CPUs are of unlike vendors ({}, {}): RCPPS, RSQRTPS and x87's transcendental functions give other bits, and \
             instructions leave other undefined flags",
            x.vendor, y.vendor
        ));
    } else if x.signature != y.signature {
        let text = format!(
            "the CPUs are of one vendor and unlike models ({}, {}): approximations and undefined flags may differ",
            x.name, y.name
        );
        if a == Engine::Interp && b == Engine::Interp { unproved.push(text) } else { why_not.push(text) }
    }
    for (engine, passport, side) in [(a, here, "here"), (b, there, "there")] {
        if engine == Engine::Kvm {
            why_not.extend(usable(passport).map(|why| format!("{side}: {why}")));
            let leaks = passport.leaks(&CpuModel::x86_64_v2());
            if !leaks.is_empty() {
                let names: Vec<_> = leaks.iter().map(|met| met.leak.name()).collect();
                unproved.push(format!("{side}: that the guest stays clear of {}", names.join(", ")));
            }
        }
    }
    if (a == Engine::Kvm || b == Engine::Kvm) && why_not.is_empty() {
        let (one, other) = (x.features.as_slice(), y.features.as_slice());
        let only = |mine: &[String], theirs: &[String]| {
            mine.iter().filter(|name| !theirs.contains(name)).cloned().collect::<Vec<_>>().join(" ")
        };
        for (only, side) in [(only(one, other), "here"), (only(other, one), "there")] {
            if !only.is_empty() {
                unproved.push(format!(
                    "only the CPU {side} has {only}: a guest that executes them without asking CPUID finds out"
                ));
            }
        }
    }
    Fit { here: a, there: b, fits: why_not.is_empty(), why_not, unproved }
}

/// Why KVM cannot be used at all.
fn usable(passport: &Passport) -> Option<String> {
    match (&passport.kvm, &passport.findings) {
        (Access::Usable { .. }, Some(_)) => None,
        (Access::Absent { why } | Access::Denied { why } | Access::Broken { why }, _) => Some(why.clone()),
        (Access::Usable { .. }, None) => Some("KVM ran no guest".into()),
    }
}

/// Whether the host has a counter of branches that counted exactly.
fn counts_branches(passport: &Passport) -> bool {
    let counter = passport.findings.as_ref().map(|findings| &findings.counter);
    matches!(counter, Some(Measured::Found(counter)) if counter.counted[0] == counter.counted[1])
}

/// Whether a host's CPU has what a model offers and the host must lend: arithmetic that runs on its own units.
fn offers(passport: &Passport, model: &CpuModel) -> bool {
    let lent = Feature::SSE3
        | Feature::SSSE3
        | Feature::SSE4_1
        | Feature::SSE4_2
        | Feature::AES
        | Feature::PCLMULQDQ
        | Feature::SHA
        | Feature::AVX
        | Feature::AVX2
        | Feature::FMA
        | Feature::F16C
        | Feature::AVX512F
        | Feature::AVX512CD
        | Feature::AVX512BW
        | Feature::AVX512DQ
        | Feature::AVX512VL;
    lent.iter_names().all(|(name, feature)| {
        !model.has(feature) || passport.cpu.features.contains(&name.to_ascii_lowercase())
    })
}
